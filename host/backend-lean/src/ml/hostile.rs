//! Test only: nodes whose attributes lie, and inputs that do not fit. Each is refused with the reason
//! or runs; none panics or goes on for long.

use std::io::Read;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use proptest::prelude::*;
use prost::Message;

use super::{Array, ElementType, Operator, Values, View};
use crate::onnx::{Attribute, Model, Node};

/// One node for each operator and type of input there is among the cases, by operator.
fn nodes() -> Vec<(Node, ElementType)> {
    let mut lines = String::new();
    let file = include_bytes!("../../tests/ml_cases.json.gz");
    flate2::read::GzDecoder::new(&file[..]).read_to_string(&mut lines).expect("lines");
    let node = |line: &str| {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case");
        let model = BASE64_STANDARD.decode(case["model"].as_str().expect("a model"));
        let model = Model::decode(&model.expect("base64")[..]).expect("a model");
        let ty = match case["inputs"][0]["ty"].as_str() {
            Some("F32") => ElementType::F32,
            Some("F64") => ElementType::F64,
            Some("I32") => ElementType::I32,
            Some("I64") => ElementType::I64,
            _ => ElementType::Str,
        };
        (model.graph.expect("a graph").node.remove(0), ty)
    };
    lines.lines().step_by(3).map(node).collect()
}

/// The first node of an operator.
fn node(operator: &str) -> Node {
    nodes().into_iter().map(|(node, _)| node).find(|n| n.op_type == operator).expect(operator)
}

fn tensor(ty: ElementType, shape: &[usize]) -> Array {
    let len = shape.iter().product::<usize>();
    let number = |i: usize| [0.5, f32::NAN, -3.0, 1e30, 0.0, f32::NEG_INFINITY, 2.0][i % 7];
    let numbers = (0..len).map(number);
    #[expect(clippy::cast_possible_truncation, reason = "any number does")]
    let values = match ty {
        ElementType::F32 => Values::F32(numbers.collect()),
        ElementType::F64 => Values::F64(numbers.map(f64::from).collect()),
        ElementType::I16 => Values::I16(numbers.map(|x| x as i16).collect()),
        ElementType::I32 => Values::I32(numbers.map(|x| x as i32).collect()),
        ElementType::I64 => Values::I64(numbers.map(|x| x as i64).collect()),
        ElementType::Str => Values::Str(numbers.map(|x| x.to_string()).collect()),
    };
    Array { shape: shape.to_vec(), values }
}

/// Reads the node and runs it; what it gives is as it promised.
fn run(node: &Node, version: i64, inputs: &[Array]) -> Result<(), String> {
    let operator = Operator::read(&node.encode_to_vec(), version).map_err(|e| e.to_string())?;
    let types: Vec<ElementType> = inputs.iter().map(|x| x.values.as_slice().ty()).collect();
    let kernel = operator.kernel(&types).map_err(|e| e.to_string())?;
    let views: Vec<View<'_>> =
        inputs.iter().map(|x| View { shape: &x.shape, values: x.values.as_slice() }).collect();
    let outputs = kernel.run(&views).map_err(|e| e.to_string())?;
    let shapes: Vec<&[usize]> = inputs.iter().map(|x| &x.shape[..]).collect();
    assert_eq!(outputs.len(), operator.outputs.len(), "{node:?}");
    for (got, output) in outputs.iter().zip(&operator.outputs) {
        let promised = output.dims(&shapes, |n| n).map_err(|e| e.to_string())?;
        assert_eq!(got.shape, promised, "{node:?}");
        assert_eq!(got.shape.iter().product::<usize>(), got.values.as_slice().len(), "{node:?}");
        assert_eq!(got.values.as_slice().ty(), output.element_type(types[0]), "{node:?}");
    }
    Ok(())
}

/// The error of an operator after a change to one attribute.
fn refused(operator: &str, name: &str, change: impl FnOnce(&mut Attribute)) -> String {
    let mut node = node(operator);
    let place = node.attribute.iter().position(|attribute| attribute.name == name);
    let place = place.unwrap_or_else(|| {
        node.attribute.push(Attribute { name: name.into(), ..Attribute::default() });
        node.attribute.len() - 1
    });
    change(&mut node.attribute[place]);
    let read = Operator::read(&node.encode_to_vec(), 3);
    let kernel = read.and_then(|operator| {
        let types = vec![operator.accepts[0]; operator.inputs];
        operator.kernel(&types).map(drop)
    });
    kernel.expect_err(&format!("{operator} {name}")).to_string()
}

