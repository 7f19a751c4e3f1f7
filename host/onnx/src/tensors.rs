//! Edits of the tensors of an encoded model, wherever they are: initializers, attributes,
//! subgraphs, functions.

use std::fmt;

use prost::DecodeError;

use crate::message_kind::MessageKind;
use crate::wire::{self, Field, fields};

/// Maximum depth of messages within messages: that of protobuf's own decoders.
pub(crate) const MAX_DEPTH: usize = 100;

/// Graphs are nested more than 100 messages deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its graphs are nested more than {MAX_DEPTH} messages deep")
    }
}

impl std::error::Error for TooDeep {}

/// Calls `edit` with each encoded tensor of `model`. It returns the new one, or
/// `None` to keep it. Returns the edited model, or `None` if nothing changed.
///
/// # Errors
/// If the model is not valid protobuf, its graphs are nested too deep, or `edit` fails.
pub fn edit_tensors<E: From<DecodeError> + From<TooDeep>>(
    model: &[u8],
    mut edit: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Vec<u8>>, E> {
    rewrite(model, MessageKind::Model, 0, &mut |kind, field| {
        Ok(match (kind.field(field.number), field.content) {
            (Some(MessageKind::Tensor), Some(tensor)) => {
                edit(tensor)?.map_or(Edit::Keep, Edit::Replace)
            }
            (Some(within), Some(_)) => Edit::Descend(within),
            _ => Edit::Keep,
        })
    })
}

/// What becomes of a field.
pub(crate) enum Edit {
    Keep,
    Remove,
    Replace(Vec<u8>),
    /// Its content is a message, whose fields are edited.
    Descend(MessageKind),
}

/// `message` with each field edited; `None` if nothing changed.
pub(crate) fn rewrite<E: From<DecodeError> + From<TooDeep>>(
    message: &[u8],
    kind: MessageKind,
    depth: usize,
    edit: &mut dyn FnMut(MessageKind, &Field<'_>) -> Result<Edit, E>,
) -> Result<Option<Vec<u8>>, E> {
    if depth > MAX_DEPTH {
        return Err(TooDeep.into());
    }
    let mut edited: Option<Vec<u8>> = None;
    // `message[..copied]` is in `edited`; the field starts at `position`.
    let (mut copied, mut position) = (0, 0);
    for field in fields(message) {
        let field = field?;
        let start = position;
        position += field.bytes.len();
        let content = match (edit(kind, &field)?, field.content) {
            (Edit::Keep, _) | (Edit::Descend(_), None) => continue,
            (Edit::Remove, _) => None,
            (Edit::Replace(content), _) => Some(content),
            (Edit::Descend(within), Some(content)) => {
                match rewrite(content, within, depth + 1, edit)? {
                    Some(content) => Some(content),
                    None => continue,
                }
            }
        };
        let added = content.as_ref().map_or(0, Vec::len);
        let edited = edited.get_or_insert_with(|| Vec::with_capacity(start + added));
        edited.extend_from_slice(&message[copied..start]);
        if let Some(content) = content {
            wire::push(field.number, &content, edited);
        }
        copied = position;
    }
    if let Some(edited) = &mut edited {
        edited.extend_from_slice(&message[copied..]);
    }
    Ok(edited)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

    #[derive(Debug, PartialEq)]
    enum Error {
        Decode,
        TooDeep,
    }

    impl From<DecodeError> for Error {
        fn from(_: DecodeError) -> Self {
            Self::Decode
        }
    }

    impl From<TooDeep> for Error {
        fn from(_: TooDeep) -> Self {
            Self::TooDeep
        }
    }

    fn tensor(name: &str) -> TensorProto {
        TensorProto { name: name.into(), ..TensorProto::default() }
    }

    /// A graph with an initializer, within a node of each graph around it.
    fn nested(depth: usize) -> GraphProto {
        let mut graph = GraphProto { initializer: vec![tensor("w")], ..GraphProto::default() };
        for _ in 0..depth {
            let g = Some(Box::new(graph));
            let attribute = vec![AttributeProto { g, ..AttributeProto::default() }];
            let node = vec![NodeProto { attribute, ..NodeProto::default() }];
            graph = GraphProto { node, ..GraphProto::default() };
        }
        graph
    }

    fn model(graph: GraphProto) -> Vec<u8> {
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn tensors_of_subgraphs_and_of_attributes_are_edited() {
        let mut graph = nested(3);
        graph.initializer.push(tensor("b"));
        let t = Some(Box::new(tensor("w")));
        graph.node[0].attribute.push(AttributeProto { t, ..AttributeProto::default() });
        let bytes = model(graph.clone());
        let rename = |tensor: &[u8]| -> Result<_, Error> {
            let mut tensor = TensorProto::decode(tensor)?;
            let is_w = tensor.name == "w";
            tensor.name.push_str(" edited");
            Ok(is_w.then(|| tensor.encode_to_vec()))
        };
        let edited = edit_tensors(&bytes, rename).unwrap().unwrap();
        assert_eq!(edited.len(), bytes.len() + 2 * " edited".len());
        let unchanged = edit_tensors(&edited, rename).unwrap();
        assert_eq!(unchanged, None);
    }

    #[test]
    fn graphs_nested_too_deep_are_refused() {
        let leave = |_: &[u8]| Ok(None);
        // A level is a graph, a node and an attribute.
        assert_eq!(edit_tensors::<Error>(&model(nested(33)), leave), Ok(None));
        assert_eq!(edit_tensors(&model(nested(34)), leave), Err(Error::TooDeep));
        let truncated = &model(nested(3))[..20];
        assert_eq!(edit_tensors(truncated, leave), Err(Error::Decode));
    }
}
