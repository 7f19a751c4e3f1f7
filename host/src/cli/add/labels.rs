//! The class labels of a graph that has them itself, as classifiers of `ai.onnx.ml` do, and converters
//! of scikit-learn.
//!
//! Strings cost more than numbers on their way to a component. An output of labels that are strings is
//! made one of their positions, by changing those labels in the graph to 0, 1, 2, ...; every other byte
//! stays as it was. Strings that come from elsewhere stay strings.

use std::collections::HashMap;

use bytes::Bytes;
use prost::{DecodeError, Message};

use super::onnx::{Attribute, Graph, Model, Node, Tensor, attribute_type, data_type, replace};

/// What the output of classes holds, in the order of the probabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// The output holds their positions, or the names themselves.
    Names(Vec<String>),
    /// The output holds the numbers themselves.
    Numbers(Vec<i64>),
}

impl Labels {
    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Names(names) => names
                .iter()
                .map(|name| name.escape_debug().to_string())
                .collect::<Vec<_>>()
                .join(", "),
            Self::Numbers(numbers) => {
                numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }
}

/// Where a graph has its labels.
enum Place {
    /// In an attribute of a classifier.
    Attribute {
        node: usize,
        attribute: usize,
    },
    /// In the tensor of a `Constant`.
    Constant {
        node: usize,
        attribute: usize,
    },
    Initializer(usize),
}

/// The way from an output back to where its values come from.
struct Source {
    labels: Labels,
    /// `None`: they are not in one place, where they could become positions.
    place: Option<Place>,
    /// The names of the output, and of the values it comes from.
    values: Vec<String>,
    /// The casts on the way, whose target is strings: the node and the attribute.
    casts: Vec<(usize, usize)>,
}

/// The labels of the graph in `bytes`, if it has any, and the bytes with strings among them changed to
/// positions, if that can be.
pub(super) fn find(bytes: &Bytes) -> (Option<Labels>, Option<Vec<u8>>) {
    let Ok(Model { graph: Some(graph), .. }) = Model::decode(bytes.clone()) else {
        // A backend says what is wrong with it.
        return (None, None);
    };
    let integers = [data_type::STRING, data_type::INT64, data_type::INT32];
    let mut sources = Vec::new();
    for output in &graph.output {
        let Some(ty) = output.elem_type().filter(|ty| integers.contains(ty)) else { continue };
        match trace(&graph, &output.name) {
            Some(Source { labels: Labels::Numbers(numbers), .. }) if ty != data_type::STRING => {
                return (Some(Labels::Numbers(numbers)), None);
            }
            Some(source) if ty == data_type::STRING => sources.push(source),
            _ => {}
        }
    }
    match <[Source; 1]>::try_from(sources) {
        Ok([source]) => {
            let changed = source
                .place
                .as_ref()
                .and_then(|place| to_positions(bytes, &graph, &source, place).ok());
            (Some(source.labels), changed)
        }
        // Which of several are the classes is not known.
        Err(_) => (None, None),
    }
}

/// The fuzz target of this module. What was made positions is found as such.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let found = find(&Bytes::copy_from_slice(data));
    let (Some(Labels::Names(names)), Some(changed)) = found else { return };
    let positions = (0..).take(names.len()).collect();
    let (again, _) = find(&changed.into());
    assert_eq!(again, Some(Labels::Numbers(positions)), "{names:?}");
}

