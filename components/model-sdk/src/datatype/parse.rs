//! Parses values in JSON and CSV as elements.

use half::{bf16, f16};

use super::Datatype;
use crate::byte_strings::push_bytes;
use crate::json;

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
        let integer: i64 = match json.parse() {
            Ok(integer) => integer,
            Err(_) if self == Self::Bool && matches!(json, "true" | "false") => {
                i64::from(json == "true")
            }
            Err(_) => {
                let integer = integer(json)?;
                match i64::try_from(integer) {
                    Ok(integer) => integer,
                    Err(_) if self == Self::U64 => return u64::try_from(integer).ok(),
                    Err(_) => return None,
                }
            }
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
    if json == "null" {
        return Some(f64::NAN);
    }
    // By its value, as the host's cache cannot tell `1e+99999` from `10e99998`.
    match Decimal::parse(json)? {
        Decimal { is_negative, digits: 1, exponent: json::INFINITY_EXPONENT } => {
            Some(if is_negative { f64::NEG_INFINITY } else { f64::INFINITY })
        }
        _ => None,
    }
}

/// The integer that a JSON number stands for, in any notation: `100`, `1e2` and `100.0` are equal. Exact: the
/// host's cache treats numbers of the same value as one, so all notations must be accepted, or none.
#[cold]
#[inline(never)]
pub(crate) fn integer(json: &str) -> Option<i128> {
    let Decimal { is_negative, digits, exponent } = Decimal::parse(json)?;
    let power = 10_u128.checked_pow(exponent.try_into().ok()?)?;
    let integer = i128::try_from(digits.checked_mul(power)?).ok()?;
    Some(if is_negative { -integer } else { integer })
}

/// A number without an exponent or needless zeros. `None` if it has too many digits, or is not one.
pub(crate) fn plain(json: &str) -> Option<String> {
    const MAX_PLACES: usize = 40;
    let Decimal { is_negative, digits, exponent } = Decimal::parse(json)?;
    let mut text = digits.to_string();
    let places = usize::try_from(exponent.unsigned_abs()).ok().filter(|&n| n <= MAX_PLACES)?;
    match exponent {
        0.. => text += &"0".repeat(places),
        _ => {
            text.insert_str(0, &"0".repeat((places + 1).saturating_sub(text.len())));
            text.insert(text.len() - places, '.');
        }
    }
    if is_negative {
        text.insert(0, '-');
    }
    Some(text)
}

/// A decimal number: `digits` without trailing zeros, times ten to the power of `exponent`.
struct Decimal {
    is_negative: bool,
    digits: u128,
    exponent: i64,
}

impl Decimal {
    /// `None` if `number` is not one, or has more digits than any datatype.
    fn parse(number: &str) -> Option<Self> {
        let (is_negative, number) = match number.as_bytes() {
            [b'-', ..] => (true, &number[1..]),
            [b'+', ..] => (false, &number[1..]),
            _ => (false, number),
        };
        let (number, exponent) = match number.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, i64::from(exponent.parse::<i32>().ok()?)),
            None => (number, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut decimal =
            Self { is_negative, digits: 0, exponent: exponent - fraction.len() as i64 };
        // Zeros count only if another digit follows.
        let mut zeros = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            match digit {
                b'0' => zeros += 1,
                b'1'..=b'9' => {
                    let power = match decimal.digits {
                        0 => 1,
                        _ => 10_u128.checked_pow(zeros + 1)?,
                    };
                    let digits = decimal.digits.checked_mul(power)?;
                    decimal.digits = digits.checked_add(u128::from(digit - b'0'))?;
                    zeros = 0;
                }
                _ => return None,
            }
        }
        decimal.exponent = match decimal.digits {
            0 => 0,
            _ => decimal.exponent + i64::from(zeros),
        };
        Some(decimal)
    }
}

/// The nearest FP32. `None` if that is not finite.
pub(crate) fn parse_f32(number: &str) -> Option<f32> {
    number.parse().ok().filter(|number: &f32| number.is_finite())
}

fn parse_f64(number: &str) -> Option<f64> {
    number.parse().ok().filter(|number: &f64| number.is_finite())
}
