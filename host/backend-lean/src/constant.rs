//! Constants of a graph.

use spinfer_onnx::{TensorProto, data_type};

/// Elements of a constant, of the types that this backend computes with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Elements {
    Float(Vec<f32>),
    Double(Vec<f64>),
    /// INT64, and INT32 widened.
    Int(Vec<i64>),
}

impl Elements {
    fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::Int(values) => values.len(),
        }
    }
}

/// A constant: an initializer, or the output of a `Constant` node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    pub(crate) dims: Vec<usize>,
    pub(crate) elements: Elements,
}

impl Constant {
    /// Decodes a tensor; the error is the reason why it cannot be.
    pub(crate) fn read(tensor: &TensorProto) -> Result<Self, String> {
        if tensor.data_location != 0 {
            return Err("its elements are in another file".into());
        }
        let elements = match tensor.data_type {
            data_type::FLOAT => Elements::Float(if tensor.raw_data.is_empty() {
                tensor.float_data.clone()
            } else {
                raw(&tensor.raw_data, f32::from_le_bytes)?
            }),
            data_type::DOUBLE => Elements::Double(if tensor.raw_data.is_empty() {
                tensor.double_data.clone()
            } else {
                raw(&tensor.raw_data, f64::from_le_bytes)?
            }),
            data_type::INT32 => Elements::Int(if tensor.raw_data.is_empty() {
                tensor.int32_data.iter().map(|&x| i64::from(x)).collect()
            } else {
                raw(&tensor.raw_data, |bytes| i64::from(i32::from_le_bytes(bytes)))?
            }),
            data_type::INT64 => Elements::Int(if tensor.raw_data.is_empty() {
                tensor.int64_data.clone()
            } else {
                raw(&tensor.raw_data, i64::from_le_bytes)?
            }),
            other => return Err(format!("its element type is {other} (TensorProto.DataType)")),
        };
        let dims = tensor
            .dims
            .iter()
            .map(|&dim| usize::try_from(dim))
            .collect::<Result<Vec<usize>, _>>()
            .map_err(|_| format!("its shape is {:?}", tensor.dims))?;
        let expected = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if expected != Some(elements.len()) {
            return Err(format!("its shape is {dims:?}, but it has {} elements", elements.len()));
        }
        Ok(Self { dims, elements })
    }

    pub(crate) fn floats(&self) -> Option<&[f32]> {
        if let Elements::Float(values) = &self.elements { Some(values) } else { None }
    }

    pub(crate) fn ints(&self) -> Option<&[i64]> {
        if let Elements::Int(values) = &self.elements { Some(values) } else { None }
    }
}

fn raw<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() {
        Ok(chunks.iter().map(|&chunk| from(chunk)).collect())
    } else {
        Err(format!("its {} bytes are not a whole number of elements", bytes.len()))
    }
}
