//! Recorded cases: a model, inputs, and ONNX Runtime's outputs, a JSON object a line.

use std::io::Read;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use spinfer_backend::{Tensor, TensorType};

/// The lines of a file compressed by gzip; its path is from this crate's folder.
pub(crate) fn read(path: &str) -> Vec<Value> {
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let mut lines = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut lines).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// `None` for a type that `wasi:nn` does not carry.
pub(crate) fn tensor(value: &Value) -> Option<Tensor> {
    let ty = match value["ty"].as_str().unwrap() {
        "F32" => TensorType::Fp32,
        "F64" => TensorType::Fp64,
        "I32" => TensorType::I32,
        "I64" => TensorType::I64,
        _ => return None,
    };
    let shape = value["shape"].as_array().unwrap();
    let dimensions = shape.iter().map(|axis| axis.as_u64().unwrap().try_into().unwrap()).collect();
    Some(Tensor { dimensions, ty, data: bytes(&value["data"]) })
}

/// The greatest difference, absolute for numbers up to 1 and relative above; infinite if types, shapes
/// or integers differ.
pub(crate) fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    if (got.ty, &got.dimensions) != (expected.ty, &expected.dimensions) {
        return f64::INFINITY;
    }
    if !matches!(got.ty, TensorType::Fp32 | TensorType::Fp64) {
        return if got.data == expected.data { 0.0 } else { f64::INFINITY };
    }
    let apart = |(a, b): (f64, f64)| {
        if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() / b.abs().max(1.0) }
    };
    let apart = floats(got).into_iter().zip(floats(expected)).map(apart);
    apart.fold(0.0, |most, x| if x <= most { most } else { x.min(f64::INFINITY) })
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    if tensor.ty == TensorType::Fp64 {
        tensor.data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    } else {
        tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect()
    }
}
