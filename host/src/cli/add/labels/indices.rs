//! Replaces string labels in a graph by their indices.

use prost::{DecodeError, Message};
use spinfer_onnx::wire::replace;
use spinfer_onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_type,
    data_type,
};

use super::trace::{LabelLocation, OutputTrace};

/// `bytes` with the string labels of `source` replaced by 0, 1, 2, ...
pub(super) fn to_indices(
    bytes: &[u8],
    graph: &GraphProto,
    source: &OutputTrace,
    location: &LabelLocation,
) -> Result<Vec<u8>, DecodeError> {
    let OutputTrace { labels, values, casts, .. } = source;
    let indices = || (0..).take(labels.len());
    let tensor = |of: &TensorProto| TensorProto {
        dims: of.dims.clone(),
        data_type: data_type::INT64,
        int64_data: indices().collect(),
        name: of.name.clone(),
        ..TensorProto::default()
    };
    // The attribute of a node to replace, and the new one.
    let attribute = |at: usize| -> Option<(usize, AttributeProto)> {
        let of = |attribute: usize| graph.node[at].attribute[attribute].clone();
        match *location {
            LabelLocation::Attribute { node, attribute } if node == at => {
                let name = match &*graph.node[node].op_type {
                    "TreeEnsembleClassifier" => "classlabels_int64s",
                    _ => "classlabels_ints",
                };
                let (ints, r#type) = (indices().collect(), attribute_type::INTS);
                Some((
                    attribute,
                    AttributeProto { name: name.into(), ints, r#type, ..AttributeProto::default() },
                ))
            }
            LabelLocation::Constant { node, attribute } if node == at => {
                let t = of(attribute).t.as_deref().map(tensor).map(Box::new);
                let r#type = attribute_type::TENSOR;
                Some((
                    attribute,
                    AttributeProto { name: "value".into(), t, r#type, ..AttributeProto::default() },
                ))
            }
            _ => {
                let (_, cast) = casts.iter().find(|(node, _)| *node == at)?;
                let (i, r#type) = (data_type::INT64.into(), attribute_type::INT);
                Some((
                    *cast,
                    AttributeProto { name: "to".into(), i, r#type, ..AttributeProto::default() },
                ))
            }
        }
    };
    let typed = |info: &ValueInfoProto| {
        let mut info = info.clone();
        let tensor = info.r#type.as_mut().and_then(|ty| ty.tensor.as_mut())?;
        if tensor.elem_type != data_type::STRING || !values.contains(&info.name) {
            return None;
        }
        tensor.elem_type = data_type::INT64;
        Some(info.encode_to_vec())
    };
    replace(bytes, ModelProto::GRAPH, |_, content| {
        let content =
            replace(content, GraphProto::NODE, |index, content| {
                let Some((position, new)) = attribute(index) else { return Ok(None) };
                let new = new.encode_to_vec();
                replace(content, NodeProto::ATTRIBUTE, |at, _| {
                    Ok((at == position).then(|| new.clone()))
                })
                .map(Some)
            })?;
        let content = replace(&content, GraphProto::INITIALIZER, |index, _| {
            let here = matches!(location, LabelLocation::Initializer(at) if *at == index);
            Ok(here.then(|| tensor(&graph.initializer[index]).encode_to_vec()))
        })?;
        let content =
            replace(&content, GraphProto::OUTPUT, |index, _| Ok(typed(&graph.output[index])))?;
        replace(&content, GraphProto::VALUE_INFO, |index, _| Ok(typed(&graph.value_info[index])))
            .map(Some)
    })
}
