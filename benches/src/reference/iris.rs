//! The iris classifier: the operations `predict` and `infer`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper::header::HeaderMap;
use serde::{Deserialize, Serialize};
use spinfer_backend::{Graph, Tensor, TensorType};

use super::{Evaluator, Output, Service};

const FEATURES: usize = 4;
const LABELS: [&str; 3] = ["setosa", "versicolor", "virginica"];

/// A loaded iris classifier.
#[derive(Debug)]
pub struct Iris {
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

impl Iris {
    /// Loads the graph of a model folder.
    ///
    /// # Errors
    /// If the file or a library cannot be read, or the evaluator does not support the graph.
    pub fn load(
        graph: &Path,
        evaluator: Option<Evaluator>,
        library: Option<PathBuf>,
    ) -> Result<Self> {
        let version = graph.parent().and_then(|p| p.file_name()).unwrap_or_default();
        let version = version.to_string_lossy().into_owned();
        Ok(Self { graph: super::load(graph, evaluator, library)?, version })
    }

    /// The classes and probabilities of some rows.
    fn run(&self, features: &[f32], rows: usize) -> Result<(Vec<i64>, Vec<f32>)> {
        anyhow::ensure!(features.len() == rows * FEATURES, "expected {FEATURES} features a row");
        let data = features.iter().flat_map(|feature| feature.to_le_bytes()).collect();
        let dimensions = vec![u32::try_from(rows)?, 4];
        let input = Tensor { dimensions, ty: TensorType::Fp32, data };
        let outputs = self.graph.compute(vec![input])?;
        let [labels, probabilities] = outputs.as_slice() else {
            anyhow::bail!("the graph has other outputs")
        };
        let labels = labels.data.as_chunks().0.iter();
        let probabilities = probabilities.data.as_chunks().0.iter();
        Ok((
            labels.map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            probabilities.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        ))
    }

    fn predict(&self, body: &[u8]) -> Result<Vec<u8>> {
        let request: PredictRequest = serde_json::from_slice(body)?;
        let (labels, p) = self.run(&request.features, 1)?;
        let label = usize::try_from(*labels.first().context("no label")?)?;
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
        let [rows, FEATURES] = input.shape[..] else { anyhow::bail!("expected the shape [-1, 4]") };
        let (labels, p) = self.run(&input.data, rows)?;
        Ok(serde_json::to_vec(&InferResponse {
            model_name: "iris-classifier",
            model_version: &self.version,
            outputs: (
                Output { name: "label", datatype: "INT64", shape: vec![rows], data: labels },
                Output { name: "probabilities", datatype: "FP32", shape: vec![rows, 3], data: p },
            ),
        })?)
    }
}

impl Service for Iris {
    fn respond(&self, path: &str, _: &HeaderMap, body: &[u8]) -> Result<Vec<u8>> {
        match path.rsplit('/').next() {
            Some("predict") => self.predict(body),
            Some("infer") => self.infer(body),
            _ => anyhow::bail!("unknown path"),
        }
    }
}
