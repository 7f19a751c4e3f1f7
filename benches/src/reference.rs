//! What the native reference server does with a request: hyper's types, serde_json, and the evaluator
//! of the host's own choice, as an engineer would write it without WebAssembly in an afternoon.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use spinfer_backend::{Backend, Encoding, Graph, Tensor, TensorType};
use spinfer_backend_lean::Lean;
use spinfer_backend_ort::library::FILE;
use spinfer_backend_ort::{Library, OnnxRuntime, Options};

/// A library that runs the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Evaluator {
    Lean,
    #[value(name = "onnxruntime")]
    OnnxRuntime,
}

const LABELS: [&str; 3] = ["setosa", "versicolor", "virginica"];

/// A loaded iris classifier.
pub struct Model {
    graph: Arc<dyn Graph>,
    version: String,
}

#[derive(Deserialize)]
struct PredictRequest {
    features: Vec<f32>,
}

#[derive(Serialize)]
struct Prediction<'a> {
    model: &'a str,
    version: &'a str,
    prediction: &'a str,
    probability: f32,
    probabilities: Probabilities,
}

#[derive(Serialize)]
struct Probabilities {
    setosa: f32,
    versicolor: f32,
    virginica: f32,
}

#[derive(Deserialize)]
struct InferRequest {
    inputs: Vec<InputTensor>,
}

#[derive(Deserialize)]
struct InputTensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Vec<f32>,
}

#[derive(Serialize)]
struct InferResponse<'a> {
    model_name: &'a str,
    model_version: &'a str,
    outputs: (Output<i64>, Output<f32>),
}

#[derive(Serialize)]
struct Output<T> {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    data: Vec<T>,
}

#[derive(Serialize)]
struct Failure {
    error: String,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Model {
    /// Loads a graph into `evaluator`; if `None`, into the one that the host prefers: lean, or ONNX
    /// Runtime for what lean does not support. `library` is that of ONNX Runtime.
    ///
    /// # Errors
    /// If the file or the library cannot be read, or the evaluator does not support the graph.
    pub fn load(
        path: &Path,
        evaluator: Option<Evaluator>,
        library: Option<PathBuf>,
    ) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let lean = || Lean.load(&bytes, Encoding::Onnx);
        let onnxruntime = || {
            let library = match library {
                Some(library) => library,
                None => std::env::current_exe()?.with_file_name(FILE),
            };
            let options = Options { library: Library::At(library), memory: 1 << 30 };
            anyhow::Ok(OnnxRuntime::new(options).load(&bytes, Encoding::Onnx)?)
        };
        let graph = match evaluator {
            Some(Evaluator::Lean) => lean()?,
            Some(Evaluator::OnnxRuntime) => onnxruntime()?,
            None => lean().or_else(|_| onnxruntime())?,
        };
        let version = path.parent().and_then(|p| p.file_name()).unwrap_or_default();
        Ok(Self { graph, version: version.to_string_lossy().into_owned() })
    }

    fn run(&self, features: &[f32]) -> Result<(i64, Vec<f32>)> {
        let data = features.iter().flat_map(|feature| feature.to_le_bytes()).collect();
        let input = Tensor { dimensions: vec![1, 4], ty: TensorType::Fp32, data };
        let outputs = self.graph.compute(vec![input])?;
        let [label, probabilities] = outputs.as_slice() else {
            anyhow::bail!("the graph has other outputs")
        };
        let label = i64::from_le_bytes(*label.data.first_chunk().context("no label")?);
        let probabilities = probabilities.data.as_chunks().0.iter();
        Ok((label, probabilities.map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    fn predict(&self, body: &[u8]) -> Result<Vec<u8>> {
        let request: PredictRequest = serde_json::from_slice(body)?;
        let (label, p) = self.run(&request.features)?;
        let label = usize::try_from(label)?;
        Ok(serde_json::to_vec(&Prediction {
            model: "iris-classifier",
            version: &self.version,
            prediction: LABELS[label],
            probability: p[label],
            probabilities: Probabilities { setosa: p[0], versicolor: p[1], virginica: p[2] },
        })?)
    }

    fn infer(&self, body: &[u8]) -> Result<Vec<u8>> {
        let request: InferRequest = serde_json::from_slice(body)?;
        let input = request.inputs.first().context("no input")?;
        anyhow::ensure!(
            input.name == "features" && input.datatype == "FP32",
            "expected the input features of FP32"
        );
        anyhow::ensure!(input.shape == [1, 4], "expected the shape [1, 4]");
        let (label, p) = self.run(&input.data)?;
        Ok(serde_json::to_vec(&InferResponse {
            model_name: "iris-classifier",
            model_version: &self.version,
            outputs: (
                Output { name: "label", datatype: "INT64", shape: vec![1], data: vec![label] },
                Output { name: "probabilities", datatype: "FP32", shape: vec![1, 3], data: p },
            ),
        })?)
    }
}

/// Serves one request.
pub async fn handle<B>(model: &Model, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Error: std::error::Error + Send + Sync + 'static>,
{
    let (head, body) = request.into_parts();
    let result = match (head.method, head.uri.path()) {
        (Method::GET, "/empty") => Ok(b"{}".to_vec()),
        (Method::POST, path) => match body.collect().await {
            Ok(body) if path.ends_with("/predict") => model.predict(&body.to_bytes()),
            Ok(body) if path.ends_with("/infer") => model.infer(&body.to_bytes()),
            Ok(_) => Err(anyhow::anyhow!("unknown path")),
            Err(error) => Err(error.into()),
        },
        _ => Err(anyhow::anyhow!("unknown path")),
    };
    let (status, json) = match result {
        Ok(json) => (StatusCode::OK, json),
        Err(error) => {
            let failure = Failure { error: error.to_string() };
            (StatusCode::BAD_REQUEST, serde_json::to_vec(&failure).unwrap_or_default())
        }
    };
    let mut response = Response::new(Full::new(json.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
