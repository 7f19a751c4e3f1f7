//! Tests of models with invalid attributes. The error names each problem; none panics.

use proptest::prelude::*;
use prost::Message;
use spinfer_backend::{Backend, Encoding, Error, Tensor, TensorType};

use crate::Lean;
use spinfer_onnx::{AttributeProto, ModelProto};

const FOREST: &[u8] = include_bytes!("../../../models/iris-classifier/2/model.onnx");
const LINEAR: &[u8] = include_bytes!("../../../models/iris-classifier/1/model.onnx");

fn attribute<'a>(model: &'a mut ModelProto, name: &str) -> &'a mut AttributeProto {
    let graph = model.graph.as_mut().expect("a graph");
    let mut attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    attributes.find(|attribute| attribute.name == name).expect(name)
}

fn load(model: &ModelProto) -> Result<(), Error> {
    let graph = Lean.load(&model.encode_to_vec(), Encoding::Onnx)?;
    let data = [5.1f32, 3.5, f32::NAN, 0.2].into_iter().flat_map(f32::to_le_bytes).collect();
    let input = Tensor { dimensions: vec![1, 4], ty: TensorType::Fp32, data };
    graph.compute(vec![input]).map(drop)
}

/// The error of the forest after a change to one attribute.
fn refused(name: &str, change: impl FnOnce(&mut AttributeProto)) -> String {
    let mut model = ModelProto::decode(FOREST).expect("a model");
    change(attribute(&mut model, name));
    load(&model).expect_err(name).to_string()
}

#[test]
fn invalid_attributes_are_named() {
    let cases = [
        ("a cycle", refused("nodes_truenodeids", |a| a.ints[1] = 0), "a cycle"),
        ("its own child", refused("nodes_truenodeids", |a| a.ints[1] = 1), "a cycle"),
        ("no such child", refused("nodes_falsenodeids", |a| a.ints[0] = 1 << 40), "has no node"),
        ("a shared node", refused("nodes_falsenodeids", |a| a.ints[0] = 1), "has two parents"),
        (
            "an unreachable node",
            refused("nodes_modes", |a| a.strings[0] = b"LEAF".to_vec()),
            "cannot be reached",
        ),
        ("a node twice", refused("nodes_nodeids", |a| a.ints[1] = 0), "is listed twice"),
        ("feature too great", refused("nodes_featureids", |a| a.ints[0] = 4), "feature 4 of 4"),
        ("feature below 0", refused("nodes_featureids", |a| a.ints[0] = -1), "feature -1 of 4"),
        ("an unknown mode", refused("nodes_modes", |a| a.strings[0] = b"HUH".to_vec()), "`HUH`"),
        ("a short list", refused("nodes_values", |a| a.floats.truncate(9)), "differ in length"),
        ("no list", refused("nodes_values", |a| a.floats.clear()), "differ in length"),
        ("a long list", refused("nodes_treeids", |a| a.ints.push(0)), "differ in length"),
        ("a class out of range", refused("class_ids", |a| a.ints[0] = 3), "out of range"),
        ("a vote nowhere", refused("class_nodeids", |a| a.ints[0] = -7), "does not exist"),
        ("a short vote", refused("class_weights", |a| a.floats.truncate(1)), "differ in length"),
        ("no classes", refused("classlabels_int64s", |a| a.ints.clear()), "no classes"),
        ("a post-transform", refused("post_transform", |a| a.s = b"X".to_vec()), "post_transform"),
    ];
    for (problem, error, names) in cases {
        assert!(error.contains(names) && error.contains("TreeEnsemble"), "{problem}: {error}");
    }
}

#[test]
fn more_than_65536_classes_are_refused() {
    let error = refused("classlabels_int64s", |a| a.ints = vec![0; (1 << 16) + 1]);
    assert!(error.contains("65537 classes"), "{error}");
}

/// A file of a few bytes must not allocate gigabytes of memory.
#[test]
fn a_value_that_doubles_many_times_is_refused() {
    let mut model = ModelProto::decode(LINEAR).expect("a model");
    let graph = model.graph.as_mut().expect("a graph");
    let mut node = graph.node[0].clone();
    node.domain.clear();
    node.op_type = "Concat".into();
    node.attribute =
        vec![AttributeProto { name: "axis".into(), i: 1, ..AttributeProto::default() }];
    graph.node.clear();
    let mut last = graph.input[0].name.clone();
    for doubling in 0..40 {
        node.input = vec![last.clone(), last];
        last = format!("x{doubling}");
        node.output = vec![last.clone()];
        graph.node.push(node.clone());
    }
    let error = load(&model).expect_err("too wide").to_string();
    assert!(error.contains("too wide"), "{error}");
}

fn number() -> impl Strategy<Value = i64> {
    let extremes = vec![i64::MIN, -1, 0, 1, 2, 3, 100, i64::from(u32::MAX), 1 << 31, i64::MAX];
    prop_oneof![prop::sample::select(extremes), any::<i64>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn random_numbers_in_attributes_never_panic(
        model in prop::sample::select(vec![FOREST, LINEAR]),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), number(), 0..4u8), 1..4,
        ),
    ) {
        let mut model = ModelProto::decode(model).expect("a model");
        let node = &mut model.graph.as_mut().expect("a graph").node[0];
        for (which, position, number, kind) in changes {
            let which = which.index(node.attribute.len());
            let attribute = &mut node.attribute[which];
            let (ints, floats) = (attribute.ints.len(), attribute.floats.len());
            match kind {
                0 if ints > 0 => attribute.ints[position.index(ints)] = number,
                1 if ints > 0 => attribute.ints.truncate(position.index(ints)),
                2 if ints > 0 => attribute.ints.insert(position.index(ints), number),
                0 if floats > 0 => attribute.floats[position.index(floats)] = number as f32,
                1 if floats > 0 => attribute.floats.truncate(position.index(floats)),
                _ => attribute.name.push('x'),
            }
        }
        let _ = load(&model);
    }
}
