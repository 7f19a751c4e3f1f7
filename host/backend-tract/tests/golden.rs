//! The backend suite: what any backend has to do with the example models and the test graphs.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use spinfer_backend::{Backend, Encoding, Error, Graph, Tensor, TensorInfo, TensorType};
use spinfer_backend_tract::Tract;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(path: &str) -> Result<std::sync::Arc<dyn Graph>, Error> {
    Tract.load(&std::fs::read(root().join(path)).unwrap(), Encoding::Onnx)
}

fn info(name: &str, ty: TensorType, shape: &[Option<u32>]) -> TensorInfo {
    TensorInfo { name: name.into(), ty, shape: Some(shape.to_vec()) }
}

fn dimensions(tensor: &Value) -> Vec<u32> {
    tensor["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as u32).collect()
}

fn floats(tensor: &Value) -> Vec<f32> {
    tensor["data"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn the_example_models_give_onnx_runtimes_answers() {
    for (model, name, width, classes) in [
        ("iris-classifier/1", "features", 4, 3),
        ("iris-classifier/2", "features", 4, 3),
        ("digits-classifier/1", "pixels", 64, 10),
    ] {
        let folder = format!("models/{model}");
        let graph = load(&format!("{folder}/model.onnx")).unwrap();
        assert_eq!(graph.inputs(), [info(name, TensorType::Fp32, &[None, Some(width)])]);
        assert_eq!(graph.outputs()[0], info("label", TensorType::I64, &[None]));
        let probabilities = info("probabilities", TensorType::Fp32, &[None, Some(classes)]);
        assert_eq!(graph.outputs()[1], probabilities);
        let golden = std::fs::read(root().join(folder).join("golden.json")).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let tolerance = golden["tolerance"].as_f64().unwrap() as f32;
        for case in golden["cases"].as_array().unwrap() {
            let features = &case["inputs"][name];
            let input = Tensor {
                dimensions: dimensions(features),
                ty: TensorType::Fp32,
                data: floats(features).into_iter().flat_map(f32::to_le_bytes).collect(),
            };
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
fn a_graph_it_cannot_run_is_refused_with_the_reason() {
    let refused = |path: &str| load(&format!("tests/models/{path}.onnx")).unwrap_err();
    assert!(matches!(refused("truncated"), Error::InvalidEncoding(_)));
    let bf16 = refused("identity-bf16");
    assert!(matches!(&bf16, Error::Unsupported(why) if why.contains("BF16")), "{bf16}");
    let operator = refused("unsupported-op");
    assert!(matches!(&operator, Error::Unsupported(why) if why.contains("Det")), "{operator}");
}

#[test]
fn a_tensor_of_another_length_is_refused() {
    let graph = load("models/iris-classifier/1/model.onnx").unwrap();
    for len in [0, 15, 12, 20] {
        let input = Tensor { dimensions: vec![1, 4], ty: TensorType::Fp32, data: vec![0; len] };
        let error = graph.compute(vec![input]).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(why) if why.contains("bytes")), "{error}");
    }
}
