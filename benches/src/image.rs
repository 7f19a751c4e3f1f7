//! A model whose inputs are large and whose inference is cheap, so that its requests cost what the way
//! of their bytes costs: the mean of each channel of an image of 600 kB.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use prost::Message;
use sha2::{Digest, Sha256};
use spinfer_onnx::{GraphProto, ModelProto, OperatorSetIdProto};

use crate::network::{node, value};

/// Shape of an image: one image, channels, rows, columns.
pub const SHAPE: [usize; 4] = [1, 3, 224, 224];
/// The request header with the length of the JSON in front of binary data (Open Inference Protocol).
pub const BINARY_HEADER: &str = "inference-header-content-length";

/// Writes the model folder `dir`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let graph = graph().encode_to_vec();
    let digest = Sha256::digest(&graph);
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(dir.join("model.onnx"), graph)?;
    let signature = format!(
        "name = 'iris-classifier'\nversion = '1'\nsha256 = '{digest}'\n\
         [[inputs]]\nname = 'image'\ndatatype = 'FP32'\nshape = {SHAPE:?}\n\
         [[outputs]]\nname = 'means'\ndatatype = 'FP32'\nshape = [1, 3]\n"
    );
    std::fs::write(dir.join("model.toml"), signature)?;
    Ok(())
}

fn graph() -> ModelProto {
    let [_, channels, ..] = SHAPE;
    let graph = GraphProto {
        name: "means".into(),
        node: vec![
            node("GlobalAveragePool", &["image"], "pooled"),
            node("Flatten", &["pooled"], "means"),
        ],
        input: vec![value("image", SHAPE.map(Some))],
        output: vec![value("means", [Some(1), Some(channels)])],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto {
        ir_version: 8,
        opset_import: vec![opset],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// An image with values of two digits.
fn pixels() -> impl Iterator<Item = usize> {
    (0..SHAPE.iter().product::<usize>()).map(|index| index * 7 % 100)
}

/// A request with the image as JSON, of 750 kB.
#[must_use]
pub fn json() -> String {
    let mut data = String::new();
    for pixel in pixels() {
        let _ = write!(data, "0.{pixel:02},");
    }
    let data = data.trim_end_matches(',');
    format!(
        r#"{{"inputs":[{{"name":"image","shape":{SHAPE:?},"datatype":"FP32","data":[{data}]}}]}}"#
    )
}

/// A request with the image as binary data, of 600 kB, and the length of the JSON in front of it.
#[must_use]
pub fn binary() -> (Vec<u8>, usize) {
    let data: Vec<u8> = pixels().flat_map(|pixel| (pixel as f32 / 100.0).to_le_bytes()).collect();
    let size = data.len();
    let json = format!(
        r#"{{"inputs":[{{"name":"image","shape":{SHAPE:?},"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}]}}"#
    );
    let length = json.len();
    ([json.into_bytes(), data].concat(), length)
}