#[test]
fn each_lie_is_named() {
    let short = |a: &mut Attribute| {
        a.floats.truncate(1);
        a.ints.truncate(1);
        a.strings.truncate(1);
    };
    let none = |a: &mut Attribute| *a = Attribute { name: a.name.clone(), ..Attribute::default() };
    let text = |a: &mut Attribute| a.s = b"HUH".to_vec();
    let bad = |a: &mut Attribute| a.strings = vec![vec![0xff]];
    let minus = |a: &mut Attribute| {
        a.i = -1;
        a.ints.fill(-1);
    };
    let cases = [
        ("Scaler", "scale", refused("Scaler", "scale", none)),
        ("Normalizer", "norm", refused("Normalizer", "norm", text)),
        ("Imputer", "imputed_value", refused("Imputer", "imputed_value_floats", none)),
        ("OneHotEncoder", "cats_", refused("OneHotEncoder", "cats_int64s", none)),
        ("OneHotEncoder", "cats_", refused("OneHotEncoder", "cats_strings", bad)),
        ("LabelEncoder", "classes_strings", refused("LabelEncoder", "classes_strings", bad)),
        (
            "FeatureVectorizer",
            "inputdimensions",
            refused("FeatureVectorizer", "inputdimensions", minus),
        ),
        (
            "FeatureVectorizer",
            "inputdimensions",
            refused("FeatureVectorizer", "inputdimensions", short),
        ),
        ("LinearRegressor", "targets", refused("LinearRegressor", "targets", minus)),
        ("LinearRegressor", "coefficients", refused("LinearRegressor", "coefficients", none)),
        ("LinearClassifier", "classlabels", refused("LinearClassifier", "classlabels_ints", none)),
        ("LinearClassifier", "post_transform", refused("LinearClassifier", "post_transform", text)),
        ("SVMRegressor", "kernel_type", refused("SVMRegressor", "kernel_type", text)),
        ("SVMRegressor", "kernel_params", refused("SVMRegressor", "kernel_params", short)),
        ("SVMRegressor", "coefficients", refused("SVMRegressor", "coefficients", short)),
        ("SVMRegressor", "n_supports", refused("SVMRegressor", "n_supports", minus)),
        ("SVMRegressor", "rho", refused("SVMRegressor", "rho", none)),
        ("SVMRegressor", "post_transform", refused("SVMRegressor", "post_transform", text)),
        (
            "SVMClassifier",
            "vectors_per_class",
            refused("SVMClassifier", "vectors_per_class", minus),
        ),
        (
            "SVMClassifier",
            "vectors_per_class",
            refused("SVMClassifier", "vectors_per_class", short),
        ),
        ("SVMClassifier", "support_vectors", refused("SVMClassifier", "support_vectors", short)),
        ("SVMClassifier", "coefficients", refused("SVMClassifier", "coefficients", short)),
        ("SVMClassifier", "prob_b", refused("SVMClassifier", "prob_b", none)),
        ("TreeEnsemble", "n_targets", refused("TreeEnsemble", "n_targets", minus)),
        (
            "TreeEnsemble",
            "a cycle",
            refused("TreeEnsemble", "nodes_truenodeids", |a| a.ints.fill(0)),
        ),
        ("TreeEnsemble", "tree_roots", refused("TreeEnsemble", "tree_roots", minus)),
        ("TreeEnsemble", "leaf_targetids", refused("TreeEnsemble", "leaf_targetids", minus)),
        ("TreeEnsemble", "leaf_", refused("TreeEnsemble", "leaf_targetids", none)),
        ("TreeEnsemble", "nodes_modes", refused("TreeEnsemble", "nodes_modes", none)),
        (
            "TreeEnsemble",
            "nodes_splits",
            refused("TreeEnsemble", "nodes_splits", |a| {
                a.t.as_mut().expect("a tensor").data_type = 11;
            }),
        ),
        (
            "TreeEnsemble",
            "membership_values",
            refused("TreeEnsemble", "membership_values", |a| {
                let mut tensor = a.t.take().unwrap_or_default();
                (tensor.dims, tensor.data_type, tensor.float_data) = (vec![1], 1, vec![1.0]);
                tensor.raw_data.clear();
                a.t = Some(tensor);
            }),
        ),
        (
            "TreeEnsembleRegressor",
            "n_targets",
            refused("TreeEnsembleRegressor", "n_targets", minus),
        ),
        (
            "TreeEnsembleClassifier",
            "classlabels",
            refused("TreeEnsembleClassifier", "classlabels_int64s", none),
        ),
    ];
    for (operator, names, error) in cases {
        assert!(error.contains(names) && error.contains(operator), "{operator} {names}: {error}");
    }
}

