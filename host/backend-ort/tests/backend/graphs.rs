//! Small graphs, made here.

use prost::Message;
use spinfer_onnx::{
    Attribute, Dimension, DimensionValue, Graph, Model, Node, OperatorSetId, Shape, Tensor,
    TensorType, Type, ValueInfo,
};

/// A node of the standard operators.
pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Node {
        op_type: operator.into(),
        name: format!("secret-{}", outputs.concat()),
        input: strings(inputs),
        output: strings(outputs),
        ..Node::default()
    }
}

/// The same, of `ai.onnx.ml`.
pub(crate) fn ml(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    Node { domain: "ai.onnx.ml".into(), ..node(operator, inputs, outputs) }
}

pub(crate) fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i, r#type: 2, ..Attribute::default() }
}

pub(crate) fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: ints.to_vec(), r#type: 7, ..Attribute::default() }
}

pub(crate) fn graph_attribute(name: &str, g: Graph) -> Attribute {
    Attribute { name: name.into(), g: Some(Box::new(g)), r#type: 5, ..Attribute::default() }
}

pub(crate) fn shape(axes: &[&str]) -> Shape {
    let axis = |axis: &&str| Dimension {
        value: Some(match axis.parse() {
            Ok(size) => DimensionValue::Size(size),
            Err(_) => DimensionValue::Name((*axis).to_owned()),
        }),
    };
    Shape { dim: axes.iter().map(axis).collect() }
}

/// A value: a tensor of an element type, with axes that are sizes or names.
pub(crate) fn value(name: &str, elem_type: i32, axes: &[&str]) -> ValueInfo {
    let tensor = TensorType { elem_type, shape: Some(shape(axes)) };
    typed(name, Type { tensor: Some(tensor), ..Type::default() })
}

pub(crate) fn typed(name: &str, ty: Type) -> ValueInfo {
    ValueInfo { name: name.into(), r#type: Some(ty) }
}

pub(crate) fn int64s(name: &str, dims: &[i64], int64_data: &[i64]) -> Tensor {
    let (dims, int64_data) = (dims.to_vec(), int64_data.to_vec());
    Tensor { name: name.into(), dims, data_type: 7, int64_data, ..Tensor::default() }
}

pub(crate) fn floats(name: &str, dims: &[i64], float_data: &[f32]) -> Tensor {
    let (dims, float_data) = (dims.to_vec(), float_data.to_vec());
    Tensor { name: name.into(), dims, data_type: 1, float_data, ..Tensor::default() }
}

pub(crate) fn graph(
    node: Vec<Node>,
    input: Vec<ValueInfo>,
    output: Vec<ValueInfo>,
    initializer: Vec<Tensor>,
) -> Graph {
    Graph { node, name: "graph".into(), initializer, input, output }
}

/// The bytes of a model of this graph.
pub(crate) fn model(graph: Graph) -> Vec<u8> {
    let opset = |domain: &str, version| OperatorSetId { domain: domain.into(), version };
    let opset_import = vec![opset("", 21), opset("ai.onnx.ml", 3)];
    Model { ir_version: 10, graph: Some(graph), opset_import, ..Model::default() }.encode_to_vec()
}
