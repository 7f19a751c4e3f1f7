//! The messages, as far as any crate of this workspace reads them. Decoding skips every other
//! field, so encoding a decoded message loses them.
//!
//! Field numbers and meanings: `onnx/onnx.proto` of the ONNX project, IR version 13. Repeated
//! numbers are read packed or not, whichever the file contains.

use std::collections::VecDeque;

use prost::bytes::Bytes;
use prost::{Message, Oneof};

/// A file: a graph, and the operator sets its nodes are of.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// The tool that wrote the file: `skl2onnx`.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Functions local to the model.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
}

impl ModelProto {
    /// Field number of `graph`.
    pub const GRAPH: u32 = 7;
    /// Field number of `opset_import`.
    pub const OPSET_IMPORT: u32 = 8;

    /// Every node: of the graph, of the model's functions, then of their subgraphs.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeProto> {
        let functions = self.functions.iter().flat_map(|function| &function.node);
        with_subgraphs(self.graph.iter().flat_map(|graph| &graph.node).chain(functions))
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetIdProto {
    /// Empty for the standard operators, which `ai.onnx` stands for, too.
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct FunctionProto {
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
}

/// A graph, or the body of a loop or a condition.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// The nodes, in topological order.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants, most of them weights.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// Inputs. One with the name of an initializer has that as its default.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of intermediate values, where the file has them.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
}

impl GraphProto {
    /// Field number of `node`.
    pub const NODE: u32 = 1;
    /// Field number of `initializer`.
    pub const INITIALIZER: u32 = 5;
    /// Field number of `output`.
    pub const OUTPUT: u32 = 12;
    /// Field number of `value_info`.
    pub const VALUE_INFO: u32 = 13;

    /// Every node: of the graph, then of its subgraphs.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeProto> {
        with_subgraphs(&self.node)
    }
}

/// `nodes` in their order, then those of the graphs in their attributes.
fn with_subgraphs<'a>(
    nodes: impl IntoIterator<Item = &'a NodeProto>,
) -> impl Iterator<Item = &'a NodeProto> {
    let mut queue: VecDeque<&NodeProto> = nodes.into_iter().collect();
    std::iter::from_fn(move || {
        let node = queue.pop_front()?;
        for attribute in &node.attribute {
            let graphs = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
            queue.extend(graphs.flat_map(|graph| &graph.node));
        }
        Some(node)
    })
}

/// A call of an operator.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// Names of values; an empty one leaves an optional input out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// The operator set, as in [`OperatorSetIdProto`].
    #[prost(string, tag = "7")]
    pub domain: String,
}

impl NodeProto {
    /// Field number of `attribute`.
    pub const ATTRIBUTE: u32 = 5;

    /// The operator, with its domain if that is not the standard one: `ai.onnx.ml.ZipMap`.
    #[must_use]
    pub fn operator(&self) -> String {
        match self.domain.as_str() {
            "" | "ai.onnx" => self.op_type.clone(),
            domain => format!("{domain}.{}", self.op_type),
        }
    }

    /// The attribute `name`, unless it has its default.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }
}

/// A named constant of a node. One of its fields holds the value.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub f: f32,
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// A string, most often of UTF-8.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, boxed, tag = "5")]
    pub t: Option<Box<TensorProto>>,
    /// A subgraph: the body of a loop or a condition.
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<GraphProto>>,
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<GraphProto>,
    /// Which field holds the value: a number of [`attribute_type`].
    #[prost(int32, tag = "20")]
    pub r#type: i32,
}

/// `AttributeProto.AttributeType`
pub mod attribute_type {
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const GRAPH: i32 = 5;
    pub const FLOATS: i32 = 6;
    pub const INTS: i32 = 7;
    pub const STRINGS: i32 = 8;
    pub const GRAPHS: i32 = 10;
}

/// A constant tensor. Its elements are in one of the `*_data` fields, in `raw_data`, or in another
/// file.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// The size of each axis, outermost first.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// Element type: a number of [`data_type`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Also holds the types of 8 and 16 bits, and BOOL.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_data: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    /// Elements in little-endian order. Shares the memory of the file if that is decoded from a
    /// [`Bytes`].
    #[prost(bytes = "bytes", tag = "9")]
    pub raw_data: Bytes,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// The other file, if the elements are in one: `location`, `offset` and `length`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// `TensorProto.DataLocation`: 1 if the elements are in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

