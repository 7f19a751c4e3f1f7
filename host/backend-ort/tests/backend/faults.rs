//! Inputs that a graph cannot compute are an error of the client, without names or weights of the
//! graph.

use spinfer_backend::{Backend, Encoding, Error, LoadOptions, Tensor, TensorType};
use spinfer_onnx::data_type::{FLOAT, INT8, INT16, INT32, INT64};

use crate::graphs::{floats, graph, int64s, model, node, value};
use crate::{backend, f32s, i64s, load};

/// The message of a failed run, which is an error of the client.
fn fault(bytes: &[u8], inputs: Vec<Tensor>) -> String {
    match load(bytes).compute(inputs) {
        Err(Error::InvalidArgument(message)) => {
            assert!(!message.contains("secret") && !message.contains("onnxruntime"), "{message}");
            message
        }
        other => panic!("{other:?}"),
    }
}

fn of_integers(operator: &str, ty: i32) -> Vec<u8> {
    model(graph(
        vec![node(operator, &["x", "d"], &["y"])],
        vec![value("x", ty, &["n"]), value("d", ty, &["n"])],
        vec![value("y", ty, &["n"])],
        vec![],
    ))
}

/// The dividends and the divisors: tensors of two integers.
fn pair(ty: TensorType, size: usize, x: [i64; 2], d: [i64; 2]) -> Vec<Tensor> {
    let tensor = |values: [i64; 2]| {
        let data = values.iter().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect();
        Tensor { dimensions: vec![2], ty, data }
    };
    vec![tensor(x), tensor(d)]
}

#[test]
fn a_division_that_traps_fails_the_run_and_not_the_process() {
    for (code, ty, size) in [
        (INT8, TensorType::I8, 1),
        (INT16, TensorType::I16, 2),
        (INT32, TensorType::I32, 4),
        (INT64, TensorType::I64, 8),
    ] {
        let least = i64::MIN >> (64 - 8 * size);
        for operator in ["Div", "Mod"] {
            // ONNX Runtime does not have every operator for every type.
            let bytes = of_integers(operator, code);
            let Ok(graph) = backend().load(&bytes, Encoding::Onnx) else { continue };
            let outputs = graph.compute(pair(ty, size, [7, 9], [2, 3])).unwrap();
            let expected = if operator == "Div" { [3, 3] } else { [1, 0] };
            assert_eq!(outputs, pair(ty, size, expected, expected)[..1], "{operator} {ty}");
            for (x, d) in [([7, 9], [2, 0]), ([least, 1], [-1, 1])] {
                match graph.compute(pair(ty, size, x, d)) {
                    Err(Error::InvalidArgument(_)) => {}
                    // Narrow integers are divided as wider ones, which can hold the quotient. The
                    // result is cast back.
                    Ok(outputs) if d[1] != 0 && (size < 4 || operator == "Mod") => {
                        let quotient = if operator == "Div" { least } else { 0 };
                        assert_eq!(
                            outputs,
                            pair(ty, size, [quotient, 1 - i64::from(operator == "Mod")], [0, 0])
                                [..1]
                        );
                    }
                    other => panic!("{operator} {ty} {x:?} {d:?}: {other:?}"),
                }
            }
            assert!(graph.compute(pair(ty, size, [7, 9], [2, 3])).is_ok(), "the next run succeeds");
        }
    }
}

#[test]
fn a_division_that_traps_on_a_thread_of_onnx_runtime_fails_the_run() {
    let options = LoadOptions { threads: 2 };
    let graph = backend().load_with(&of_integers("Div", INT64), Encoding::Onnx, options).unwrap();
    let many = |divisor: i64| {
        let tensor = |value: i64| i64s(&[1 << 20], &vec![value; 1 << 20]);
        vec![tensor(i64::MIN), tensor(divisor)]
    };
    assert!(matches!(graph.compute(many(-1)), Err(Error::InvalidArgument(_))));
    assert!(graph.compute(many(1)).is_ok());
}

#[test]
fn an_index_out_of_range_is_an_error() {
    let gather = model(graph(
        vec![node("Gather", &["weights", "x"], &["y"])],
        vec![value("x", INT64, &["n"])],
        vec![value("y", FLOAT, &["n", "3"])],
        vec![floats("weights", &[5, 3], &[0.125; 15])],
    ));
    let message = fault(&gather, vec![i64s(&[1], &[5])]);
    assert!(message.contains("the operator Gather") && message.contains("an index"), "{message}");
    assert!(!message.contains("0.125"), "{message}");
}

#[test]
fn shapes_that_do_not_match_inside_the_graph_are_an_error() {
    let add = model(graph(
        vec![node("Add", &["x", "weights"], &["y"])],
        vec![value("x", FLOAT, &["n", "l"])],
        vec![value("y", FLOAT, &["n", "l"])],
        vec![floats("weights", &[4], &[0.5, 0.25, 0.125, 0.0625])],
    ));
    let message = fault(&add, vec![f32s(&[1, 6], &[1.0; 6])]);
    assert!(message.contains("shapes of the inputs") && !message.contains("0.0625"), "{message}");
    let reshape = model(graph(
        vec![node("Reshape", &["x", "to"], &["y"])],
        vec![value("x", FLOAT, &["n"])],
        vec![value("y", FLOAT, &["a", "b"])],
        vec![int64s("to", &[2], &[2, -1])],
    ));
    assert!(fault(&reshape, vec![f32s(&[3], &[1.0; 3])]).contains("shapes"));
}
