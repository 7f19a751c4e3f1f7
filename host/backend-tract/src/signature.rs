//! A graph's inputs and outputs as its ONNX file declares them, under its own names.

use spinfer_backend::{Error, TensorInfo, TensorType};
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{
    GraphProto, ModelProto, TensorShapeProto, ValueInfoProto, tensor_proto::DataType,
    tensor_shape_proto,
};
use tract_onnx::prelude::DatumType;

/// Inputs and outputs, in the graph's order. An initializer is not an input, even where an old
/// file lists it as one.
pub(crate) fn read(graph: &GraphProto) -> Result<(Vec<TensorInfo>, Vec<TensorInfo>), Error> {
    let inputs = graph
        .input
        .iter()
        .filter(|input| !graph.initializer.iter().any(|constant| constant.name == input.name))
        .map(|input| tensor_info("input", input))
        .collect::<Result<_, _>>()?;
    let outputs = graph
        .output
        .iter()
        .map(|output| tensor_info("output", output))
        .collect::<Result<_, _>>()?;
    Ok((inputs, outputs))
}

fn tensor_info(kind: &str, value: &ValueInfoProto) -> Result<TensorInfo, Error> {
    let name = &value.name;
    let Some(Type::TensorType(tensor)) = value.r#type.as_ref().and_then(|ty| ty.value.as_ref())
    else {
        return Err(Error::Unsupported(format!(
            "{kind} `{name}` is not a tensor, and wasi:nn has no sequences and maps"
        )));
    };
    let ty = match DataType::try_from(tensor.elem_type) {
        Ok(DataType::Float16) => TensorType::Fp16,
        Ok(DataType::Float) => TensorType::Fp32,
        Ok(DataType::Double) => TensorType::Fp64,
        Ok(DataType::Bfloat16) => TensorType::Bf16,
        Ok(DataType::Uint8) => TensorType::U8,
        Ok(DataType::Int32) => TensorType::I32,
        Ok(DataType::Int64) => TensorType::I64,
        Ok(DataType::String) => {
            return Err(Error::Unsupported(format!(
                "{kind} `{name}` holds strings, which wasi:nn does not carry; use integers, as the \
                 indices of labels"
            )));
        }
        other => {
            let other =
                other.map_or_else(|_| tensor.elem_type.to_string(), |known| format!("{known:?}"));
            return Err(Error::Unsupported(format!(
                "{kind} `{name}` has element type {other}, which wasi:nn does not carry (it has FP16, \
                 FP32, FP64, BF16, U8, I32, I64)"
            )));
        }
    };
    datum_type(ty)?;
    let shape = tensor.shape.as_ref().map(shape).transpose().map_err(|axes| {
        Error::Unsupported(format!("{kind} `{name}` has more elements than memory, with {axes:?}"))
    })?;
    Ok(TensorInfo { name: name.clone(), ty, shape })
}

/// The axes, of which those that are free or negative are `None`. Fails with the fixed ones if no tensor
/// can have them.
fn shape(shape: &TensorShapeProto) -> Result<Vec<Option<u32>>, Vec<i64>> {
    /// Elements of one tensor.
    const MAX_ELEMENTS: i64 = 1 << 40;
    let size = |axis: &tensor_shape_proto::Dimension| match axis.value {
        Some(Dimension::DimValue(size)) if size >= 0 => Some(size),
        Some(Dimension::DimValue(_) | Dimension::DimParam(_)) | None => None,
    };
    let axes: Vec<Option<i64>> = shape.dim.iter().map(size).collect();
    let fixed = || axes.iter().copied().flatten();
    let elements = fixed().try_fold(1i64, |product, size| product.checked_mul(size.max(1)));
    if elements.is_none_or(|elements| elements > MAX_ELEMENTS) {
        return Err(fixed().collect());
    }
    let narrow = |size: Option<i64>| size.map(u32::try_from).transpose();
    axes.iter().map(|&axis| narrow(axis)).collect::<Result<_, _>>().map_err(|_| fixed().collect())
}

/// What the unnamed first axes of a graph's inputs are taken for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstAxis {
    OfItsOwn,
    Batch,
}

/// Gives every free axis of an input that has no name one, as tract cannot plan without.
pub(crate) fn name_free_axes(proto: &mut ModelProto, first: FirstAxis) {
    let Some(graph) = &mut proto.graph else { return };
    for (index, input) in graph.input.iter_mut().enumerate() {
        let Some(Type::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
        else {
            continue;
        };
        let axes = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).enumerate();
        for (axis, dim) in axes {
            let free = match &dim.value {
                None => true,
                Some(Dimension::DimValue(size)) => *size < 0,
                Some(Dimension::DimParam(name)) => name.is_empty() || name == "?",
            };
            if free {
                let name = if axis == 0 && first == FirstAxis::Batch {
                    "batch".into()
                } else {
                    format!("input_{index}_axis_{axis}")
                };
                dim.value = Some(Dimension::DimParam(name));
            }
        }
    }
}

/// tract's name for an element type.
pub(crate) fn datum_type(ty: TensorType) -> Result<DatumType, Error> {
    match ty {
        TensorType::Fp16 => Ok(DatumType::F16),
        TensorType::Fp32 => Ok(DatumType::F32),
        TensorType::Fp64 => Ok(DatumType::F64),
        TensorType::U8 => Ok(DatumType::U8),
        TensorType::I32 => Ok(DatumType::I32),
        TensorType::I64 => Ok(DatumType::I64),
        TensorType::Bf16 => {
            Err(Error::Unsupported("tract has no BF16; convert the model to FP32 or FP16".into()))
        }
    }
}