impl TensorProto {
    /// Field number of `raw_data`.
    pub const RAW_DATA: u32 = 9;
    /// Field number of `external_data`.
    pub const EXTERNAL_DATA: u32 = 13;
    /// Field number of `data_location`.
    pub const DATA_LOCATION: u32 = 14;

    /// Whether its elements are in another file (ONNX's external data).
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.data_location == 1
    }

    /// Its elements, if they are of INT32 or INT64.
    #[must_use]
    pub fn integers(&self) -> Option<Vec<i64>> {
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

#[derive(Clone, PartialEq, Message)]
pub struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `TensorProto.DataType`: element types.
pub mod data_type {
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT8: i32 = 3;
    pub const UINT16: i32 = 4;
    pub const INT16: i32 = 5;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const STRING: i32 = 8;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
    pub const DOUBLE: i32 = 11;
    pub const UINT32: i32 = 12;
    pub const UINT64: i32 = 13;
    pub const COMPLEX64: i32 = 14;
    pub const COMPLEX128: i32 = 15;
    pub const BFLOAT16: i32 = 16;
    pub const FLOAT8E4M3FN: i32 = 17;
    pub const FLOAT8E4M3FNUZ: i32 = 18;
    pub const FLOAT8E5M2: i32 = 19;
    pub const FLOAT8E5M2FNUZ: i32 = 20;
    pub const UINT4: i32 = 21;
    pub const INT4: i32 = 22;
    pub const FLOAT4E2M1: i32 = 23;
    pub const UINT2: i32 = 25;
    pub const INT2: i32 = 26;

    /// The name of an element type in the schema.
    #[must_use]
    pub fn name(data_type: i32) -> &'static str {
        const NAMES: [&str; 27] = [
            "UNDEFINED",
            "FLOAT",
            "UINT8",
            "INT8",
            "UINT16",
            "INT16",
            "INT32",
            "INT64",
            "STRING",
            "BOOL",
            "FLOAT16",
            "DOUBLE",
            "UINT32",
            "UINT64",
            "COMPLEX64",
            "COMPLEX128",
            "BFLOAT16",
            "FLOAT8E4M3FN",
            "FLOAT8E4M3FNUZ",
            "FLOAT8E5M2",
            "FLOAT8E5M2FNUZ",
            "UINT4",
            "INT4",
            "FLOAT4E2M1",
            "FLOAT8E8M0",
            "UINT2",
            "INT2",
        ];
        usize::try_from(data_type).ok().and_then(|n| NAMES.get(n)).copied().unwrap_or("unknown")
    }

    /// Size of one element in `raw_data`, in bytes; `None` for strings and for types of less than a
    /// byte.
    #[must_use]
    pub fn size(data_type: i32) -> Option<u64> {
        match data_type {
            UINT8 | INT8 | BOOL | FLOAT8E4M3FN..=FLOAT8E5M2FNUZ => Some(1),
            UINT16 | INT16 | FLOAT16 | BFLOAT16 => Some(2),
            FLOAT | INT32 | UINT32 => Some(4),
            INT64 | DOUBLE | UINT64 | COMPLEX64 => Some(8),
            COMPLEX128 => Some(16),
            _ => None,
        }
    }
}

/// The name and the type of a value.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

impl ValueInfoProto {
    /// Its type, if it is a tensor.
    #[must_use]
    pub fn tensor_type(&self) -> Option<&TensorTypeProto> {
        self.r#type.as_ref()?.tensor.as_ref()
    }
}

/// The type of a value. At most one field is set.
#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorTypeProto>,
    #[prost(message, optional, boxed, tag = "4")]
    pub sequence: Option<Box<SequenceTypeProto>>,
    #[prost(message, optional, boxed, tag = "5")]
    pub map: Option<Box<MapTypeProto>>,
    #[prost(message, optional, tag = "8")]
    pub sparse_tensor: Option<TensorTypeProto>,
    #[prost(message, optional, boxed, tag = "9")]
    pub optional: Option<Box<SequenceTypeProto>>,
}

