//! A model without its weights: what it takes and gives, and of which operators it is made. Decoding
//! one copies no initializer, which is why these types exist beside those of the crate's root.

use prost::Message;

use crate::{OperatorSetIdProto, ValueInfoProto};

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<Function>,
}

impl Model {
    /// The number of the field `graph`.
    pub const GRAPH: u32 = 7;
    /// The number of the field `opset_import`.
    pub const OPSET_IMPORT: u32 = 8;
}

#[derive(Clone, PartialEq, Message)]
pub struct Function {
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
}

impl Graph {
    /// The number of the field `node`.
    pub const NODE: u32 = 1;
    /// The number of the field `output`.
    pub const OUTPUT: u32 = 12;
}

#[derive(Clone, PartialEq, Message)]
pub struct Initializer {
    #[prost(string, tag = "8")]
    pub name: String,
    /// 1: the data is in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

impl Node {
    /// The number of the field `attribute`.
    pub const ATTRIBUTE: u32 = 5;

    /// The operator with its domain, where that is not the standard one.
    #[must_use]
    pub fn operator(&self) -> String {
        match self.domain.as_str() {
            "" | "ai.onnx" => self.op_type.clone(),
            domain => format!("{domain}.{}", self.op_type),
        }
    }
}

/// As far as it is a string, or holds graphs: the bodies of loops and conditions.
#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<Graph>>,
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<Graph>,
    /// `AttributeProto.AttributeType`.
    #[prost(int32, tag = "20")]
    pub r#type: i32,
}

impl Attribute {
    /// `AttributeProto.AttributeType` of a string.
    pub const STRING: i32 = 3;
}

impl Model {
    /// Every node: of the graph, of the graphs within it, and of the model's own functions.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let functions = self.functions.iter().flat_map(|function| &function.node);
        let mut rest: Vec<&Node> =
            self.graph.iter().flat_map(|graph| &graph.node).chain(functions).collect();
        std::iter::from_fn(move || {
            let node = rest.pop()?;
            for attribute in &node.attribute {
                let graphs = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
                rest.extend(graphs.flat_map(|graph| &graph.node));
            }
            Some(node)
        })
    }
}