/// Follows the output `name` through what only moves its values.
fn trace(graph: &Graph, name: &str) -> Option<Source> {
    let makers: HashMap<&str, usize> = (0..)
        .zip(&graph.node)
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let mut values = vec![name.to_owned()];
    let mut casts = Vec::new();
    // A graph that is no cycle gets there in as many steps as it has nodes.
    for _ in &graph.node {
        let value = values.last()?;
        let index = *makers.get(value.as_str())?;
        let node = &graph.node[index];
        match node.op_type.as_str() {
            "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {}
            "Cast" => {
                let to = node.attribute.iter().position(|attribute| attribute.name == "to")?;
                if node.attribute[to].i == i64::from(data_type::STRING) {
                    casts.push((index, to));
                }
            }
            "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier"
                if node.output.first() == Some(value) =>
            {
                let (attribute, labels) = of_classifier(node)?;
                let place = Some(Place::Attribute { node: index, attribute });
                return Some(Source { labels, place, values, casts });
            }
            "ArrayFeatureExtractor" => {
                let (place, tensor) = constant(graph, &makers, node.input.first()?)?;
                let (labels, place) = (of_tensor(tensor)?, Some(place));
                return Some(Source { labels, place, values, casts });
            }
            "LabelEncoder" => {
                let labels = of_encoder(node)?;
                return Some(Source { labels, place: None, values, casts });
            }
            _ => return None,
        }
        values.push(node.input.first()?.clone());
    }
    None
}

/// The attribute that holds a classifier's labels.
fn of_classifier(node: &Node) -> Option<(usize, Labels)> {
    let names = ["classlabels_strings", "classlabels_int64s", "classlabels_ints"];
    let is_list = |attribute: &Attribute| {
        names.contains(&attribute.name.as_str())
            && !(attribute.strings.is_empty() && attribute.ints.is_empty())
    };
    let position = node.attribute.iter().position(is_list)?;
    let Attribute { strings, ints, .. } = &node.attribute[position];
    let labels = if strings.is_empty() {
        Labels::Numbers(ints.clone())
    } else {
        Labels::Names(text(strings)?)
    };
    Some((position, labels))
}

/// The strings that an encoder gives for integers, in the order of those.
fn of_encoder(node: &Node) -> Option<Labels> {
    let keys = &node.attribute("keys_int64s")?.ints;
    let names = text(&node.attribute("values_strings")?.strings)?;
    let mut pairs: Vec<(i64, String)> = keys.iter().copied().zip(names).collect();
    pairs.sort();
    let in_order = pairs.iter().map(|(key, _)| *key).eq((0..).take(pairs.len()));
    in_order.then(|| Labels::Names(pairs.into_iter().map(|(_, name)| name).collect()))
}

fn constant<'a>(
    graph: &'a Graph,
    makers: &HashMap<&str, usize>,
    name: &str,
) -> Option<(Place, &'a Tensor)> {
    if let Some(index) = graph.initializer.iter().position(|tensor| tensor.name == name) {
        return Some((Place::Initializer(index), &graph.initializer[index]));
    }
    let node = *makers.get(name)?;
    let attributes = &graph.node[node].attribute;
    let attribute = attributes.iter().position(|attribute| attribute.name == "value")?;
    let tensor = attributes[attribute].t.as_ref()?;
    (graph.node[node].op_type == "Constant")
        .then_some((Place::Constant { node, attribute }, tensor))
}

/// `None` if it is no list.
fn of_tensor(tensor: &Tensor) -> Option<Labels> {
    let labels = match tensor.data_type {
        data_type::STRING => Labels::Names(text(&tensor.string_data)?),
        _ => Labels::Numbers(tensor.integers()?),
    };
    (labels.len() > 0).then_some(labels)
}

fn text(strings: &[Vec<u8>]) -> Option<Vec<String>> {
    strings.iter().map(|bytes| String::from_utf8(bytes.clone()).ok()).collect()
}

