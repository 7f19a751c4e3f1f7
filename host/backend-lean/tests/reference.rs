//! Every case of `make_cases.py` has ONNX Runtime's outputs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use spinfer_backend::{Backend, Encoding, Tensor, TensorType};
use spinfer_backend_lean::Lean;

/// Maximum difference, absolute for numbers up to 1 and relative above: a few steps of FP32, for
/// sums in another order and another `exp`.
const TOLERANCE: f32 = 1e-6;

/// Tree ensembles without a post-transform have the same bits, as they add in the reference's
/// order.
fn tolerance(name: &str) -> f32 {
    let trees = name.starts_with("regressor") || name.starts_with("classifier");
    let exact = trees && !POSTS.iter().any(|post| name.contains(post));
    if exact { 0.0 } else { TOLERANCE }
}

const POSTS: [&str; 3] = ["LOGISTIC", "SOFTMAX", "PROBIT"];

#[test]
fn every_case_has_onnx_runtimes_outputs() {
    let cases = cases();
    assert!(cases.len() > 400, "only {} cases", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn cases() -> Vec<Value> {
    let mut lines = String::new();
    let file = include_bytes!("cases.json.gz");
    flate2::read::GzDecoder::new(&file[..]).read_to_string(&mut lines).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(case: &Value) -> Result<(), String> {
    let name = case["name"].as_str().unwrap();
    let model = BASE64_STANDARD.decode(case["model"].as_str().unwrap()).unwrap();
    let graph = Lean.load(&model, Encoding::Onnx).map_err(|e| format!("{name}: {e}"))?;
    let got = graph.compute(vec![tensor(&case["input"])]).map_err(|e| format!("{name}: {e}"))?;
    let expected: Vec<Tensor> = case["outputs"].as_array().unwrap().iter().map(tensor).collect();
    assert_eq!(got.len(), expected.len(), "{name}");
    for (got, expected) in got.iter().zip(&expected) {
        if (&got.dimensions, got.ty) != (&expected.dimensions, expected.ty) {
            return Err(format!(
                "{name}: {} {:?} is not {} {:?}",
                got.ty, got.dimensions, expected.ty, expected.dimensions
            ));
        }
        if got.ty != TensorType::Fp32 {
            if got.data != expected.data {
                return Err(format!("{name}: {:?} is not {:?}", got.data, expected.data));
            }
            continue;
        }
        let (got, expected) = (floats(got), floats(expected));
        let tolerance = tolerance(name);
        if !got.iter().zip(&expected).all(|(a, b)| close(*a, *b, tolerance)) {
            return Err(format!("{name}: {got:?} is not {expected:?}"));
        }
    }
    Ok(())
}

fn close(a: f32, b: f32, tolerance: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1.0)
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn tensor(value: &Value) -> Tensor {
    let ty = match value["ty"].as_str().unwrap() {
        "FP32" => TensorType::Fp32,
        "FP64" => TensorType::Fp64,
        "I32" => TensorType::I32,
        "I64" => TensorType::I64,
        other => panic!("{other}"),
    };
    let shape = value["shape"].as_array().unwrap();
    Tensor {
        dimensions: shape.iter().map(|axis| axis.as_u64().unwrap().try_into().unwrap()).collect(),
        ty,
        data: BASE64_STANDARD.decode(value["data"].as_str().unwrap()).unwrap(),
    }
}
