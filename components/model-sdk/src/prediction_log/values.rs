//! Elements of tensors and rows as the prediction log takes them: of fewer datatypes.

use std::borrow::Cow;

use crate::byte_strings::split_bytes;
use crate::datatype::{Datatype, Element};
use crate::rows::Rows;

/// Row after row.
pub(super) enum ColumnValues<'a> {
    Fp32(Cow<'a, [f32]>),
    Fp64(Vec<f64>),
    Int64(Vec<i64>),
    Boolean(Vec<bool>),
    Text(Vec<Cow<'a, str>>),
}

/// The elements of a tensor; `None` if the log has no value for some: bytes that are no text, and integers
/// above those of 64 bits with a sign.
pub(super) fn values(datatype: Datatype, data: &[u8]) -> Option<ColumnValues<'_>> {
    let elements = || data.chunks_exact(datatype.size());
    Some(match datatype {
        Datatype::F32 => {
            let (elements, _) = data.as_chunks();
            ColumnValues::Fp32(
                elements.iter().map(|&element| f32::from_le_bytes(element)).collect(),
            )
        }
        Datatype::Bool => ColumnValues::Boolean(data.iter().map(|&byte| byte != 0).collect()),
        Datatype::Bytes => ColumnValues::Text(
            split_bytes(data)
                .map(|element| Some(str::from_utf8(element?).ok()?.into()))
                .collect::<Option<_>>()?,
        ),
        Datatype::F64 => {
            let (elements, _) = data.as_chunks();
            ColumnValues::Fp64(
                elements.iter().map(|&element| f64::from_le_bytes(element)).collect(),
            )
        }
        Datatype::F16 | Datatype::Bf16 => ColumnValues::Fp32(
            elements()
                .map(|element| match datatype.element(element) {
                    Element::F32(number) => number,
                    Element::F64(_) | Element::I64(_) | Element::U64(_) => f32::NAN,
                })
                .collect(),
        ),
        Datatype::I8
        | Datatype::I16
        | Datatype::I32
        | Datatype::I64
        | Datatype::U8
        | Datatype::U16
        | Datatype::U32
        | Datatype::U64 => ColumnValues::Int64(
            elements()
                .map(|element| match datatype.element(element) {
                    Element::I64(number) => Some(number),
                    Element::F32(_) | Element::F64(_) | Element::U64(_) => None,
                })
                .collect::<Option<_>>()?,
        ),
    })
}

impl<'a> Rows<'a> {
    /// `own` elements of each row of `width`, from `start` on, as of an input of `datatype`. `width` and
    /// `start` count strings if it is BYTES, and numbers otherwise. `None` as of [`values`].
    pub(super) fn values(
        &self,
        datatype: Datatype,
        width: usize,
        start: usize,
        own: usize,
    ) -> Option<ColumnValues<'a>> {
        let part = ColumnRange { width, start, own };
        Some(match datatype {
            Datatype::F32 | Datatype::F16 | Datatype::Bf16 if own == width => {
                ColumnValues::Fp32(self.features.into())
            }
            Datatype::F32 | Datatype::F16 | Datatype::Bf16 => {
                ColumnValues::Fp32(part.of(self.features).copied().collect())
            }
            Datatype::F64 => ColumnValues::Fp64(
                part.of(self.wide()?).map(|&bits| f64::from_bits(bits)).collect(),
            ),
            Datatype::Bool => {
                ColumnValues::Boolean(part.of(self.features).map(|&flag| flag != 0.0).collect())
            }
            Datatype::Bytes => ColumnValues::Text(
                part.of(self.bytes)
                    .map(|string| Some(str::from_utf8(string).ok()?.into()))
                    .collect::<Option<_>>()?,
            ),
            Datatype::U64 => {
                let numbers = part.of(self.wide()?).map(|&number| i64::try_from(number).ok());
                ColumnValues::Int64(numbers.collect::<Option<_>>()?)
            }
            Datatype::I8
            | Datatype::I16
            | Datatype::I32
            | Datatype::I64
            | Datatype::U8
            | Datatype::U16
            | Datatype::U32 => ColumnValues::Int64(
                part.of(self.wide()?).map(|number| number.cast_signed()).collect(),
            ),
        })
    }

    /// The numbers in 64 bits; `None` if every one is FP32.
    fn wide(&self) -> Option<&'a [u64]> {
        (!self.wide.is_empty()).then_some(self.wide)
    }
}

/// Elements of each row.
#[derive(Clone, Copy)]
struct ColumnRange {
    width: usize,
    start: usize,
    own: usize,
}

impl ColumnRange {
    fn of<T>(self, values: &[T]) -> impl Iterator<Item = &T> {
        let Self { width, start, own } = self;
        values.chunks_exact(width.max(1)).flat_map(move |row| &row[start..start + own])
    }
}

impl<'a> ColumnValues<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fp32(values) => values.len(),
            Self::Fp64(values) => values.len(),
            Self::Int64(values) => values.len(),
            Self::Boolean(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    pub(super) fn into_owned(self) -> ColumnValues<'static> {
        match self {
            Self::Fp32(values) => ColumnValues::Fp32(values.into_owned().into()),
            Self::Fp64(values) => ColumnValues::Fp64(values),
            Self::Int64(values) => ColumnValues::Int64(values),
            Self::Boolean(values) => ColumnValues::Boolean(values),
            Self::Text(values) => ColumnValues::Text(
                values.into_iter().map(|text| text.into_owned().into()).collect(),
            ),
        }
    }
}
