//! The types of tensor elements, and their form in JSON and CSV.

use half::{bf16, f16};
use serde::Serialize;

use crate::byte_strings::push_bytes;
use crate::json::{self, INFINITY, NEGATIVE_INFINITY};
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

/// `bytes` as an array of the same length.
fn whole<const SIZE: usize>(bytes: &[u8]) -> [u8; SIZE] {
    bytes.first_chunk().copied().unwrap_or([0; SIZE])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(datatype: Datatype, number: &str) -> Result<Vec<u8>, &'static str> {
        let mut data = Vec::new();
        datatype.push(number, &mut data).map(|()| data)
    }

    #[test]
    fn numbers_become_elements_or_are_refused() {
        for (datatype, number, element) in [
            (Datatype::F16, "1", &[0, 0x3c][..]),
            (Datatype::Bf16, "1e0", &[0x80, 0x3f]),
            (Datatype::F32, "1.0", &[0, 0, 0x80, 0x3f]),
            (Datatype::F32, "-0", &[0, 0, 0, 0x80]),
            (Datatype::F64, "-1", &(-1.0_f64).to_le_bytes()),
            (Datatype::U8, "255", &[255]),
            (Datatype::U8, "5.0", &[5]),
            (Datatype::I64, "-1e1", &(-10_i64).to_le_bytes()),
            (Datatype::I32, "-1", &[255; 4]),
            (Datatype::I64, "-9223372036854775808", &i64::MIN.to_le_bytes()),
            (Datatype::I64, "9007199254740993", &9_007_199_254_740_993_i64.to_le_bytes()),
            (Datatype::I8, "-128", &[0x80]),
            (Datatype::I16, "-2", &[0xfe, 0xff]),
            (Datatype::U16, "65535", &[0xff, 0xff]),
            (Datatype::U32, "4294967295", &[255; 4]),
            (Datatype::U64, "18446744073709551615", &[255; 8]),
            (Datatype::Bool, "true", &[1]),
            (Datatype::Bool, "0", &[0]),
            (Datatype::Bytes, r#""a\n\u00e9""#, &[4, 0, 0, 0, b'a', b'\n', 0xc3, 0xa9]),
        ] {
            assert_eq!(
                pushed(datatype, number).as_deref(),
                Ok(element),
                "{number} as {}",
                datatype.name()
            );
        }
        for (datatype, number) in [
            (Datatype::F16, "70000"),
            (Datatype::Bf16, "1e39"),
            (Datatype::F32, "1e39"),
            (Datatype::F32, "-1e300"),
            (Datatype::F64, "1e309"),
            (Datatype::U8, "256"),
            (Datatype::U8, "-1"),
            (Datatype::U8, "1.5"),
            (Datatype::U8, "256.0"),
            // Rounds to 2^53 in FP64.
            (Datatype::I64, "9007199254740993.0"),
            (Datatype::I32, "2147483648"),
            (Datatype::I64, "9223372036854775808"),
            (Datatype::I64, "0.5"),
            (Datatype::I8, "128"),
            (Datatype::I16, "40000"),
            (Datatype::U16, "-1"),
            (Datatype::U32, "4294967296"),
            (Datatype::U64, "-1"),
            (Datatype::U64, "18446744073709551616"),
            (Datatype::Bool, "t"),
            (Datatype::Bool, "2"),
            (Datatype::Bytes, r#""\ud800""#),
            (Datatype::Bytes, "5"),
        ] {
            assert!(pushed(datatype, number).is_err(), "{number} as {}", datatype.name());
        }
    }

    #[test]
    fn only_floats_may_be_missing_or_infinite() {
        for datatype in Datatype::ALL {
            for (json, number) in
                [("null", f32::NAN), (INFINITY, f32::INFINITY), (NEGATIVE_INFINITY, -f32::INFINITY)]
            {
                match (pushed(datatype, json), datatype.is_float()) {
                    (Ok(data), true) => {
                        let element = match datatype.element(&data) {
                            Element::F32(element) => element,
                            #[expect(clippy::cast_possible_truncation, reason = "not finite")]
                            Element::F64(element) => element as f32,
                            Element::I64(_) | Element::U64(_) => unreachable!("it is a float"),
                        };
                        assert_eq!(element.is_nan(), number.is_nan());
                        assert!(element.is_nan() || element == number);
                    }
                    (Err(reason), false) => {
                        assert_eq!(json == "null", reason.contains("missing"), "{reason}");
                    }
                    (pushed, _) => panic!("{json} as {}: {pushed:?}", datatype.name()),
                }
            }
        }
    }
}
