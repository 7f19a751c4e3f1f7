//! Every case of `make_ml_cases.py` gives ONNX Runtime's outputs, operator by operator.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::Read;

use base64::prelude::{BASE64_STANDARD, Engine};
use prost::Message;
use serde_json::Value;
use spinfer_backend_lean::ml::{Array, ElementType, Operator, Values, View, names};

/// Absolute for numbers up to 1, relative above: sums are made in another order, `exp` and `tanh` are
/// others.
const TOLERANCE: f64 = 2e-6;

/// What only moves values or decides gives the same bits. Sums of FP32 votes are made in ONNX
/// Runtime's order.
fn tolerance(name: &str) -> f64 {
    let exact = ["Scaler", "Binarizer", "Imputer", "OneHot", "Label", "Array", "Feature", "Tree"];
    let post = ["LOGISTIC", "SOFTMAX", "PROBIT", "post="].iter().any(|post| name.contains(post));
    match name {
        _ if exact.iter().any(|operator| name.starts_with(operator)) && !post => 0.0,
        // Sums of many terms of either sign.
        _ if name.starts_with("SVM") => 5.0 * TOLERANCE,
        _ => TOLERANCE,
    }
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(bytes = "vec", repeated, tag = "1")]
    nodes: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[test]
fn every_operator_gives_onnx_runtimes_outputs() {
    let mut lines = String::new();
    let file = include_bytes!("ml_cases.json.gz");
    flate2::read::GzDecoder::new(&file[..]).read_to_string(&mut lines).unwrap();
    let cases: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 400, "only {} cases", cases.len());
    let operator = |case: &Value| case["name"].as_str().unwrap().split(' ').next().unwrap().into();
    let tested: BTreeSet<String> = cases.iter().map(operator).collect();
    let there: BTreeSet<String> = names().map(str::to_owned).collect();
    assert_eq!(tested, there, "each operator has cases");
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn check(case: &Value) -> Result<(), String> {
    let name = case["name"].as_str().unwrap();
    let model = BASE64_STANDARD.decode(case["model"].as_str().unwrap()).unwrap();
    let model = Model::decode(&model[..]).unwrap();
    let version = model.opsets.iter().find(|o| o.domain == "ai.onnx.ml").unwrap().version;
    let node = &model.graph.as_ref().unwrap().nodes[0];
    let inputs: Vec<Array> = case["inputs"].as_array().unwrap().iter().map(array).collect();
    let expected: Vec<Array> = case["outputs"].as_array().unwrap().iter().map(array).collect();
    let fault = |e| format!("{name}: {e}");
    let operator = Operator::read(node, version).map_err(fault)?;
    let types: Vec<ElementType> = inputs.iter().map(|x| x.values.as_slice().ty()).collect();
    let kernel = operator.kernel(&types).map_err(fault)?;
    let views: Vec<View<'_>> =
        inputs.iter().map(|x| View { shape: &x.shape, values: x.values.as_slice() }).collect();
    let got = kernel.run(&views).map_err(fault)?;
    assert_eq!((got.len(), operator.outputs.len()), (expected.len(), expected.len()), "{name}");
    let shapes: Vec<&[usize]> = inputs.iter().map(|x| &x.shape[..]).collect();
    for ((got, expected), output) in got.iter().zip(&expected).zip(&operator.outputs) {
        let promised = output.dims(&shapes, |n| n).map_err(fault)?;
        let ty = output.element_type(types[0]);
        if (&got.shape, got.values.as_slice().ty()) != (&promised, ty) {
            return Err(format!("{name}: promised {ty} {promised:?}, gave {:?}", got.shape));
        }
        if got.shape != expected.shape || !close(&got.values, &expected.values, tolerance(name)) {
            return Err(format!("{name}: {got:?} is not {expected:?}"));
        }
    }
    Ok(())
}

fn close(got: &Values, expected: &Values, tolerance: f64) -> bool {
    let near = |(a, b): (f64, f64)| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1.0)
    };
    match (got, expected) {
        (Values::F32(a), Values::F32(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| near((a.into(), b.into())))
        }
        (Values::F64(a), Values::F64(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| near((a, b)))
        }
        (a, b) => a == b,
    }
}

fn array(value: &Value) -> Array {
    let shape = value["shape"].as_array().unwrap();
    let shape = shape.iter().map(|axis| axis.as_u64().unwrap().try_into().unwrap()).collect();
    let bytes = || BASE64_STANDARD.decode(value["data"].as_str().unwrap()).unwrap();
    fn decode<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|chunk| from(*chunk)).collect()
    }
    let values = match value["ty"].as_str().unwrap() {
        "F32" => Values::F32(decode(&bytes(), f32::from_le_bytes)),
        "F64" => Values::F64(decode(&bytes(), f64::from_le_bytes)),
        "I16" => Values::I16(decode(&bytes(), i16::from_le_bytes)),
        "I32" => Values::I32(decode(&bytes(), i32::from_le_bytes)),
        "I64" => Values::I64(decode(&bytes(), i64::from_le_bytes)),
        "Str" => {
            let strings = value["data"].as_array().unwrap().iter();
            Values::Str(strings.map(|s| s.as_str().unwrap().to_owned()).collect())
        }
        other => panic!("{other}"),
    };
    Array { shape, values }
}
