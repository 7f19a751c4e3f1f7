//! Runs graphs as the host does, with the library that `make onnxruntime` downloads.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod faults;
mod graphs;
mod types;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use graphs::{floats, graph, int, model, node, value};
use spinfer_backend::{
    Backend, Cancellation, Encoding, Error, Graph, LoadOptions, Tensor, TensorType,
};
use spinfer_backend_ort::library::FILE;
use spinfer_backend_ort::{Library, OnnxRuntime, Options};
use spinfer_onnx::data_type::{BOOL, FLOAT, INT64};

fn backend() -> OnnxRuntime {
    let target = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/onnxruntime"));
    OnnxRuntime::new(Options { library: Library::At(target.join(FILE)), memory: 1 << 30 })
}

fn load(bytes: &[u8]) -> Arc<dyn Graph> {
    backend().load(bytes, Encoding::Onnx).unwrap()
}

fn f32s(dimensions: &[u32], values: &[f32]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dimensions: dimensions.to_vec(), ty: TensorType::Fp32, data }
}

fn i64s(dimensions: &[u32], values: &[i64]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dimensions: dimensions.to_vec(), ty: TensorType::I64, data }
}

/// `y = x + 1` with a free first axis.
fn plus_one() -> Vec<u8> {
    model(graph(
        vec![node("Add", &["x", "one"], &["y"])],
        vec![value("x", FLOAT, &["rows", "2"])],
        vec![value("y", FLOAT, &["rows", "2"])],
        vec![floats("one", &[1], &[1.0])],
    ))
}

#[test]
fn threads_run_one_graph_concurrently() {
    let graph = load(&plus_one());
    thread::scope(|scope| {
        for n in 0..8_u8 {
            let graph = &graph;
            scope.spawn(move || {
                for rows in 1..200_u32 {
                    let values = vec![f32::from(n); 2 * rows as usize];
                    let outputs = graph.compute(vec![f32s(&[rows, 2], &values)]).unwrap();
                    let expected = vec![f32::from(n) + 1.0; values.len()];
                    assert_eq!(outputs, [f32s(&[rows, 2], &expected)]);
                }
            });
        }
    });
}

#[test]
fn axes_of_size_0_and_nan_are_computed() {
    let graph = load(&plus_one());
    assert_eq!(graph.compute(vec![f32s(&[0, 2], &[])]).unwrap(), [f32s(&[0, 2], &[])]);
    let outputs = graph.compute(vec![f32s(&[1, 2], &[f32::NAN, f32::INFINITY])]).unwrap();
    let values: Vec<f32> =
        outputs[0].data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert!(values[0].is_nan() && values[1] == f32::INFINITY, "{values:?}");
}