#[test]
fn an_operator_that_is_not_there_is_named_with_those_that_are() {
    let node = Node { op_type: "DictVectorizer".into(), ..Node::default() };
    let error = Operator::read(&node.encode_to_vec(), 3).expect_err("no operator").to_string();
    assert!(error.contains("DictVectorizer") && error.contains("TreeEnsembleRegressor"), "{error}");
}

#[test]
fn an_input_of_another_type_is_refused() {
    let operator = Operator::read(&node("Scaler").encode_to_vec(), 3).expect("an operator");
    let error = operator.kernel(&[ElementType::Str]).expect_err("a type").to_string();
    assert!(error.contains("strings") && error.contains("FP32"), "{error}");
    assert!(operator.kernel(&[ElementType::F32; 2]).is_err());
}

fn number() -> impl Strategy<Value = i64> {
    let extremes = vec![i64::MIN, -1, 0, 1, 2, 3, 7, 100, 1 << 31, 1 << 40, i64::MAX];
    prop_oneof![prop::sample::select(extremes), any::<i64>()]
}

/// Changes one thing about an attribute.
fn lie(attribute: &mut Attribute, place: prop::sample::Index, number: i64, kind: u8) {
    let (ints, floats) = (attribute.ints.len(), attribute.floats.len());
    let strings = attribute.strings.len();
    match kind {
        0 if ints > 0 => attribute.ints[place.index(ints)] = number,
        1 if ints > 0 => attribute.ints.truncate(place.index(ints)),
        2 if ints > 0 => attribute.ints.insert(place.index(ints), number),
        0 if floats > 0 => attribute.floats[place.index(floats)] = f32::NAN,
        1 if floats > 0 => attribute.floats.truncate(place.index(floats)),
        2 if floats > 0 => attribute.floats.push(number as f32),
        0 if strings > 0 => attribute.strings[place.index(strings)] = vec![0xff],
        1 if strings > 0 => attribute.strings.truncate(place.index(strings)),
        3 => attribute.i = number,
        4 => attribute.f = [f32::NAN, f32::INFINITY, -0.0, 1e-45][place.index(4)],
        5 => attribute.s = b"HUH".to_vec(),
        _ => match &mut attribute.t {
            Some(tensor) if kind == 0 => tensor.dims = vec![number],
            Some(tensor) if kind == 1 => tensor.raw_data.truncate(place.index(64)),
            Some(tensor) if kind == 2 => tensor.data_type = [0, 1, 2, 5, 7, 8, 11][place.index(7)],
            Some(tensor) if !tensor.raw_data.is_empty() => {
                let place = place.index(tensor.raw_data.len());
                tensor.raw_data[place] = number.to_le_bytes()[0];
            }
            _ => attribute.name.push('x'),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_lie_panics(
        (node, ty) in prop::sample::select(nodes()),
        lies in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), number(), 0..8u8), 0..4,
        ),
        shape in prop::collection::vec(0usize..6, 0..4),
        second in prop::collection::vec(0usize..4, 0..3),
        version in 1i64..6,
    ) {
        let mut node = node;
        for (which, place, number, kind) in lies {
            if !node.attribute.is_empty() {
                let which = which.index(node.attribute.len());
                lie(&mut node.attribute[which], place, number, kind);
            }
        }
        let start = Instant::now();
        let indices = node.op_type == "ArrayFeatureExtractor";
        let mut inputs = vec![tensor(ty, &shape)];
        if node.input.len() > 1 {
            inputs.push(tensor(if indices { ElementType::I64 } else { ty }, &second));
        }
        let _ = run(&node, version, &inputs);
        prop_assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    }
}
