//! Converts integers of less than a byte, and floats of at most a byte, to types that clients have:
//! integers to INT8 or UINT8, floats to FP32, which has all of their values.
//!
//! Formats: the float types of ONNX (`docs/docsgen/source/technical/float8.md` of the ONNX
//! project), and its packing, with the first element in the low bits.

use spinfer_backend::{Error, TensorType};
use spinfer_onnx::data_type;

/// An element type that is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LowPrecision {
    code: i32,
    bits: usize,
    format: Format,
}

/// How the bits of an element are interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Signed,
    Unsigned,
    /// A sign bit, `exponent` bits and `mantissa` bits.
    Float {
        exponent: u32,
        mantissa: u32,
        bias: i32,
        special: SpecialValues,
    },
}

/// The special values of a float format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpecialValues {
    /// Infinities and NaN as in IEEE 754.
    Ieee,
    /// No infinity. NaN has all bits of exponent and mantissa set.
    Finite,
    /// No infinity, no negative zero. NaN has the bits that would be negative zero.
    UnsignedZero,
    /// No infinity, no NaN.
    None,
}

const ALL: [LowPrecision; 9] = [
    integer(data_type::UINT4, 4, Format::Unsigned),
    integer(data_type::INT4, 4, Format::Signed),
    integer(data_type::UINT2, 2, Format::Unsigned),
    integer(data_type::INT2, 2, Format::Signed),
    float(data_type::FLOAT8E4M3FN, 4, 3, 7, SpecialValues::Finite),
    float(data_type::FLOAT8E4M3FNUZ, 4, 3, 8, SpecialValues::UnsignedZero),
    float(data_type::FLOAT8E5M2, 5, 2, 15, SpecialValues::Ieee),
    float(data_type::FLOAT8E5M2FNUZ, 5, 2, 16, SpecialValues::UnsignedZero),
    float(data_type::FLOAT4E2M1, 2, 1, 1, SpecialValues::None),
];

const fn integer(code: i32, bits: usize, format: Format) -> LowPrecision {
    LowPrecision { code, bits, format }
}

const fn float(
    code: i32,
    exponent: u32,
    mantissa: u32,
    bias: i32,
    special: SpecialValues,
) -> LowPrecision {
    let bits = 1 + exponent as usize + mantissa as usize;
    LowPrecision { code, bits, format: Format::Float { exponent, mantissa, bias, special } }
}

impl LowPrecision {
    /// The type with this number of `TensorProto.DataType`, if it is one of these.
    pub(crate) fn of(code: i32) -> Option<Self> {
        ALL.into_iter().find(|ty| ty.code == code)
    }

    /// The type that its elements are converted to.
    pub(crate) fn wide(self) -> TensorType {
        match self.format {
            Format::Signed => TensorType::I8,
            Format::Unsigned => TensorType::U8,
            Format::Float { .. } => TensorType::Fp32,
        }
    }

    /// Size of packed elements, in bytes.
    pub(crate) fn bytes(self, elements: usize) -> usize {
        elements.div_ceil(8 / self.bits)
    }

    /// Converts packed elements to those of [`Self::wide`].
    pub(crate) fn widen(self, packed: &[u8], elements: usize) -> Vec<u8> {
        let per_byte = 8 / self.bits;
        let codes = packed.iter().flat_map(|&byte| {
            (0..per_byte).map(move |n| (byte >> (n * self.bits)) & (0xff >> (8 - self.bits)))
        });
        let mut wide = Vec::with_capacity(elements * self.wide().size().unwrap_or(1));
        for code in codes.take(elements) {
            match self.format {
                Format::Unsigned => wide.push(code),
                Format::Signed => {
                    let unused = 8 - self.bits;
                    wide.push(((code << unused).cast_signed() >> unused).cast_unsigned());
                }
                Format::Float { .. } => wide.extend(self.value(code).to_le_bytes()),
            }
        }
        wide
    }

    /// Converts elements of [`Self::wide`] to packed ones. `name` is that of the input.
    pub(crate) fn narrow(self, name: &str, wide: &[u8]) -> Result<Vec<u8>, Error> {
        let invalid = |value: &dyn std::fmt::Display| {
            let ty = data_type::name(self.code);
            Error::InvalidArgument(format!(
                "input `{name}` is {ty} in the graph, which has no {value}"
            ))
        };
        let codes: Vec<u8> = match self.format {
            Format::Signed | Format::Unsigned => {
                let code = |&byte: &u8| {
                    let code = byte & (0xff >> (8 - self.bits));
                    let same = self.widen(&[code], 1) == [byte];
                    let signed = self.format == Format::Signed;
                    let value = if signed { byte.cast_signed().into() } else { i16::from(byte) };
                    same.then_some(code).ok_or_else(|| invalid(&value))
                };
                wide.iter().map(code).collect::<Result<_, _>>()?
            }
            Format::Float { .. } => {
                let values: Vec<f32> = (0..1_u16 << self.bits)
                    .filter_map(|code| u8::try_from(code).ok())
                    .map(|code| self.value(code))
                    .collect();
                let code = |bytes: &[u8; 4]| {
                    let value = f32::from_le_bytes(*bytes);
                    let same = |of: &f32| {
                        of.to_bits() == value.to_bits() || (of.is_nan() && value.is_nan())
                    };
                    let code = values.iter().position(same).and_then(|code| code.try_into().ok());
                    code.ok_or_else(|| invalid(&value))
                };
                wide.as_chunks().0.iter().map(code).collect::<Result<_, _>>()?
            }
        };
        let pack = |codes: &[u8]| {
            codes.iter().enumerate().fold(0, |byte, (n, code)| byte | (code << (n * self.bits)))
        };
        Ok(codes.chunks(8 / self.bits).map(pack).collect())
    }

