//! `ZipMap` makes a map from class label to probability for each row. `wasi:nn` has tensors only, so
//! the node is taken out: its output is the tensor of probabilities it would have read, under the
//! output's name.

use spinfer_backend::Error;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto::{Tensor, Value};
use tract_onnx::pb::{GraphProto, NodeProto, TensorShapeProto, TypeProto};

/// Takes out every `ZipMap`.
pub(crate) fn remove(graph: &mut GraphProto) -> Result<(), Error> {
    for node in graph.node.iter_mut().filter(|node| node.op_type == "ZipMap") {
        let (Some(name), [_]) = (node.output.first(), &node.input[..]) else {
            return Err(Error::InvalidEncoding(format!(
                "node `{}` (ZipMap) is not valid ONNX: it has one input and one output",
                node.name
            )));
        };
        for output in graph.output.iter_mut().filter(|output| output.name == *name) {
            output.r#type = Some(TypeProto { value: Some(scores(node)), ..TypeProto::default() });
        }
        node.op_type = "Identity".into();
        node.domain.clear();
        node.attribute.clear();
    }
    Ok(())
}

/// `[rows, labels]` of FP32.
fn scores(node: &NodeProto) -> Value {
    let labels = node.attribute.iter().map(|a| a.ints.len() + a.strings.len()).sum::<usize>();
    let size = i64::try_from(labels).ok().map(dimension::Value::DimValue);
    let dim = vec![
        Dimension { value: None, ..Dimension::default() },
        Dimension { value: size, ..Dimension::default() },
    ];
    let shape = Some(TensorShapeProto { dim });
    Value::TensorType(Tensor { elem_type: DataType::Float.into(), shape })
}
