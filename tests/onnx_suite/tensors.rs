//! Values of a case as tensors for a backend, and tensors as numbers.

use std::fmt;

use half::{bf16, f16};
use spinfer_backend::{Tensor, TensorType, strings};

use crate::case::Value;

/// The host's type for an `element_type` of a graph, if it has one.
pub(crate) fn edge_type(element_type: u32) -> Option<TensorType> {
    Some(match element_type {
        1 => TensorType::Fp32,
        2 => TensorType::U8,
        3 => TensorType::I8,
        4 => TensorType::U16,
        5 => TensorType::I16,
        6 => TensorType::I32,
        7 => TensorType::I64,
        8 => TensorType::String,
        9 => TensorType::Bool,
        10 => TensorType::Fp16,
        11 => TensorType::Fp64,
        12 => TensorType::U32,
        13 => TensorType::U64,
        16 => TensorType::Bf16,
        // UINT4 and UINT2, INT4 and INT2.
        21 | 25 => TensorType::U8,
        22 | 26 => TensorType::I8,
        // FLOAT8 of five kinds, FLOAT4.
        17..=20 | 23 | 24 => TensorType::Fp32,
        _ => return None,
    })
}

/// `value` as a tensor of the host, if it is one.
pub(crate) fn tensor(value: &Value) -> Option<Tensor> {
    let Value::Tensor { element_type, shape, data } = value else { return None };
    Some(Tensor { dimensions: shape.clone(), ty: edge_type(*element_type)?, data: data.clone() })
}

/// One element of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Element {
    Float(f64),
    Integer(i128),
    String(Vec<u8>),
}

impl Element {
    pub(crate) fn size(&self) -> f64 {
        match self {
            Self::Float(value) => value.abs(),
            #[expect(clippy::cast_precision_loss, reason = "an order of magnitude")]
            Self::Integer(value) => value.abs() as f64,
            Self::String(_) => 0.0,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The digits of FP32, which are the same on every machine.
            #[expect(clippy::cast_possible_truncation, reason = "shown alone")]
            Self::Float(value) => write!(f, "{}", *value as f32),
            Self::Integer(value) => write!(f, "{value}"),
            Self::String(value) => write!(f, "{:?}", String::from_utf8_lossy(value)),
        }
    }
}

/// The elements of a tensor, in row-major order.
pub(crate) fn elements(Tensor { ty, data, .. }: &Tensor) -> Vec<Element> {
    match ty {
        TensorType::Fp32 => each(data, |b| Element::Float(f32::from_le_bytes(b).into())),
        TensorType::Fp64 => each(data, |b| Element::Float(f64::from_le_bytes(b))),
        TensorType::Fp16 => each(data, |b| Element::Float(f16::from_le_bytes(b).into())),
        TensorType::Bf16 => each(data, |b| Element::Float(bf16::from_le_bytes(b).into())),
        TensorType::U8 | TensorType::Bool => {
            each(data, |b| Element::Integer(u8::from_le_bytes(b).into()))
        }
        TensorType::I8 => each(data, |b| Element::Integer(i8::from_le_bytes(b).into())),
        TensorType::I16 => each(data, |b| Element::Integer(i16::from_le_bytes(b).into())),
        TensorType::U16 => each(data, |b| Element::Integer(u16::from_le_bytes(b).into())),
        TensorType::I32 => each(data, |b| Element::Integer(i32::from_le_bytes(b).into())),
        TensorType::U32 => each(data, |b| Element::Integer(u32::from_le_bytes(b).into())),
        TensorType::I64 => each(data, |b| Element::Integer(i64::from_le_bytes(b).into())),
        TensorType::U64 => each(data, |b| Element::Integer(u64::from_le_bytes(b).into())),
        TensorType::String => strings(data)
            .map(|string| Element::String(string.expect("strings are whole").to_vec()))
            .collect(),
    }
}

fn each<const N: usize>(data: &[u8], one: impl Fn([u8; N]) -> Element) -> Vec<Element> {
    let (chunks, rest) = data.as_chunks::<N>();
    assert!(rest.is_empty(), "{} bytes are not a multiple of {N}", data.len());
    chunks.iter().map(|chunk| one(*chunk)).collect()
}
