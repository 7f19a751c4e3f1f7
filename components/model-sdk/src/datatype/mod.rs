//! The types of tensor elements.

pub(crate) mod parse;
#[cfg(test)]
mod tests;

use half::{bf16, f16};
use serde::Serialize;

use crate::json_array::ItemKind;

/// The type of a tensor's elements, as in the Open Inference Protocol.
///
/// Inputs and outputs of a graph may have any of them. `wasi:nn` has seven; the others are packed in a
/// tensor of bytes (`wit/wasi-nn`). With [`crate::Model::MAPPING`] the types in `model.toml` may differ from
/// those of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Datatype {
    /// Boolean: one byte, 0 or 1.
    #[serde(rename = "BOOL")]
    Bool,
    /// Signed 8-bit integer.
    #[serde(rename = "INT8")]
    I8,
    /// Signed 16-bit integer.
    #[serde(rename = "INT16")]
    I16,
    /// Signed 32-bit integer.
    #[serde(rename = "INT32")]
    I32,
    /// Signed 64-bit integer.
    #[serde(rename = "INT64")]
    I64,
    /// Unsigned 8-bit integer.
    #[serde(rename = "UINT8")]
    U8,
    /// Unsigned 16-bit integer.
    #[serde(rename = "UINT16")]
    U16,
    /// Unsigned 32-bit integer.
    #[serde(rename = "UINT32")]
    U32,
    /// Unsigned 64-bit integer.
    #[serde(rename = "UINT64")]
    U64,
    /// IEEE 754 half precision.
    #[serde(rename = "FP16")]
    F16,
    /// IEEE 754 single precision.
    #[serde(rename = "FP32")]
    F32,
    /// IEEE 754 double precision.
    #[serde(rename = "FP64")]
    F64,
    /// bfloat16: the upper half of an FP32.
    #[serde(rename = "BF16")]
    Bf16,
    /// Bytes of any number per element. In a graph, UTF-8 strings; in JSON, strings.
    #[serde(rename = "BYTES")]
    Bytes,
}

/// An element in the type that it is written to JSON from.
#[derive(Clone, Copy)]
pub(crate) enum Element {
    F32(f32),
    F64(f64),
    I64(i64),
    /// Above `i64::MAX`.
    U64(u64),
}

impl Datatype {
    /// All datatypes.
    pub(crate) const ALL: [Self; 14] = [
        Self::Bool,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
        Self::Bytes,
    ];

    /// The datatype with this [`Self::name`].
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// Name in the Open Inference Protocol, as in `model.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::I8 => "INT8",
            Self::I16 => "INT16",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
            Self::U8 => "UINT8",
            Self::U16 => "UINT16",
            Self::U32 => "UINT32",
            Self::U64 => "UINT64",
            Self::F16 => "FP16",
            Self::F32 => "FP32",
            Self::F64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }

    /// Whether elements are floating-point numbers. Only they may be missing.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64 | Self::Bf16)
    }

    /// What the elements are in JSON.
    pub(crate) fn kind(self) -> ItemKind {
        match self {
            Self::Bool => ItemKind::Bools,
            Self::Bytes => ItemKind::Strings,
            _ => ItemKind::Numbers,
        }
    }

    /// Size of an element in bytes. For BYTES, the minimum: the size of its length.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 | Self::U32 | Self::Bytes => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Decodes an element of [`Self::size`] bytes. For BYTES, its length.
    pub(crate) fn element(self, bytes: &[u8]) -> Element {
        Element::I64(match self {
            Self::F32 => return Element::F32(f32::from_le_bytes(whole(bytes))),
            Self::F64 => return Element::F64(f64::from_le_bytes(whole(bytes))),
            Self::F16 => return Element::F32(f16::from_le_bytes(whole(bytes)).to_f32()),
            Self::Bf16 => return Element::F32(bf16::from_le_bytes(whole(bytes)).to_f32()),
            Self::U64 => {
                let number = u64::from_le_bytes(whole(bytes));
                return i64::try_from(number).map_or(Element::U64(number), Element::I64);
            }
            Self::Bool | Self::U8 => u8::from_le_bytes(whole(bytes)).into(),
            Self::I8 => i8::from_le_bytes(whole(bytes)).into(),
            Self::I16 => i16::from_le_bytes(whole(bytes)).into(),
            Self::U16 => u16::from_le_bytes(whole(bytes)).into(),
            Self::I32 => i32::from_le_bytes(whole(bytes)).into(),
            Self::U32 | Self::Bytes => u32::from_le_bytes(whole(bytes)).into(),
            Self::I64 => i64::from_le_bytes(whole(bytes)),
        })
    }

    /// Appends the element with these [`Self::bits`].
    pub(crate) fn push_bits(self, bits: u64, data: &mut Vec<u8>) {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "the nearest")]
            Self::F32 => data.extend((f64::from_bits(bits) as f32).to_le_bytes()),
            Self::F16 => data.extend(f16::from_f64(f64::from_bits(bits)).to_le_bytes()),
            Self::Bf16 => data.extend(bf16::from_f64(f64::from_bits(bits)).to_le_bytes()),
            _ => data.extend_from_slice(&bits.to_le_bytes()[..self.size()]),
        }
    }
}

/// `bytes` as an array of the same length.
fn whole<const SIZE: usize>(bytes: &[u8]) -> [u8; SIZE] {
    bytes.first_chunk().copied().unwrap_or([0; SIZE])
}
