//! Descriptions of an input or output: the host's, and ONNX Runtime's.

use std::ffi::CString;

use ort::value::{Outlet, ValueType};
use ort_sys::ONNXTensorElementDataType as ElementType;
use spinfer_backend::{Error, TensorInfo, TensorType};
use spinfer_onnx::{TensorShapeProto, ValueInfoProto, data_type};

use crate::low_precision::LowPrecision;

/// An input or output as ONNX Runtime describes it.
#[derive(Debug)]
pub(crate) struct NativeInfo {
    pub(crate) name: CString,
    /// Element type, a number of `TensorProto.DataType`.
    pub(crate) code: i32,
    /// Element type for the host.
    pub(crate) ty: TensorType,
    /// Conversion between the two, if they differ.
    pub(crate) conversion: Option<LowPrecision>,
}

impl NativeInfo {
    /// The name, for messages.
    pub(crate) fn shown(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

/// Size and symbolic name of each axis, where they are known.
pub(crate) struct Axes {
    pub(crate) axes: Vec<Option<u32>>,
    names: Vec<Option<String>>,
}

pub(crate) fn onnx_element_type(value: &ValueInfoProto) -> Option<i32> {
    value.tensor_type().map(|tensor| tensor.elem_type)
}

pub(crate) fn shape(value: &ValueInfoProto) -> Option<Axes> {
    let TensorShapeProto { dim } = value.tensor_type()?.shape.as_ref()?;
    let axes = dim.iter().map(|axis| axis.size().and_then(|size| u32::try_from(size).ok()));
    let names = dim.iter().map(|axis| axis.name().map(str::to_owned));
    Some(Axes { axes: axes.collect(), names: names.collect() })
}

/// The element type of an output, and its axes: those that ONNX Runtime inferred, if it did.
pub(crate) fn of_output(
    outlet: &Outlet,
    declared: &ValueInfoProto,
) -> Result<(i32, Option<Axes>), Error> {
    let ValueType::Tensor { ty, shape: inferred, dimension_symbols } = outlet.dtype() else {
        return Err(Error::Unsupported(format!(
            "the output `{}` is {}; only tensors can be served",
            declared.name,
            outlet.dtype()
        )));
    };
    let code = onnx_element_type(declared).filter(|&code| code != 0);
    let code = code.unwrap_or_else(|| ort_sys::ONNXTensorElementDataType::from(*ty) as i32);
    // ONNX Runtime reports an unknown shape like that of a scalar.
    if inferred.is_empty() {
        return Ok((code, shape(declared)));
    }
    let axes = inferred.iter().map(|&size| u32::try_from(size).ok()).collect();
    let named = |name: &String| (!name.is_empty()).then(|| name.clone());
    let names = dimension_symbols.iter().map(named).collect();
    Ok((code, Some(Axes { axes, names })))
}

/// Describes an input or output for the host and for ONNX Runtime.
pub(crate) fn describe(
    name: &str,
    code: i32,
    shape: Option<Axes>,
) -> Result<(TensorInfo, NativeInfo), Error> {
    let conversion = LowPrecision::of(code);
    let ty = match code {
        data_type::FLOAT => TensorType::Fp32,
        data_type::UINT8 => TensorType::U8,
        data_type::INT8 => TensorType::I8,
        data_type::UINT16 => TensorType::U16,
        data_type::INT16 => TensorType::I16,
        data_type::INT32 => TensorType::I32,
        data_type::INT64 => TensorType::I64,
        data_type::STRING => TensorType::String,
        data_type::BOOL => TensorType::Bool,
        data_type::FLOAT16 => TensorType::Fp16,
        data_type::DOUBLE => TensorType::Fp64,
        data_type::UINT32 => TensorType::U32,
        data_type::UINT64 => TensorType::U64,
        data_type::BFLOAT16 => TensorType::Bf16,
        _ => conversion.map(LowPrecision::wide).ok_or_else(|| {
            Error::Unsupported(format!(
                "`{name}` is a tensor of {}, which cannot be served",
                data_type::name(code)
            ))
        })?,
    };
    let (shape, axis_names) = match shape {
        Some(Axes { axes, names }) => (Some(axes), names),
        None => (None, Vec::new()),
    };
    let c_name = CString::new(name)
        .map_err(|_| Error::InvalidEncoding(format!("the name {name:?} contains a NUL")))?;
    let info = TensorInfo { name: name.to_owned(), ty, shape, axis_names };
    Ok((info, NativeInfo { name: c_name, code, ty, conversion }))
}

/// ONNX Runtime's number of an element type: that of `TensorProto.DataType`, except for the last
/// ones.
pub(crate) fn element_type(code: i32) -> ElementType {
    const TYPES: [ElementType; 24] = [
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX64,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX128,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FNUZ,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2FNUZ,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT4E2M1,
    ];
    match code {
        spinfer_onnx::data_type::UINT2 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT2,
        spinfer_onnx::data_type::INT2 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT2,
        code => usize::try_from(code)
            .ok()
            .and_then(|code| TYPES.get(code).copied())
            .unwrap_or(ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED),
    }
}
