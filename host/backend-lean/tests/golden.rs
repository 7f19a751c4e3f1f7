//! The example models have ONNX Runtime's outputs, and graphs that lean does not cover are refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use spinfer_backend::{Backend, Encoding, Error, Graph, Tensor, TensorInfo, TensorType};
use spinfer_backend_lean::Lean;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(path: &str) -> Result<Arc<dyn Graph>, Error> {
    Lean.load(&std::fs::read(root().join(path)).unwrap(), Encoding::Onnx)
}

fn info(name: &str, ty: TensorType, shape: &[Option<u32>]) -> TensorInfo {
    TensorInfo { name: name.into(), ty, shape: Some(shape.to_vec()), axis_names: Vec::new() }
}

fn dimensions(tensor: &Value) -> Vec<u32> {
    tensor["shape"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d.as_u64().unwrap().try_into().unwrap())
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "the file has FP32 numbers")]
fn float(number: &Value) -> f32 {
    number.as_f64().unwrap() as f32
}

fn floats(tensor: &Value) -> Vec<f32> {
    tensor["data"].as_array().unwrap().iter().map(float).collect()
}

fn iris(rows: &[f32]) -> Tensor {
    Tensor {
        dimensions: vec![u32::try_from(rows.len() / 4).unwrap(), 4],
        ty: TensorType::Fp32,
        data: rows.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

#[test]
fn example_models_have_onnx_runtimes_outputs() {
    for version in [1, 2] {
        let folder = format!("models/iris-classifier/{version}");
        let graph = load(&format!("{folder}/model.onnx")).unwrap();
        assert_eq!(graph.inputs(), [info("features", TensorType::Fp32, &[None, Some(4)])]);
        assert_eq!(graph.outputs()[0], info("label", TensorType::I64, &[None]));
        assert_eq!(graph.outputs()[1], info("probabilities", TensorType::Fp32, &[None, Some(3)]));
        let golden = std::fs::read(root().join(folder).join("golden.json")).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let tolerance = float(&golden["tolerance"]);
        for case in golden["cases"].as_array().unwrap() {
            let input = iris(&floats(&case["inputs"]["features"]));
            let outputs = graph.compute(vec![input]).unwrap();
            let [label, probabilities] = outputs.as_slice() else { panic!("two outputs") };
            let expected = &case["outputs"];
            assert_eq!(label.dimensions, dimensions(&expected["label"]));
            let labels = expected["label"]["data"].as_array().unwrap();
            let labels: Vec<u8> =
                labels.iter().flat_map(|label| label.as_i64().unwrap().to_le_bytes()).collect();
            assert_eq!((label.ty, &label.data), (TensorType::I64, &labels));
            assert_eq!(probabilities.dimensions, dimensions(&expected["probabilities"]));
            for (got, expected) in
                probabilities.data.as_chunks().0.iter().zip(floats(&expected["probabilities"]))
            {
                let got = f32::from_le_bytes(*got);
                assert!((got - expected).abs() <= tolerance, "{got} is not {expected}");
            }
        }
    }
}

#[test]
fn an_empty_batch_has_empty_outputs() {
    for version in [1, 2] {
        let graph = load(&format!("models/iris-classifier/{version}/model.onnx")).unwrap();
        let outputs = graph.compute(vec![iris(&[])]).unwrap();
        assert_eq!(outputs[0].dimensions, [0]);
        assert_eq!(outputs[1].dimensions, [0, 3]);
        assert!(outputs.iter().all(|output| output.data.is_empty()));
    }
}

/// 1,000 rows are many blocks.
#[test]
fn a_row_has_the_same_outputs_alone_and_in_a_large_batch() {
    let rows: Vec<[f32; 4]> =
        (0..1000u16).map(|i| [4.0, 2.0, 1.0, 0.1].map(|x| x + f32::from(i % 37) * 0.1)).collect();
    for version in [1, 2] {
        let graph = load(&format!("models/iris-classifier/{version}/model.onnx")).unwrap();
        let batch = graph.compute(vec![iris(rows.as_flattened())]).unwrap();
        for (i, row) in rows.iter().enumerate() {
            let alone = graph.compute(vec![iris(row)]).unwrap();
            assert_eq!(alone[0].data, batch[0].data[i * 8..][..8]);
            assert_eq!(alone[1].data, batch[1].data[i * 12..][..12]);
        }
    }
}

#[test]
fn a_tensor_that_does_not_fit_is_refused() {
    let graph = load("models/iris-classifier/1/model.onnx").unwrap();
    let mut short = iris(&[1.0; 4]);
    short.data.pop();
    let mut wide = iris(&[1.0; 4]);
    wide.dimensions = vec![4, 1];
    let mut integers = iris(&[1.0; 4]);
    integers.ty = TensorType::I32;
    for tensor in [short, wide, integers] {
        assert!(matches!(graph.compute(vec![tensor]), Err(Error::InvalidArgument(_))));
    }
    assert!(matches!(graph.compute(vec![]), Err(Error::InvalidArgument(_))));
}

#[test]
fn a_graph_that_lean_does_not_cover_is_refused_with_the_reason() {
    let refused = |path: &str| load(&format!("tests/models/{path}.onnx")).unwrap_err();
    assert!(matches!(refused("truncated"), Error::InvalidEncoding(_)));
    for (path, named) in [("unsupported-op", "Det"), ("add-two-inputs", "one input")] {
        let error = refused(path);
        assert!(matches!(&error, Error::Unsupported(why) if why.contains(named)), "{error}");
    }
}
