//! The part of ONNX's protobuf schema that tells of labels and of where a file comes from.
//!
//! Field numbers and meanings: `onnx/onnx.proto` of the ONNX project, IR version 10.

use bytes::Bytes;
use prost::Message;
pub(super) use spinfer_onnx::wire::replace;
pub(super) use spinfer_onnx::{DimensionValue, Shape};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
}

impl Model {
    /// The field that holds the graph.
    pub(super) const GRAPH: u32 = 7;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
    /// Of values between the nodes, where the file tells their types.
    #[prost(message, repeated, tag = "13")]
    pub(super) value_info: Vec<ValueInfo>,
}

/// Operators that draw numbers.
const RANDOM: [&str; 6] = [
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

impl Graph {
    /// Whether it may give something else for the same.
    pub(super) fn is_random(&self) -> bool {
        self.nodes().iter().any(|node| RANDOM.contains(&&*node.op_type))
    }

    /// The nodes, with those of the graphs within it.
    pub(super) fn nodes(&self) -> Vec<&Node> {
        let mut nodes: Vec<&Node> = Vec::new();
        let mut graphs = vec![self];
        while let Some(graph) = graphs.pop() {
            nodes.extend(&graph.node);
            let attributes = graph.node.iter().flat_map(|node| &node.attribute);
            graphs.extend(attributes.flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs)));
        }
        nodes
    }

    pub(super) const NODE: u32 = 1;
    pub(super) const INITIALIZER: u32 = 5;
    pub(super) const OUTPUT: u32 = 12;
    pub(super) const VALUE_INFO: u32 = 13;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<Attribute>,
}

impl Node {
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub(super) const ATTRIBUTE: u32 = 5;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int64, tag = "3")]
    pub(super) i: i64,
    #[prost(message, optional, tag = "5")]
    pub(super) t: Option<Tensor>,
    /// A graph within this one: of a loop, of a condition.
    #[prost(message, optional, boxed, tag = "6")]
    pub(super) g: Option<Box<Graph>>,
    #[prost(message, repeated, tag = "11")]
    pub(super) graphs: Vec<Graph>,
    #[prost(int64, repeated, tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(super) strings: Vec<Vec<u8>>,
    /// `AttributeProto.AttributeType`.
    #[prost(int32, tag = "20")]
    pub(super) r#type: i32,
}

/// `AttributeProto.AttributeType`
pub(super) mod attribute_type {
    pub(in super::super) const INT: i32 = 2;
    pub(in super::super) const TENSOR: i32 = 4;
    pub(in super::super) const INTS: i32 = 7;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(int32, repeated, tag = "5")]
    pub(super) int32_data: Vec<i32>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) string_data: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    pub(super) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    /// Shared with the file, if that is in [`Bytes`].
    #[prost(bytes = "bytes", tag = "9")]
    pub(super) raw_data: Bytes,
}

impl Tensor {
    /// Its elements, if they are integers of 32 or 64 bits.
    pub(super) fn integers(&self) -> Option<Vec<i64>> {
        let raw = &self.raw_data;
        match self.data_type {
            data_type::INT64 if raw.is_empty() => Some(self.int64_data.clone()),
            data_type::INT32 if raw.is_empty() => {
                Some(self.int32_data.iter().map(|&number| number.into()).collect())
            }
            data_type::INT64 => {
                let (numbers, _) = raw.as_chunks();
                Some(numbers.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
            }
            data_type::INT32 => {
                let (numbers, _) = raw.as_chunks();
                Some(numbers.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect())
            }
            _ => None,
        }
    }
}

/// `TensorProto.DataType`
pub(super) mod data_type {
    pub(in super::super) const INT32: i32 = 6;
    pub(in super::super) const INT64: i32 = 7;
    pub(in super::super) const STRING: i32 = 8;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
}

impl ValueInfo {
    pub(super) fn elem_type(&self) -> Option<i32> {
        Some(self.r#type.as_ref()?.tensor.as_ref()?.elem_type)
    }

    /// The size of each axis, where the file says it; -1 is a free axis.
    pub(super) fn shape(&self) -> Option<Vec<i64>> {
        let shape = self.r#type.as_ref()?.tensor.as_ref()?.shape.as_ref()?;
        let size = |value: &Option<DimensionValue>| match value {
            Some(DimensionValue::Size(size)) if *size >= 0 => *size,
            _ => -1,
        };
        Some(shape.dim.iter().map(|axis| size(&axis.value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_that_draws_numbers_is_known() {
        let of = |op_type: &str, g: Option<Graph>| {
            let attribute = vec![Attribute { g: g.map(Box::new), ..Attribute::default() }];
            let node = vec![Node { op_type: op_type.into(), attribute, ..Node::default() }];
            Graph { node, ..Graph::default() }
        };
        for (graph, random) in [
            (of("MatMul", None), false),
            (of("RandomNormalLike", None), true),
            (of("If", Some(of("Add", None))), false),
            (of("If", Some(of("Loop", Some(of("Bernoulli", None))))), true),
        ] {
            assert_eq!(graph.is_random(), random, "{graph:?}");
            assert_eq!(Graph::decode(&*graph.encode_to_vec()).unwrap(), graph);
        }
    }
}
