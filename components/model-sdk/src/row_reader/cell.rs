//! A value of a row, in JSON or CSV.

use crate::datatype::Datatype;
use crate::datatype::parse::{float32, parse_f32, text};

/// A value as the client wrote it.
#[derive(Clone, Copy)]
pub(crate) enum Cell<'a> {
    Json(&'a str),
    Csv(&'a str),
}

/// A value as [`Rows`](crate::Rows) holds it.
pub(super) enum CellValue {
    /// As FP32, and in 64 bits ([`Datatype::bits`]) for other datatypes.
    Number(f32, u64),
    Text(Vec<u8>),
}

impl Cell<'_> {
    /// Parses the value as FP32.
    ///
    /// # Errors
    /// As [`Datatype::push`].
    #[inline]
    pub(super) fn float32(self) -> Result<f32, &'static str> {
        match self {
            Self::Json(json) => float32(json),
            Self::Csv(cell) => match parse_f32(cell.trim()) {
                Some(number) => Ok(number),
                None => match of_csv(Datatype::F32, cell.trim())? {
                    CellValue::Number(number, _) => Ok(number),
                    CellValue::Text(_) => Err(Datatype::F32.refusal(cell)),
                },
            },
        }
    }

    /// Parses the value as `datatype`.
    ///
    /// # Errors
    /// As [`Datatype::push`].
    pub(super) fn value(self, datatype: Datatype) -> Result<CellValue, &'static str> {
        match (self, datatype) {
            (Self::Json(json), Datatype::Bytes) => {
                Ok(CellValue::Text(text(json)?.into_owned().into()))
            }
            (cell, Datatype::F32) => Ok(CellValue::Number(cell.float32()?, 0)),
            (Self::Json(json), _) => of_bits(datatype, datatype.bits(json)?),
            (Self::Csv(""), _) => missing(datatype),
            (Self::Csv(text), Datatype::Bytes) => Ok(CellValue::Text(text.into())),
            (Self::Csv(cell), _) => {
                let cell = cell.trim();
                match parse_f32(cell) {
                    Some(_) => of_bits(datatype, datatype.bits(cell)?),
                    None => of_csv(datatype, cell),
                }
            }
        }
    }
}

fn of_bits(datatype: Datatype, bits: u64) -> Result<CellValue, &'static str> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the nearest")]
    let number = match datatype {
        Datatype::U64 => bits as f32,
        datatype if datatype.is_float() => f64::from_bits(bits) as f32,
        _ => bits.cast_signed() as f32,
    };
    Ok(CellValue::Number(number, bits))
}

/// Parses a cell that is not a finite number: pandas' spellings of missing values, infinity and booleans.
#[cold]
#[inline(never)]
fn of_csv(datatype: Datatype, cell: &str) -> Result<CellValue, &'static str> {
    match (datatype, cell) {
        (_, "" | "NA" | "N/A" | "n/a" | "#N/A" | "<NA>" | "null" | "NULL" | "None") => {
            missing(datatype)
        }
        (Datatype::Bool, "True" | "true" | "TRUE") => of_bits(datatype, 1),
        (Datatype::Bool, "False" | "false" | "FALSE") => of_bits(datatype, 0),
        // Without a digit, it is NaN, infinity or invalid.
        _ if !cell.bytes().any(|byte| byte.is_ascii_digit()) => match cell.parse::<f64>() {
            Ok(number) if datatype.is_float() => of_bits(datatype, number.to_bits()),
            Ok(number) if number.is_nan() => missing(datatype),
            _ => Err(datatype.refusal(cell)),
        },
        _ => of_bits(datatype, datatype.bits(cell)?),
    }
}

#[cold]
fn missing(datatype: Datatype) -> Result<CellValue, &'static str> {
    of_bits(datatype, datatype.bits("null")?)
}