/// `TypeProto.Tensor`, and `TypeProto.SparseTensor`, which has the same fields.
#[derive(Clone, PartialEq, Message)]
pub struct TensorTypeProto {
    /// A number of [`data_type`].
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// `None` where the rank is unknown.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// `TypeProto.Sequence`, and `TypeProto.Optional`, which has the same fields.
#[derive(Clone, PartialEq, Message)]
pub struct SequenceTypeProto {
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// `TypeProto.Map`
#[derive(Clone, PartialEq, Message)]
pub struct MapTypeProto {
    /// A number of [`data_type`].
    #[prost(int32, tag = "1")]
    pub key_type: i32,
    #[prost(message, optional, boxed, tag = "2")]
    pub value_type: Option<Box<TypeProto>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    /// One for each axis, outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: an axis, which is free without a value.
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub value: Option<DimensionValue>,
}

impl Dimension {
    /// Its size, if it is fixed.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match &self.value {
            Some(DimensionValue::Size(size)) => u64::try_from(*size).ok(),
            Some(DimensionValue::Name(_)) | None => None,
        }
    }

    /// Its symbolic name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.value {
            Some(DimensionValue::Name(name)) if !name.is_empty() => Some(name),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Oneof)]
pub enum DimensionValue {
    /// `dim_value`
    #[prost(int64, tag = "1")]
    Size(i64),
    /// `dim_param`: axes with one name have one size.
    #[prost(string, tag = "2")]
    Name(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fields;

    fn field_numbers(message: &impl Message) -> Vec<u32> {
        let bytes = message.encode_to_vec();
        fields(&bytes).map(|field| field.unwrap().number).collect()
    }

    #[test]
    fn field_number_constants_are_those_of_the_messages() {
        let (graph, set) = (GraphProto::default(), OperatorSetIdProto::default());
        let model =
            ModelProto { graph: Some(graph), opset_import: vec![set], ..ModelProto::default() };
        assert_eq!(field_numbers(&model), [ModelProto::GRAPH, ModelProto::OPSET_IMPORT]);
        let graph = GraphProto {
            node: vec![NodeProto::default()],
            initializer: vec![TensorProto::default()],
            output: vec![ValueInfoProto::default()],
            value_info: vec![ValueInfoProto::default()],
            ..GraphProto::default()
        };
        assert_eq!(
            field_numbers(&graph),
            [GraphProto::NODE, GraphProto::INITIALIZER, GraphProto::OUTPUT, GraphProto::VALUE_INFO]
        );
        let node = NodeProto { attribute: vec![AttributeProto::default()], ..NodeProto::default() };
        assert_eq!(field_numbers(&node), [NodeProto::ATTRIBUTE]);
        let tensor = TensorProto {
            raw_data: Bytes::from_static(b"x"),
            external_data: vec![StringStringEntryProto::default()],
            data_location: 1,
            ..TensorProto::default()
        };
        assert_eq!(
            field_numbers(&tensor),
            [TensorProto::RAW_DATA, TensorProto::EXTERNAL_DATA, TensorProto::DATA_LOCATION]
        );
    }

    #[test]
    fn nodes_include_those_of_subgraphs_and_functions() {
        let node = |op_type: &str, g: Option<GraphProto>| {
            let attribute =
                vec![AttributeProto { g: g.map(Box::new), ..AttributeProto::default() }];
            NodeProto { op_type: op_type.into(), attribute, ..NodeProto::default() }
        };
        let graph = |node| GraphProto { node: vec![node], ..GraphProto::default() };
        let graph = graph(node("If", Some(graph(node("Loop", Some(graph(node("Add", None))))))));
        let names: Vec<&str> = graph.nodes().map(|node| node.op_type.as_str()).collect();
        assert_eq!(names, ["If", "Loop", "Add"]);
        let model = ModelProto {
            graph: Some(graph),
            functions: vec![FunctionProto { node: vec![node("Mul", None)] }],
            ..ModelProto::default()
        };
        let names: Vec<&str> = model.nodes().map(|node| node.op_type.as_str()).collect();
        assert_eq!(names, ["If", "Mul", "Loop", "Add"]);
    }
}
