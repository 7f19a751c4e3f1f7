//! The input and the outputs of a graph, as the file declares them.

use std::collections::HashSet;

use spinfer_backend::{Error, TensorInfo, TensorType};

use spinfer_onnx::{Dimension, GraphProto, ValueInfoProto, data_type};

/// The input, and the size of each axis after the batch.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) info: TensorInfo,
    pub(crate) tail: Vec<usize>,
}

/// The input of a graph with one input, whose axes after the batch are fixed.
pub(crate) fn input(graph: &GraphProto) -> Result<Input, Error> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut inputs = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        return Err(unsupported("lean covers graphs with one input"));
    };
    let name = &input.name;
    let ty = ty(input).ok_or_else(|| {
        unsupported(format!("lean covers FP32, FP64, I32 and I64, not the type of input `{name}`"))
    })?;
    let shape = shape(input).filter(|shape| shape.len() >= 2).ok_or_else(|| {
        unsupported(format!(
            "lean covers inputs of two axes or more, not the shape of input `{name}`"
        ))
    })?;
    let tail = shape[1..]
        .iter()
        .map(|axis| axis.filter(|&size| size > 0).map(|size| size as usize))
        .collect::<Option<Vec<usize>>>()
        .ok_or_else(|| {
            unsupported(format!(
                "lean covers free first axes; another axis of input `{name}` is free or of size 0"
            ))
        })?;
    let info = TensorInfo { name: name.clone(), ty, shape: Some(shape), axis_names: Vec::new() };
    Ok(Input { info, tail })
}

/// Size of one element of a type this backend computes with, in bytes.
pub(crate) fn element_size(ty: TensorType) -> usize {
    ty.size().unwrap_or_default()
}

/// The declared element type of a value, if this backend computes with it.
pub(crate) fn ty(value: &ValueInfoProto) -> Option<TensorType> {
    match value.tensor_type()?.elem_type {
        data_type::FLOAT => Some(TensorType::Fp32),
        data_type::DOUBLE => Some(TensorType::Fp64),
        data_type::INT32 => Some(TensorType::I32),
        data_type::INT64 => Some(TensorType::I64),
        _ => None,
    }
}

fn shape(value: &ValueInfoProto) -> Option<Vec<Option<u32>>> {
    let shape = value.tensor_type()?.shape.as_ref()?;
    let size = |axis: &Dimension| axis.size().and_then(|size| u32::try_from(size).ok());
    Some(shape.dim.iter().map(size).collect())
}

fn unsupported(why: impl Into<String>) -> Error {
    Error::Unsupported(why.into())
}
