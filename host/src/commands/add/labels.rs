//! The class labels of a graph that has them itself, as classifiers of `ai.onnx.ml` do, and converters
//! of scikit-learn.
//!
//! `wasi:nn` carries no strings. An output of labels that are strings is made one of their positions,
//! by changing those labels in the graph to 0, 1, 2, ...; every other byte stays as it was.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use prost::Message;

use super::onnx::{Attribute, Graph, Model, Node, Tensor, attribute_type, data_type, replace};

/// What the output of classes holds, in the order of the probabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// The output, as it is now, holds their positions.
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
    place: Place,
    /// The names of the output, and of the values it comes from.
    values: Vec<String>,
    /// The casts on the way, whose target is strings: the node and the attribute.
    casts: Vec<(usize, usize)>,
}

/// The labels of the graph in `bytes`, if it has any, and the bytes, with strings among them changed to
/// positions.
pub(super) fn find(bytes: Vec<u8>) -> Result<(Option<Labels>, Vec<u8>)> {
    let Ok(Model { graph: Some(graph), .. }) = Model::decode(&*bytes) else {
        // A backend says what is wrong with it.
        return Ok((None, bytes));
    };
    let integers = [data_type::STRING, data_type::INT64, data_type::INT32];
    let mut sources = Vec::new();
    for output in &graph.output {
        let Some(ty) = output.elem_type().filter(|ty| integers.contains(ty)) else { continue };
        let source = trace(&graph, &output.name);
        match source {
            Some(Source { labels: Labels::Numbers(numbers), .. }) if ty != data_type::STRING => {
                return Ok((Some(Labels::Numbers(numbers)), bytes));
            }
            Some(source) if ty == data_type::STRING => sources.push(source),
            None if ty == data_type::STRING => bail!(
                "output `{}` holds strings, which wasi:nn does not carry, and they do not come from a \
                 list of labels; train on the indices of the labels, and give the labels by --labels",
                output.name
            ),
            _ => {}
        }
    }
    let Some(source) = sources.pop() else { return Ok((None, bytes)) };
    if !sources.is_empty() {
        bail!("it has two outputs of strings, and wasi:nn carries numbers only");
    }
    let changed = to_positions(&bytes, &graph, &source).context("not an ONNX model")?;
    Ok((Some(source.labels), changed))
}

/// The fuzz target of this module. What was made positions is found as such.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let Ok((Some(Labels::Names(names)), changed)) = find(data.to_vec()) else { return };
    let positions = (0..).take(names.len()).collect();
    let again = find(changed).unwrap_or_else(|e| panic!("{names:?}: {e:#}"));
    assert_eq!(again.0, Some(Labels::Numbers(positions)), "{names:?}");
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
                let place = Place::Attribute { node: index, attribute };
                return Some(Source { labels, place, values, casts });
            }
            "ArrayFeatureExtractor" => {
                let (place, tensor) = constant(graph, &makers, node.input.first()?)?;
                let labels = of_tensor(tensor)?;
                return Some(Source { labels, place, values, casts });
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
        data_type::INT64 if tensor.raw_data.is_empty() => {
            Labels::Numbers(tensor.int64_data.clone())
        }
        data_type::INT32 if tensor.raw_data.is_empty() => {
            Labels::Numbers(tensor.int32_data.iter().map(|&number| number.into()).collect())
        }
        data_type::INT64 => {
            let (numbers, _) = tensor.raw_data.as_chunks();
            Labels::Numbers(numbers.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
        }
        data_type::INT32 => {
            let (numbers, _) = tensor.raw_data.as_chunks();
            Labels::Numbers(numbers.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect())
        }
        _ => return None,
    };
    (labels.len() > 0).then_some(labels)
}

fn text(strings: &[Vec<u8>]) -> Option<Vec<String>> {
    strings.iter().map(|bytes| String::from_utf8(bytes.clone()).ok()).collect()
}

/// `bytes` with the labels of `source`, which are strings, changed to 0, 1, 2, ...
fn to_positions(bytes: &[u8], graph: &Graph, source: &Source) -> Result<Vec<u8>> {
    let Source { labels, place, values, casts } = source;
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
    let changed = replace(bytes, Model::GRAPH, |_, content| {
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
    })?;
    Ok(changed)
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
        let tensor = Some(TensorType { elem_type, shape: Some(Vec::new()) });
        let output = vec![ValueInfo { name: "y".into(), r#type: Some(Type { tensor }) }];
        let graph = Graph { node, initializer, output, value_info: Vec::new() };
        Model { graph: Some(graph), ..Model::default() }.encode_to_vec()
    }

    #[test]
    fn strings_become_positions_and_nothing_else_changes() {
        let expected = names(&["setosa", "versicolor", "virginica"]);
        for bytes in [FOREST, BAYES] {
            let (labels, changed) = find(bytes.to_vec()).unwrap();
            assert_eq!(labels.as_ref(), Some(&expected));
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
            let (labels, again) = find(changed.clone()).unwrap();
            assert_eq!(labels, Some(Labels::Numbers(vec![0, 1, 2])));
            assert_eq!(again, changed);
        }
    }

    #[test]
    fn labels_in_raw_bytes_and_in_constants_are_found() {
        let raw = |data_type, raw_data| Tensor { data_type, raw_data, ..Tensor::default() };
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
                let (labels, same) = find(bytes.clone()).unwrap();
                assert_eq!(labels, Some(Labels::Numbers(vec![3, -7])));
                assert_eq!(same, bytes);
            }
        }
    }

    #[test]
    fn strings_from_elsewhere_are_refused() {
        for nodes in [
            vec![node("LabelEncoder", "x", "y")],
            // A cycle, and a graph that makes no such output.
            vec![node("Identity", "y", "x"), node("Identity", "x", "y")],
            vec![],
        ] {
            let error = find(model(nodes, Vec::new(), data_type::STRING)).unwrap_err().to_string();
            assert!(error.contains("output `y` holds strings"), "{error}");
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
            let _ = find(bytes);
        }

        #[test]
        fn what_is_not_replaced_stays_byte_for_byte(bytes in prop::collection::vec(any::<u8>(), 0..64), tag in 1_u32..16) {
            if let Ok(same) = replace(&bytes, tag, |_, _| Ok(None)) {
                prop_assert_eq!(same, bytes);
            }
        }
    }
}
