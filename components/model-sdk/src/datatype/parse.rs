//! Parses values in JSON and CSV as elements.

use half::{bf16, f16};

use super::Datatype;
use crate::byte_strings::push_bytes;
use crate::json::{self, INFINITY, NEGATIVE_INFINITY};

impl Datatype {
    /// Appends the element that a JSON number (string, boolean) stands for.
    ///
    /// # Errors
    /// With what is wrong with it, to follow the value in a message.
    pub(crate) fn push(self, json: &str, data: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Self::F32 => data.extend(float32(json)?.to_le_bytes()),
            Self::Bytes => push_bytes(text(json)?.as_bytes(), data),
            _ => self.push_bits(self.bits(json)?, data),
        }
        Ok(())
    }

    /// A JSON number or boolean in 64 bits: an integer in two's complement, a floating-point number as
    /// FP64.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(crate) fn bits(self, json: &str) -> Result<u64, &'static str> {
        let bits = if self.is_float() { self.float_bits(json) } else { self.integer_bits(json) };
        bits.ok_or_else(|| self.refusal(json))
    }

    fn float_bits(self, json: &str) -> Option<u64> {
        let Some(number) = parse_f64(json) else { return Some(special(json)?.to_bits()) };
        #[expect(clippy::cast_possible_truncation, reason = "only its range is checked")]
        let in_range = match self {
            Self::F32 => (number as f32).is_finite(),
            Self::F16 => f16::from_f64(number).is_finite(),
            Self::Bf16 => bf16::from_f64(number).is_finite(),
            _ => true,
        };
        in_range.then(|| number.to_bits())
    }

    fn integer_bits(self, json: &str) -> Option<u64> {
        /// From here on FP64 cannot represent every integer, so a number may have been rounded.
        const INTEGERS: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        let integer: i64 = match json.parse() {
            Ok(integer) => integer,
            Err(_) if self == Self::Bool && matches!(json, "true" | "false") => {
                i64::from(json == "true")
            }
            Err(_) => match json.parse() {
                Ok(integer) if self == Self::U64 => return Some(integer),
                _ => {
                    // 5.0 is 5, as in JavaScript.
                    let number = parse_f64(json)?;
                    let whole = number.fract() == 0.0 && number.abs() < INTEGERS;
                    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
                    whole.then_some(number as i64)?
                }
            },
        };
        let in_range = match self {
            Self::Bool => matches!(integer, 0 | 1),
            Self::I8 => i8::try_from(integer).is_ok(),
            Self::I16 => i16::try_from(integer).is_ok(),
            Self::I32 => i32::try_from(integer).is_ok(),
            Self::U8 => u8::try_from(integer).is_ok(),
            Self::U16 => u16::try_from(integer).is_ok(),
            Self::U32 => u32::try_from(integer).is_ok(),
            Self::U64 => integer >= 0,
            _ => true,
        };
        in_range.then_some(integer.cast_unsigned())
    }

    /// Why `json`, or a CSV cell, is not a value of this datatype; follows the value in a message.
    #[cold]
    pub(crate) fn refusal(self, json: &str) -> &'static str {
        let missing = matches!(json, "" | "null");
        let number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        match self {
            Self::Bool if missing => {
                "is a missing value; only floating-point inputs can have one: write true or false"
            }
            Self::Bytes if missing => {
                "is a missing value; only floating-point inputs can have one: write a string"
            }
            _ if missing => {
                "is a missing value; only floating-point inputs can have one: write an integer"
            }
            Self::Bool => "is not true or false (BOOL)",
            Self::Bytes if json.starts_with('"') => "is not a Unicode string (BYTES)",
            Self::Bytes => "is not a string (BYTES)",
            Self::I8 => "is not an integer from -128 to 127 (INT8)",
            Self::I16 => "is not a 16-bit integer (INT16)",
            Self::I32 => "is not a 32-bit integer (INT32)",
            Self::I64 => "is not a 64-bit integer (INT64)",
            Self::U8 => "is not an integer from 0 to 255 (UINT8)",
            Self::U16 => "is not an integer from 0 to 65535 (UINT16)",
            Self::U32 => "is not an unsigned 32-bit integer (UINT32)",
            Self::U64 => "is not an unsigned 64-bit integer (UINT64)",
            Self::F16 if number => "is out of range for FP16",
            Self::F32 if number => "is out of range for FP32",
            Self::F64 if number => "is out of range for FP64",
            Self::Bf16 if number => "is out of range for BF16",
            Self::F16 => "is not a number (FP16)",
            Self::F32 => "is not a number (FP32)",
            Self::F64 => "is not a number (FP64)",
            Self::Bf16 => "is not a number (BF16)",
        }
    }
}

/// Parses a JSON number as FP32.
///
/// # Errors
/// As [`Datatype::push`].
#[inline]
pub(crate) fn float32(json: &str) -> Result<f32, &'static str> {
    match parse_f32(json) {
        Some(number) => Ok(number),
        None => special_f32(json),
    }
}

#[cold]
#[inline(never)]
fn special_f32(json: &str) -> Result<f32, &'static str> {
    #[expect(clippy::cast_possible_truncation, reason = "NaN and infinities are exact")]
    special(json).map(|number| number as f32).ok_or_else(|| Datatype::F32.refusal(json))
}

/// Decodes a JSON string.
///
/// # Errors
/// As [`Datatype::push`].
pub(crate) fn text(json: &str) -> Result<std::borrow::Cow<'_, str>, &'static str> {
    json::string(json).ok_or_else(|| Datatype::Bytes.refusal(json))
}

/// The values that are not finite numbers: `null` is a missing value.
#[cold]
fn special(json: &str) -> Option<f64> {
    match json {
        "null" => Some(f64::NAN),
        INFINITY => Some(f64::INFINITY),
        NEGATIVE_INFINITY => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The nearest FP32. `None` if that is not finite.
pub(crate) fn parse_f32(number: &str) -> Option<f32> {
    number.parse().ok().filter(|number: &f32| number.is_finite())
}

fn parse_f64(number: &str) -> Option<f64> {
    number.parse().ok().filter(|number: &f64| number.is_finite())
}