/// `bytes` with the labels of `source`, which are strings, changed to 0, 1, 2, ...
fn to_positions(
    bytes: &[u8],
    graph: &Graph,
    source: &Source,
    place: &Place,
) -> Result<Vec<u8>, DecodeError> {
    let Source { labels, values, casts, .. } = source;
    let positions = || (0..).take(labels.len());
    let tensor = |of: &Tensor| Tensor {
        dims: of.dims.clone(),
        data_type: data_type::INT64,
        int64_data: positions().collect(),
        name: of.name.clone(),
        ..Tensor::default()
    };
    // The new attribute of a node, if it has one.
    let attribute = |at: usize| -> Option<(usize, Attribute)> {
        let of = |attribute: usize| graph.node[at].attribute[attribute].clone();
        match *place {
            Place::Attribute { node, attribute } if node == at => {
                let name = match &*graph.node[node].op_type {
                    "TreeEnsembleClassifier" => "classlabels_int64s",
                    _ => "classlabels_ints",
                };
                let (ints, r#type) = (positions().collect(), attribute_type::INTS);
                Some((
                    attribute,
                    Attribute { name: name.into(), ints, r#type, ..Attribute::default() },
                ))
            }
            Place::Constant { node, attribute } if node == at => {
                let t = of(attribute).t.as_ref().map(tensor);
                let r#type = attribute_type::TENSOR;
                Some((
                    attribute,
                    Attribute { name: "value".into(), t, r#type, ..Attribute::default() },
                ))
            }
            _ => {
                let (_, cast) = casts.iter().find(|(node, _)| *node == at)?;
                let (i, r#type) = (data_type::INT64.into(), attribute_type::INT);
                Some((*cast, Attribute { name: "to".into(), i, r#type, ..Attribute::default() }))
            }
        }
    };
    let typed = |info: &super::onnx::ValueInfo| {
        let mut info = info.clone();
        let tensor = info.r#type.as_mut().and_then(|ty| ty.tensor.as_mut())?;
        if tensor.elem_type != data_type::STRING || !values.contains(&info.name) {
            return None;
        }
        tensor.elem_type = data_type::INT64;
        Some(info.encode_to_vec())
    };
    replace(bytes, Model::GRAPH, |_, content| {
        let content = replace(content, Graph::NODE, |index, content| {
            let Some((position, new)) = attribute(index) else { return Ok(None) };
            let new = new.encode_to_vec();
            replace(content, Node::ATTRIBUTE, |at, _| Ok((at == position).then(|| new.clone())))
                .map(Some)
        })?;
        let content = replace(&content, Graph::INITIALIZER, |index, _| {
            let here = matches!(place, Place::Initializer(at) if *at == index);
            Ok(here.then(|| tensor(&graph.initializer[index]).encode_to_vec()))
        })?;
        let content = replace(&content, Graph::OUTPUT, |index, _| Ok(typed(&graph.output[index])))?;
        replace(&content, Graph::VALUE_INFO, |index, _| Ok(typed(&graph.value_info[index])))
            .map(Some)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::onnx::{TensorType, Type, ValueInfo};
    use super::*;

    const FOREST: &[u8] = include_bytes!("../../../../tests/models/add/strings-forest.onnx");
    const BAYES: &[u8] = include_bytes!("../../../../tests/models/add/strings-bayes.onnx");

    fn names(names: &[&str]) -> Labels {
        Labels::Names(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn node(op_type: &str, input: &str, output: &str) -> Node {
        let (input, output) = (vec![input.into()], vec![output.into()]);
        Node { input, output, op_type: op_type.into(), attribute: Vec::new() }
    }

    fn model(node: Vec<Node>, initializer: Vec<Tensor>, elem_type: i32) -> Vec<u8> {
        let tensor = Some(TensorType { elem_type, shape: None });
        let output = vec![ValueInfo { name: "y".into(), r#type: Some(Type { tensor }) }];
        let graph = Graph { node, initializer, output, value_info: Vec::new() };
        Model { graph: Some(graph), ..Model::default() }.encode_to_vec()
    }

    #[test]
    fn strings_become_positions_and_nothing_else_changes() {
        let expected = names(&["setosa", "versicolor", "virginica"]);
        for bytes in [FOREST, BAYES] {
            let (labels, changed) = find(&Bytes::from_static(bytes));
            assert_eq!(labels.as_ref(), Some(&expected));
            let changed = changed.unwrap();
            let (before, after) =
                (Model::decode(bytes).unwrap(), Model::decode(&*changed).unwrap());
            let (before, after) = (before.graph.unwrap(), after.graph.unwrap());
            assert_eq!(before.output[0].elem_type(), Some(data_type::STRING));
            assert_eq!(after.output[0].elem_type(), Some(data_type::INT64));
            assert_eq!(before.output[1..], after.output[1..]);
            let differ = before.node.iter().zip(&after.node).filter(|(a, b)| a != b).count();
            let constants = before.initializer.iter().zip(&after.initializer);
            let differ = differ + constants.filter(|(a, b)| a != b).count();
            assert!(differ == 1 || differ == 2, "the labels, and a cast: {differ}");
            // Now they are numbers, and stay as they are.
            let found = find(&changed.into());
            assert_eq!(found, (Some(Labels::Numbers(vec![0, 1, 2])), None));
        }
    }

    #[test]
    fn labels_in_raw_bytes_and_in_constants_are_found() {
        let raw = |data_type, data: Vec<u8>| {
            let raw_data = Bytes::from(data);
            Tensor { data_type, raw_data, ..Tensor::default() }
        };
        for tensor in [
            raw(data_type::INT64, [3_i64, -7].map(i64::to_le_bytes).concat()),
            raw(data_type::INT32, [3_i32, -7].map(i32::to_le_bytes).concat()),
        ] {
            let initializer = Tensor { name: "classes".into(), ..tensor.clone() };
            let extract = || node("ArrayFeatureExtractor", "classes", "y");
            let value = Attribute { name: "value".into(), t: Some(tensor), ..Attribute::default() };
            let constant = Node { attribute: vec![value], ..node("Constant", "", "classes") };
            for bytes in [
                model(vec![extract()], vec![initializer], data_type::INT64),
                model(vec![constant, extract()], Vec::new(), data_type::INT64),
            ] {
                let expected = Some(Labels::Numbers(vec![3, -7]));
                assert_eq!(find(&bytes.into()), (expected, None));
            }
        }
    }

    #[test]
    fn strings_from_elsewhere_stay_strings() {
        let labels = |name: &str, strings: &[&str], ints: &[i64]| Attribute {
            name: name.into(),
            strings: strings.iter().map(|text| text.as_bytes().to_vec()).collect(),
            ints: ints.to_vec(),
            ..Attribute::default()
        };
        let values = labels("values_strings", &["b", "a"], &[]);
        let encoder = |keys| Node {
            attribute: vec![labels("keys_int64s", &[], keys), values.clone()],
            ..node("LabelEncoder", "x", "y")
        };
        for (nodes, expected) in [
            (vec![node("LabelEncoder", "x", "y")], None),
            // The names are known, and stay what the output holds.
            (vec![encoder(&[1, 0])], Some(names(&["a", "b"]))),
            (vec![encoder(&[3, 7])], None),
            // A cycle, and a graph that makes no such output.
            (vec![node("Identity", "y", "x"), node("Identity", "x", "y")], None),
            (vec![], None),
        ] {
            let bytes = model(nodes, Vec::new(), data_type::STRING);
            assert_eq!(find(&bytes.into()), (expected, None));
        }
    }

    proptest! {
        #[test]
        fn no_file_panics(
            forest: bool,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            length: prop::sample::Index,
            cut: bool,
        ) {
            let mut bytes = if forest { FOREST } else { BAYES }.to_vec();
            for (at, with) in damage {
                let at = at.index(bytes.len());
                bytes[at] = with;
            }
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            fuzz(&bytes);
        }

        #[test]
        fn what_is_not_replaced_stays_byte_for_byte(bytes in prop::collection::vec(any::<u8>(), 0..64), tag in 1_u32..16) {
            if let Ok(same) = replace(&bytes, tag, |_, _| Ok(None)) {
                prop_assert_eq!(same, bytes);
            }
        }
    }
}
