//! The native reference server: hyper, serde_json and ONNX Runtime, as an engineer would write it
//! without WebAssembly in an afternoon. It sends the same responses to the same requests. Figures
//! of the load comparison are ratios to it.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use spinfer_backend::{Backend, Encoding, Graph, Tensor, TensorType};
use spinfer_backend_ort::library::FILE;
use spinfer_backend_ort::{Library, OnnxRuntime, Options as OrtOptions};
use tokio::net::TcpListener;

#[derive(Parser)]
struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// ONNX Runtime's library [default: the one in the folder of this program]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Graph of the iris classifier
    model: PathBuf,
}

const LABELS: [&str; 3] = ["setosa", "versicolor", "virginica"];

struct Model {
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

impl Model {
    fn load(path: &PathBuf, library: PathBuf) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let options = OrtOptions { library: Library::At(library), memory: 1 << 30 };
        let graph = OnnxRuntime::new(options).load(&bytes, Encoding::Onnx)?;
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

async fn handle(model: Arc<Model>, request: Request<Incoming>) -> Response<Full<Bytes>> {
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
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let program = std::env::current_exe()?;
    let library = options.library.unwrap_or_else(|| program.with_file_name(FILE));
    let model = Arc::new(Model::load(&options.model, library)?);
    let listener = TcpListener::bind(options.listen).await?;
    writeln!(std::io::stdout(), "Serving http://{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let model = Arc::clone(&model);
        let service = service_fn(move |request| {
            let model = Arc::clone(&model);
            async move { Ok::<_, Infallible>(handle(model, request).await) }
        });
        tokio::spawn(async move {
            // An error of a connection concerns only its client.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
