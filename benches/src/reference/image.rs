//! The classifier of images ([`crate::image`]): `infer` with the image as JSON or as binary data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use hyper::header::HeaderMap;
use serde::{Deserialize, Serialize};
use spinfer_backend::{Graph, Tensor, TensorType};

use super::{Evaluator, Output, Service};
use crate::image::{BINARY_HEADER, SHAPE};

/// A loaded classifier of images.
#[derive(Debug)]
pub struct Image {
    graph: Arc<dyn Graph>,
}

#[derive(Deserialize)]
struct InferRequest {
    inputs: [InputTensor; 1],
}

#[derive(Deserialize)]
struct InputTensor {
    shape: Vec<usize>,
    /// Absent if the data is binary.
    data: Option<Vec<f32>>,
}

#[derive(Serialize)]
struct InferResponse {
    model_name: &'static str,
    model_version: &'static str,
    outputs: [Output<f32>; 1],
}

impl Image {
    /// Loads the graph.
    ///
    /// # Errors
    /// If the file or a library cannot be read, or the evaluator does not support the graph.
    pub fn load(
        graph: &Path,
        evaluator: Option<Evaluator>,
        library: Option<PathBuf>,
    ) -> Result<Self> {
        Ok(Self { graph: super::load(graph, evaluator, library)? })
    }
}

impl Service for Image {
    fn respond(&self, _: &str, headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>> {
        let json = match headers.get(BINARY_HEADER) {
            None => body.len(),
            Some(length) => length.to_str()?.parse()?,
        };
        let (json, binary) = body.split_at_checked(json).context("the header is incomplete")?;
        let InferRequest { inputs: [InputTensor { shape, data }] } = serde_json::from_slice(json)?;
        let data = match data {
            None => binary.to_vec(),
            Some(data) => data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let size = SHAPE.iter().product::<usize>() * size_of::<f32>();
        ensure!(shape == SHAPE && data.len() == size, "expected an image of the shape {SHAPE:?}");
        let dimensions = SHAPE.iter().map(|&axis| u32::try_from(axis)).collect::<Result<_, _>>()?;
        let image = Tensor { dimensions, ty: TensorType::Fp32, data };
        let outputs = self.graph.compute(vec![image])?;
        let means = outputs.first().context("no output")?.data.as_chunks().0.iter();
        let data: Vec<f32> = means.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let shape = vec![1, data.len()];
        Ok(serde_json::to_vec(&InferResponse {
            model_name: "iris-classifier",
            model_version: "1",
            outputs: [Output { name: "means", datatype: "FP32", shape, data }],
        })?)
    }
}
