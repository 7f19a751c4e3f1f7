//! What inputs make a graph do that it cannot: an error of theirs, and nothing of the graph in it.

use spinfer_backend::{Backend, Encoding, Error, LoadOptions, Tensor, TensorType};
use spinfer_onnx::data_type::{FLOAT, INT8, INT16, INT32, INT64};

use crate::graphs::{floats, graph, int64s, model, node, value};
use crate::{backend, f32s, i64s, load};

/// That it is the inputs' fault, and what is said.
fn fault(bytes: &[u8], inputs: Vec<Tensor>) -> String {
    match load(bytes).compute(inputs) {
        Err(Error::InvalidArgument(said)) => {
            assert!(!said.contains("secret") && !said.contains("onnxruntime"), "{said}");
            said
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

/// Tensors of two integers each: the dividends and the divisors.
fn pair(ty: TensorType, size: usize, x: [i64; 2], d: [i64; 2]) -> Vec<Tensor> {
    let tensor = |values: [i64; 2]| {
        let data = values.iter().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect();
        Tensor { dimensions: vec![2], ty, data }
    };
    vec![tensor(x), tensor(d)]
}

#[test]
fn an_integer_division_that_cannot_be_done_is_an_error_and_ends_no_process() {
    for (code, ty, size) in [
        (INT8, TensorType::I8, 1),
        (INT16, TensorType::I16, 2),
        (INT32, TensorType::I32, 4),
        (INT64, TensorType::I64, 8),
    ] {
        let least = i64::MIN >> (64 - 8 * size);
        for operator in ["Div", "Mod"] {
            // Not every operator is there for every type.
            let bytes = of_integers(operator, code);
            let Ok(graph) = backend().load(&bytes, Encoding::Onnx) else { continue };
            let outputs = graph.compute(pair(ty, size, [7, 9], [2, 3])).unwrap();
            let expected = if operator == "Div" { [3, 3] } else { [1, 0] };
            assert_eq!(outputs, pair(ty, size, expected, expected)[..1], "{operator} {ty}");
            for (x, d) in [([7, 9], [2, 0]), ([least, 1], [-1, 1])] {
                match graph.compute(pair(ty, size, x, d)) {
                    Err(Error::InvalidArgument(_)) => {}
                    // Narrow integers are divided as wider ones, which can hold the quotient; what is
                    // given for it then is what a cast gives.
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
            assert!(graph.compute(pair(ty, size, [7, 9], [2, 3])).is_ok(), "the next one runs");
        }
    }
}

#[test]
fn so_is_one_on_a_thread_of_onnx_runtimes_own() {
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
    let said = fault(&gather, vec![i64s(&[1], &[5])]);
    assert!(said.contains("the operator Gather") && said.contains("an index"), "{said}");
    assert!(!said.contains("0.125"), "{said}");
}

#[test]
fn shapes_that_do_not_fit_inside_are_an_error() {
    let add = model(graph(
        vec![node("Add", &["x", "weights"], &["y"])],
        vec![value("x", FLOAT, &["n", "l"])],
        vec![value("y", FLOAT, &["n", "l"])],
        vec![floats("weights", &[4], &[0.5, 0.25, 0.125, 0.0625])],
    ));
    let said = fault(&add, vec![f32s(&[1, 6], &[1.0; 6])]);
    assert!(said.contains("shapes of the inputs") && !said.contains("0.0625"), "{said}");
    let reshape = model(graph(
        vec![node("Reshape", &["x", "to"], &["y"])],
        vec![value("x", FLOAT, &["n"])],
        vec![value("y", FLOAT, &["a", "b"])],
        vec![int64s("to", &[2], &[2, -1])],
    ));
    assert!(fault(&reshape, vec![f32s(&[3], &[1.0; 3])]).contains("shapes"));
}