    /// The value of a float's bits.
    fn value(self, code: u8) -> f32 {
        let Format::Float { exponent, mantissa, bias, special } = self.format else { return 0.0 };
        let code = u32::from(code);
        let sign = if code >> (exponent + mantissa) == 1 { -1.0 } else { 1.0 };
        let exponents = (1 << exponent) - 1;
        let (e, m) = ((code >> mantissa) & exponents, code & ((1 << mantissa) - 1));
        let magnitudes = (1 << (exponent + mantissa)) - 1;
        match special {
            SpecialValues::Ieee if e == exponents => {
                return if m == 0 { sign * f32::INFINITY } else { f32::NAN };
            }
            SpecialValues::Finite if code & magnitudes == magnitudes => return f32::NAN,
            SpecialValues::UnsignedZero if code == magnitudes + 1 => return f32::NAN,
            _ => {}
        }
        #[expect(clippy::cast_precision_loss, reason = "a few bits")]
        let fraction = m as f32 / (1_u32 << mantissa) as f32;
        #[expect(clippy::cast_possible_wrap, reason = "a few bits")]
        let (e, one) = if e == 0 { (1, 0.0) } else { (e as i32, 1.0) };
        sign * (one + fraction) * 2.0_f32.powi(e - bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_standard() {
        let value = |code, bits| LowPrecision::of(code).unwrap().value(bits);
        for (code, bits, expected) in [
            (data_type::FLOAT8E4M3FN, 0x7e, 448.0),
            (data_type::FLOAT8E4M3FN, 0x01, 2.0_f32.powi(-9)),
            (data_type::FLOAT8E4M3FN, 0x38, 1.0),
            (data_type::FLOAT8E4M3FNUZ, 0x7f, 240.0),
            (data_type::FLOAT8E4M3FNUZ, 0x40, 1.0),
            (data_type::FLOAT8E5M2, 0x7b, 57344.0),
            (data_type::FLOAT8E5M2, 0xfc, f32::NEG_INFINITY),
            (data_type::FLOAT8E5M2FNUZ, 0x7f, 57344.0),
            (data_type::FLOAT4E2M1, 0x7, 6.0),
            (data_type::FLOAT4E2M1, 0x9, -0.5),
        ] {
            assert_eq!(value(code, bits), expected, "{code} {bits:#x}");
        }
        for (code, bits) in [
            (data_type::FLOAT8E4M3FN, 0xff),
            (data_type::FLOAT8E4M3FNUZ, 0x80),
            (data_type::FLOAT8E5M2, 0x7d),
            (data_type::FLOAT8E5M2FNUZ, 0x80),
        ] {
            assert!(value(code, bits).is_nan(), "{code} {bits:#x}");
        }
    }

    #[test]
    fn narrowing_reverses_widening() {
        for ty in ALL {
            let packed: Vec<u8> = (0..=255).collect();
            let elements = packed.len() * 8 / ty.bits;
            let wide = ty.widen(&packed, elements);
            assert_eq!(wide.len(), elements * ty.wide().size().unwrap());
            let again = ty.widen(&ty.narrow("x", &wide).unwrap(), elements);
            // Every NaN is one NaN.
            assert_eq!(again, wide, "{ty:?}");
            // A number of elements that does not fill a byte.
            let part = ty.widen(&packed, 3);
            assert_eq!(ty.narrow("x", &part).unwrap().len(), ty.bytes(3));
        }
    }

    #[test]
    fn a_value_that_the_type_does_not_have_is_refused() {
        let int4 = LowPrecision::of(data_type::INT4).unwrap();
        assert_eq!(int4.narrow("x", &[0xf8, 7]).unwrap(), [0x78]);
        let error = int4.narrow("x", &[8]).unwrap_err().to_string();
        assert_eq!(error, "input `x` is INT4 in the graph, which has no 8");
        let error = int4.narrow("x", &[0xf7]).unwrap_err().to_string();
        assert!(error.ends_with("no -9"), "{error}");
        let float8 = LowPrecision::of(data_type::FLOAT8E4M3FN).unwrap();
        let error = float8.narrow("x", &0.3_f32.to_le_bytes()).unwrap_err().to_string();
        assert!(error.ends_with("no 0.3"), "{error}");
        assert!(float8.narrow("x", &f32::INFINITY.to_le_bytes()).is_err());
    }
}