#[test]
fn an_input_that_is_not_aligned_is_copied() {
    let graph = load(&plus_one());
    let mut bytes = vec![0_u8; 9];
    bytes[1..].copy_from_slice(&[1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
    // Without its first byte the content of the allocation, whose start is aligned, is not aligned.
    let data = bytes.split_off(1);
    let input = Tensor { dimensions: vec![1, 2], ty: TensorType::Fp32, data };
    assert_eq!(graph.compute(vec![input]).unwrap(), [f32s(&[1, 2], &[2.0, 3.0])]);
}

#[test]
fn names_types_and_axes_are_those_of_the_file() {
    let graph = load(&plus_one());
    let [x] = graph.inputs() else { panic!("{graph:?}") };
    assert_eq!((x.name.as_str(), x.ty), ("x", TensorType::Fp32));
    assert_eq!(x.shape, Some(vec![None, Some(2)]));
    assert_eq!(x.axis_names, [Some("rows".to_owned()), None]);
    assert_eq!(graph.outputs()[0].axis_names[0].as_deref(), Some("rows"));
}

/// A loop whose number of iterations is its input.
fn counter() -> Vec<u8> {
    let body = graph(
        vec![
            node("Identity", &["condition"], &["next_condition"]),
            node("Add", &["n", "one"], &["next"]),
        ],
        vec![value("i", INT64, &[]), value("condition", BOOL, &[]), value("n", INT64, &["1"])],
        vec![value("next_condition", BOOL, &[]), value("next", INT64, &["1"])],
        vec![graphs::int64s("one", &[1], &[1])],
    );
    let mut counting = node("Loop", &["iterations", "", "start"], &["count"]);
    counting.attribute.push(graphs::graph_attribute("body", body));
    model(graph(
        vec![counting],
        vec![value("iterations", INT64, &["1"])],
        vec![value("count", INT64, &["1"])],
        vec![graphs::int64s("start", &[1], &[0])],
    ))
}

#[test]
fn a_cancelled_run_fails() {
    let graph = load(&counter());
    assert!(graph.time_depends_on_values());
    assert_eq!(graph.compute(vec![i64s(&[1], &[5])]).unwrap(), [i64s(&[1], &[5])]);
    let cancellation = Arc::new(Cancellation::default());
    thread::scope(|scope| {
        let endless = vec![i64s(&[1], &[i64::MAX])];
        let (graph, cancelling) = (&graph, Arc::clone(&cancellation));
        let run = scope.spawn(move || graph.compute_unless(endless, &cancelling));
        // The run may have started or not.
        cancellation.cancel();
        let error = run.join().unwrap().unwrap_err();
        assert!(
            matches!(&error, Error::Runtime(why) if why.contains("was cancelled")),
            "{error:?}"
        );
    });
    let other = Cancellation::default();
    let outputs = graph.compute_unless(vec![i64s(&[1], &[3])], &other).unwrap();
    assert_eq!(outputs, [i64s(&[1], &[3])], "the next run succeeds");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (rows, width) = (64_u32, 256_usize);
    let weights: Vec<f32> = (0..width * width).map(|n| (n % 7) as f32 - 3.0).collect();
    let size = i64::try_from(width).unwrap();
    let bytes = model(graph(
        vec![node("MatMul", &["x", "w"], &["y"])],
        vec![value("x", FLOAT, &["rows", &width.to_string()])],
        vec![value("y", FLOAT, &["rows", &width.to_string()])],
        vec![floats("w", &[size, size], &weights)],
    ));
    let input: Vec<f32> = (0..rows as usize * width).map(|n| (n % 5) as f32).collect();
    let input = f32s(&[rows, u32::try_from(width).unwrap()], &input);
    let outputs = [1, 2].map(|threads| {
        let options = LoadOptions { threads };
        let graph = backend().load_with(&bytes, Encoding::Onnx, options).unwrap();
        graph.compute(vec![input.clone()]).unwrap()
    });
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn invalid_files_and_unknown_operators_are_refused() {
    let refused = |bytes: &[u8]| backend().load(bytes, Encoding::Onnx).unwrap_err();
    assert!(matches!(refused(b"not a model"), Error::InvalidEncoding(_)));
    assert!(matches!(refused(b""), Error::InvalidEncoding(_)));
    let mut unknown = node("Frobnicate", &["x"], &["y"]);
    unknown.attribute.push(int("secret", 7));
    let (x, y) = (value("x", FLOAT, &["n"]), value("y", FLOAT, &["n"]));
    let error = refused(&model(graph(vec![unknown], vec![x], vec![y], vec![])));
    assert!(matches!(&error, Error::Unsupported(why) if why.contains("Frobnicate")), "{error:?}");
    assert!(!error.to_string().contains("onnxruntime_src"), "{error}");
}

#[test]
fn without_the_library_a_graph_is_refused_with_the_remedy() {
    let at = |library| OnnxRuntime::new(Options { library, memory: 1 << 30 });
    let missing = at(Library::Missing("no ONNX Runtime in here: get it".into()));
    let error = missing.load(&plus_one(), Encoding::Onnx).unwrap_err();
    assert_eq!(error.to_string(), "no ONNX Runtime in here: get it");
    assert!(matches!(error, Error::Unsupported(_)));
}
