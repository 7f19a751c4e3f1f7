//! Messages without the bulk of their data: elements of tensors, attributes that are lists of
//! numbers or strings, types of intermediate values. Those fields are empty in an outline. They are
//! skipped before anything is decoded, so that an outline of a large model costs what its nodes
//! cost.

use prost::{DecodeError, Message};

use crate::message_kind::MessageKind;
use crate::tensors::{Edit, TooDeep, rewrite};
use crate::{ModelProto, NodeProto, TensorProto};

impl ModelProto {
    /// Decodes a model without the elements of its tensors, without attributes that are lists of
    /// numbers or strings, and without `value_info`.
    ///
    /// # Errors
    /// If it is not a model.
    pub fn decode_outline(model: &[u8]) -> Result<Self, DecodeError> {
        decode(model, MessageKind::Model)
    }
}

impl NodeProto {
    /// Decodes a node without what [`ModelProto::decode_outline`] leaves out.
    ///
    /// # Errors
    /// If it is not a node.
    pub fn decode_outline(node: &[u8]) -> Result<Self, DecodeError> {
        decode(node, MessageKind::Node)
    }
}

impl TensorProto {
    /// Decodes a tensor without its elements.
    ///
    /// # Errors
    /// If it is not a tensor.
    pub fn decode_outline(tensor: &[u8]) -> Result<Self, DecodeError> {
        decode(tensor, MessageKind::Tensor)
    }
}

enum Failure {
    Decode(DecodeError),
    TooDeep,
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<TooDeep> for Failure {
    fn from(TooDeep: TooDeep) -> Self {
        Self::TooDeep
    }
}

fn decode<M: Message + Default>(message: &[u8], kind: MessageKind) -> Result<M, DecodeError> {
    match without_bulk(message, kind) {
        Ok(outline) => M::decode(outline.as_deref().unwrap_or(message)),
        Err(Failure::Decode(error)) => Err(error),
        // The decoder has the same limit, and an error for it.
        Err(Failure::TooDeep) => M::decode(message),
    }
}

fn without_bulk(message: &[u8], kind: MessageKind) -> Result<Option<Vec<u8>>, Failure> {
    rewrite(message, kind, 0, &mut |kind, field| {
        Ok(if kind.is_bulk(field.number) {
            Edit::Remove
        } else {
            kind.field(field.number).map_or(Edit::Keep, Edit::Descend)
        })
    })
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;

    use super::*;
    use crate::{AttributeProto, GraphProto, ValueInfoProto};

    /// A model with a value in every field; `bulk`, or without what an outline leaves out.
    fn model(bulk: bool) -> ModelProto {
        let some = |count: usize| if bulk { count } else { 0 };
        let tensor = TensorProto {
            name: "w".into(),
            dims: vec![2, 3],
            data_type: 1,
            data_location: 1,
            float_data: vec![0.5; some(1000)],
            int32_data: vec![7; some(1000)],
            int64_data: vec![7; some(1000)],
            double_data: vec![0.5; some(1000)],
            string_data: vec![b"text".to_vec(); some(1000)],
            raw_data: Bytes::from(vec![1; some(1 << 20)]),
            ..TensorProto::default()
        };
        let graph = |node: Vec<NodeProto>| GraphProto {
            node,
            name: "graph".into(),
            initializer: vec![tensor.clone()],
            value_info: vec![ValueInfoProto { name: "v".into(), r#type: None }; some(1000)],
            ..GraphProto::default()
        };
        let attribute = AttributeProto {
            name: "body".into(),
            i: 7,
            s: b"text".to_vec(),
            g: Some(Box::new(graph(vec![]))),
            t: Some(Box::new(tensor.clone())),
            floats: vec![0.5; some(1000)],
            ints: vec![7; some(1000)],
            strings: vec![b"text".to_vec(); some(1000)],
            ..AttributeProto::default()
        };
        let node = NodeProto {
            input: vec!["x".into()],
            op_type: "Loop".into(),
            attribute: vec![attribute],
            ..NodeProto::default()
        };
        ModelProto { ir_version: 10, graph: Some(graph(vec![node])), ..ModelProto::default() }
    }

    #[test]
    fn an_outline_is_the_message_without_bulk_data() {
        let (full, expected) = (model(true), model(false));
        let bytes = full.encode_to_vec();
        assert_eq!(ModelProto::decode_outline(&bytes).unwrap(), expected);
        let first = |model: &ModelProto| model.graph.clone().unwrap().node[0].clone();
        let node = NodeProto::decode_outline(&first(&full).encode_to_vec()).unwrap();
        assert_eq!(node, first(&expected));
        let first = |model: &ModelProto| model.graph.clone().unwrap().initializer[0].clone();
        let tensor = TensorProto::decode_outline(&first(&full).encode_to_vec()).unwrap();
        assert_eq!(tensor, first(&expected));
        assert_eq!(ModelProto::decode(&*bytes).unwrap(), full);
    }

    #[test]
    fn bulk_data_is_skipped_before_decoding() {
        let bytes = model(true).encode_to_vec();
        let Ok(Some(outline)) = without_bulk(&bytes, MessageKind::Model) else { panic!("bulk") };
        assert_eq!(outline, model(false).encode_to_vec());
        assert!(outline.len() < 200 && bytes.len() > 3 << 20, "{} {}", outline.len(), bytes.len());
    }

    #[test]
    fn what_is_not_a_message_is_an_error() {
        let bytes = model(true).encode_to_vec();
        assert!(ModelProto::decode_outline(&bytes[..bytes.len() - 1]).is_err());
        assert!(ModelProto::decode_outline(b"not a model").is_err());
        assert_eq!(ModelProto::decode_outline(b"").unwrap(), ModelProto::default());
    }
}
