//! The limit of the arena. It applies to the process, so this is a test binary of its own.

use std::path::PathBuf;

use prost::Message;
use spinfer_backend::{Backend, Encoding, Error, Tensor, TensorType};
use spinfer_backend_ort::library::FILE;
use spinfer_backend_ort::{Library, OnnxRuntime, Options};
use spinfer_onnx::data_type::{FLOAT, INT64};
use spinfer_onnx::{
    Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Size of the arena, in bytes.
const MEMORY: usize = 8 << 20;

/// A graph that computes zeros of the shape that its input specifies.
fn zeros() -> Vec<u8> {
    let value = |name: &str, elem_type, axis: &str| {
        let axis = Dimension { value: Some(DimensionValue::Name(axis.into())) };
        let shape = Some(TensorShapeProto { dim: vec![axis] });
        let tensor = Some(TensorTypeProto { elem_type, shape });
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { tensor, ..TypeProto::default() }),
        }
    };
    let node = |operator: &str, input: &str, output: &str| NodeProto {
        op_type: operator.into(),
        input: vec![input.into()],
        output: vec![output.into()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: "zeros".into(),
        node: vec![node("ConstantOfShape", "shape", "zeros"), node("Abs", "zeros", "y")],
        input: vec![value("shape", INT64, "rank")],
        output: vec![value("y", FLOAT, "n")],
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 21 }];
    ModelProto { ir_version: 10, graph: Some(graph), opset_import, ..ModelProto::default() }
        .encode_to_vec()
}

#[test]
fn a_run_that_exceeds_the_arena_fails_and_the_next_one_succeeds() {
    let target = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/onnxruntime"));
    let library = Library::At(target.join(FILE));
    let backend = OnnxRuntime::new(Options { library, memory: MEMORY });
    let graph = backend.load(&zeros(), Encoding::Onnx).unwrap();
    let run = |count: i64| {
        let shape =
            Tensor { dimensions: vec![1], ty: TensorType::I64, data: count.to_le_bytes().into() };
        graph.compute(vec![shape])
    };
    for _ in 0..3 {
        assert_eq!(run(1000).unwrap()[0].dimensions, [1000]);
        for count in [4 << 20, 1 << 40] {
            let error = run(count).unwrap_err();
            assert!(matches!(error, Error::TooLarge(_)), "{count}: {error:?}");
        }
        backend.release_memory();
    }
}
