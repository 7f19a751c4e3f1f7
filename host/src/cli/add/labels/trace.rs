//! Traces an output back to the labels in the graph that its values come from.

use std::collections::HashMap;

use spinfer_onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, data_type};

use super::Labels;

/// The location of the labels in a graph.
pub(super) enum LabelLocation {
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

/// The path from an output back to the origin of its values.
pub(super) struct OutputTrace {
    pub(super) labels: Labels,
    /// `None` if the labels cannot be replaced by indices.
    pub(super) location: Option<LabelLocation>,
    /// Names of the output and of the values it is computed from.
    pub(super) values: Vec<String>,
    /// Casts to strings on the path: the node and the attribute.
    pub(super) casts: Vec<(usize, usize)>,
}

/// Traces the output `name` back through operators that only move its values.
pub(super) fn trace_output(graph: &GraphProto, name: &str) -> Option<OutputTrace> {
    let producers: HashMap<&str, usize> = (0..)
        .zip(&graph.node)
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let mut values = vec![name.to_owned()];
    let mut casts = Vec::new();
    // An acyclic graph needs at most one step per node.
    for _ in &graph.node {
        let value = values.last()?;
        let index = *producers.get(value.as_str())?;
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
                let location = Some(LabelLocation::Attribute { node: index, attribute });
                return Some(OutputTrace { labels, location, values, casts });
            }
            "ArrayFeatureExtractor" => {
                let (location, tensor) = constant(graph, &producers, node.input.first()?)?;
                let (labels, location) = (of_tensor(tensor)?, Some(location));
                return Some(OutputTrace { labels, location, values, casts });
            }
            "LabelEncoder" => {
                let labels = of_encoder(node)?;
                return Some(OutputTrace { labels, location: None, values, casts });
            }
            _ => return None,
        }
        values.push(node.input.first()?.clone());
    }
    None
}

/// A classifier's labels, and the attribute that holds them.
fn of_classifier(node: &NodeProto) -> Option<(usize, Labels)> {
    let names = ["classlabels_strings", "classlabels_int64s", "classlabels_ints"];
    let is_list = |attribute: &AttributeProto| {
        names.contains(&attribute.name.as_str())
            && !(attribute.strings.is_empty() && attribute.ints.is_empty())
    };
    let position = node.attribute.iter().position(is_list)?;
    let AttributeProto { strings, ints, .. } = &node.attribute[position];
    let labels = if strings.is_empty() {
        Labels::Numbers(ints.clone())
    } else {
        Labels::Names(text(strings)?)
    };
    Some((position, labels))
}

/// The strings that an encoder maps the integers 0, 1, 2, ... to.
fn of_encoder(node: &NodeProto) -> Option<Labels> {
    let keys = &node.attribute("keys_int64s")?.ints;
    let names = text(&node.attribute("values_strings")?.strings)?;
    let mut pairs: Vec<(i64, String)> = keys.iter().copied().zip(names).collect();
    pairs.sort();
    let in_order = pairs.iter().map(|(key, _)| *key).eq((0..).take(pairs.len()));
    in_order.then(|| Labels::Names(pairs.into_iter().map(|(_, name)| name).collect()))
}

fn constant<'a>(
    graph: &'a GraphProto,
    producers: &HashMap<&str, usize>,
    name: &str,
) -> Option<(LabelLocation, &'a TensorProto)> {
    if let Some(index) = graph.initializer.iter().position(|tensor| tensor.name == name) {
        return Some((LabelLocation::Initializer(index), &graph.initializer[index]));
    }
    let node = *producers.get(name)?;
    let attributes = &graph.node[node].attribute;
    let attribute = attributes.iter().position(|attribute| attribute.name == "value")?;
    let tensor = attributes[attribute].t.as_deref()?;
    (graph.node[node].op_type == "Constant")
        .then_some((LabelLocation::Constant { node, attribute }, tensor))
}

/// The labels in a tensor; `None` if it is empty or of another type.
fn of_tensor(tensor: &TensorProto) -> Option<Labels> {
    let labels = match tensor.data_type {
        data_type::STRING => Labels::Names(text(&tensor.string_data)?),
        _ => Labels::Numbers(tensor.integers()?),
    };
    (labels.len() > 0).then_some(labels)
}

fn text(strings: &[Vec<u8>]) -> Option<Vec<String>> {
    strings.iter().map(|bytes| String::from_utf8(bytes.clone()).ok()).collect()
}
