//! Graphs with operators of `ai.onnx.ml` that declare or hold something else than they should are
//! refused or run: the operators never panic within tract, nor go on for long.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message;
use spinfer_backend::{Backend, Encoding, Error, Graph, Tensor};
use spinfer_backend_tract::Tract;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{ModelProto, TensorShapeProto};

use crate::cases;

static MODELS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let cases = cases::read("../backend-lean/tests/ml_cases.json.gz");
    cases.iter().step_by(5).map(|case| cases::bytes(&case["model"])).collect()
});

fn load_and_run(model: &[u8]) {
    let start = Instant::now();
    if let Ok(graph) = Tract.load(model, Encoding::Onnx) {
        let inputs: Option<Vec<Tensor>> =
            (0..graph.inputs().len()).map(|i| input(&*graph, i)).collect();
        if let Some(inputs) = inputs {
            let _ = graph.compute(inputs);
        }
    }
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}

/// Two rows, or as many as the input says.
fn input(graph: &dyn Graph, index: usize) -> Option<Tensor> {
    let info = &graph.inputs()[index];
    let shape = info.shape.clone().unwrap_or_else(|| vec![None; 2]);
    let dimensions: Vec<u32> = shape.iter().map(|axis| axis.unwrap_or(2)).collect();
    let count = dimensions.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis as usize))?;
    let len = count.checked_mul(info.ty.size()).filter(|&len| len <= 1 << 20)?;
    Some(Tensor { dimensions, ty: info.ty, data: vec![0x01; len] })
}

fn axis() -> impl Strategy<Value = Option<i64>> {
    prop::sample::select(vec![
        None,
        Some(0),
        Some(1),
        Some(2),
        Some(3),
        Some(-1),
        Some(1 << 40),
        Some(i64::MAX),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn an_input_of_another_type_or_shape_never_panics(
        model in prop::sample::select(&MODELS[..]),
        ty in prop::option::of(0..24i32),
        shape in prop::option::of(prop::collection::vec(axis(), 0..4)),
        domain in prop::sample::select(vec!["ai.onnx.ml", "", "com.example"]),
    ) {
        let mut proto = ModelProto::decode(&model[..]).unwrap();
        let graph = proto.graph.as_mut().unwrap();
        graph.node[0].domain = domain.into();
        if let Some(Type::TensorType(tensor)) = graph.input[0].r#type.as_mut().unwrap().value.as_mut() {
            tensor.elem_type = ty.unwrap_or(tensor.elem_type);
            tensor.shape = shape.map(|axes| TensorShapeProto {
                dim: axes
                    .into_iter()
                    .map(|size| Dimension { value: size.map(dimension::Value::DimValue), ..Dimension::default() })
                    .collect(),
            });
        }
        load_and_run(&proto.encode_to_vec());
    }

    #[test]
    fn a_number_in_an_attribute_never_panics(
        model in prop::sample::select(&MODELS[..]),
        which in any::<prop::sample::Index>(),
        number in prop::sample::select(vec![i64::MIN, -1, 0, 1, 5, 1 << 20, 1 << 40, i64::MAX]),
    ) {
        let mut proto = ModelProto::decode(&model[..]).unwrap();
        let node = &mut proto.graph.as_mut().unwrap().node[0];
        if !node.attribute.is_empty() {
            let attribute = which.index(node.attribute.len());
            node.attribute[attribute].i = number;
            node.attribute[attribute].ints.iter_mut().take(1).for_each(|first| *first = number);
        }
        load_and_run(&proto.encode_to_vec());
    }

    #[test]
    fn a_damaged_graph_never_panics(
        model in prop::sample::select(&MODELS[..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let mut model = model;
        for (place, byte, kind) in damage {
            let place = place.index(model.len());
            match kind {
                0 => model[place] = byte,
                1 => model.insert(place, byte),
                _ => { model.remove(place); }
            }
        }
        load_and_run(&model);
    }
}

/// What a refusal says is the operator's own reason.
#[test]
fn a_refusal_names_the_operator_and_its_attribute() {
    let cases = cases::read("../backend-lean/tests/ml_cases.json.gz");
    let model = |name: &str, change: &dyn Fn(&mut ModelProto)| {
        let case =
            cases.iter().find(|case| case["name"].as_str().unwrap().starts_with(name)).unwrap();
        let mut proto = ModelProto::decode(&cases::bytes(&case["model"])[..]).unwrap();
        change(&mut proto);
        Tract.load(&proto.encode_to_vec(), Encoding::Onnx).unwrap_err()
    };
    let attribute = |proto: &mut ModelProto, name: &str, ints: Vec<i64>| {
        let node = &mut proto.graph.as_mut().unwrap().node[0];
        node.attribute.iter_mut().find(|a| a.name == name).unwrap().ints = ints;
    };
    for (error, says) in [
        (model("TreeEnsemble 1", &|p| attribute(p, "tree_roots", vec![9999])), "tree_roots"),
        (
            model("SVMClassifier RBF", &|p| attribute(p, "vectors_per_class", vec![-1])),
            "vectors_per_class",
        ),
        (
            model("Scaler float32 3 (4", &|p| p.graph.as_mut().unwrap().node[0].domain.clear()),
            "ai.onnx.ml",
        ),
        (
            model("Scaler", &|p| {
                p.graph.as_mut().unwrap().node[0].op_type = "DictVectorizer".into();
            }),
            "ai.onnx.ml.DictVectorizer (of ai.onnx.ml there are ArrayFeatureExtractor",
        ),
    ] {
        assert!(matches!(&error, Error::Unsupported(why) if why.contains(says)), "{error}");
    }
}
