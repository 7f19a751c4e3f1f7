//! Builds small graphs.

use prost::Message;
use spinfer_onnx::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
    attribute_type, data_type,
};

/// A node of the standard operators.
pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        op_type: operator.into(),
        name: format!("secret-{}", outputs.concat()),
        input: strings(inputs),
        output: strings(outputs),
        ..NodeProto::default()
    }
}

/// A node of an operator of `ai.onnx.ml`.
pub(crate) fn ml(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: "ai.onnx.ml".into(), ..node(operator, inputs, outputs) }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i,
        r#type: attribute_type::INT,
        ..AttributeProto::default()
    }
}

pub(crate) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: ints.to_vec(),
        r#type: attribute_type::INTS,
        ..AttributeProto::default()
    }
}

pub(crate) fn graph_attribute(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        g: Some(Box::new(g)),
        r#type: attribute_type::GRAPH,
        ..AttributeProto::default()
    }
}

pub(crate) fn shape(axes: &[&str]) -> TensorShapeProto {
    let axis = |axis: &&str| Dimension {
        value: Some(match axis.parse() {
            Ok(size) => DimensionValue::Size(size),
            Err(_) => DimensionValue::Name((*axis).to_owned()),
        }),
    };
    TensorShapeProto { dim: axes.iter().map(axis).collect() }
}

/// A tensor of an element type. Each axis is a size or a name.
pub(crate) fn value(name: &str, elem_type: i32, axes: &[&str]) -> ValueInfoProto {
    let tensor = TensorTypeProto { elem_type, shape: Some(shape(axes)) };
    typed(name, TypeProto { tensor: Some(tensor), ..TypeProto::default() })
}

pub(crate) fn typed(name: &str, ty: TypeProto) -> ValueInfoProto {
    ValueInfoProto { name: name.into(), r#type: Some(ty) }
}

pub(crate) fn int64s(name: &str, dims: &[i64], int64_data: &[i64]) -> TensorProto {
    let (dims, int64_data) = (dims.to_vec(), int64_data.to_vec());
    TensorProto {
        name: name.into(),
        dims,
        data_type: data_type::INT64,
        int64_data,
        ..TensorProto::default()
    }
}

pub(crate) fn floats(name: &str, dims: &[i64], float_data: &[f32]) -> TensorProto {
    let (dims, float_data) = (dims.to_vec(), float_data.to_vec());
    TensorProto {
        name: name.into(),
        dims,
        data_type: data_type::FLOAT,
        float_data,
        ..TensorProto::default()
    }
}

pub(crate) fn graph(
    node: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
) -> GraphProto {
    GraphProto { node, name: "graph".into(), initializer, input, output, ..GraphProto::default() }
}

/// The encoded model of a graph.
pub(crate) fn model(graph: GraphProto) -> Vec<u8> {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let opset_import = vec![opset("", 21), opset("ai.onnx.ml", 3)];
    ModelProto { ir_version: 10, graph: Some(graph), opset_import, ..ModelProto::default() }
        .encode_to_vec()
}
