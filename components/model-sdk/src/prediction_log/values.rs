//! Converts elements of tensors and rows to the datatypes of the prediction log.

use std::borrow::Cow;

use crate::byte_strings::split_bytes;
use crate::datatype::{Datatype, Element};
use crate::rows::Rows;

/// The values of columns, row by row.
pub(super) enum ColumnValues<'a> {
    Fp32(Cow<'a, [f32]>),
    Fp64(Vec<f64>),
    Int64(Vec<i64>),
    Boolean(Vec<bool>),
    Text(Vec<Cow<'a, str>>),
}

/// The elements of a tensor. `None` if the log cannot represent one: bytes that are not UTF-8, or integers
/// above `i64::MAX`.
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
    /// The elements `start..start + own` of each row as values of an input of `datatype`. A row has `width`
    /// strings if that is BYTES, and `width` numbers otherwise. `None` as for [`values`].
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

    /// The numbers in 64 bits. `None` if all are FP32.
    fn wide(&self) -> Option<&'a [u64]> {
        (!self.wide.is_empty()).then_some(self.wide)
    }
}

/// The elements `start..start + own` of each row of `width`.
#[derive(Clone, Copy)]
struct ColumnRange {
    width: usize,
    start: usize,
    own: usize,
}

impl ColumnRange {
    /// Selects the elements.
    fn of<T>(self, values: &[T]) -> impl Iterator<Item = &T> {
        let Self { width, start, own } = self;
        values.chunks_exact(width.max(1)).flat_map(move |row| &row[start..start + own])
    }
}

impl<'a> ColumnValues<'a> {
    /// The number of values.
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
