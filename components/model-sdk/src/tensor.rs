//! Tensors as `wasi:nn` carries them: little-endian bytes, in row-major order.

use half::{bf16, f16};
use serde::Serialize;

use crate::error::Error;

/// A value for an input of the graph, or of one of its outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Of the input or output.
    pub name: String,
    /// Of every element.
    pub datatype: Datatype,
    /// The size of each axis, outermost first.
    pub dimensions: Vec<u32>,
    /// The elements, little-endian, in row-major order.
    pub data: Vec<u8>,
}

/// The type of a tensor's elements, named as in the Open Inference Protocol. These are the ones that
/// `wasi:nn` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Datatype {
    #[serde(rename = "FP16")]
    F16,
    #[serde(rename = "FP32")]
    F32,
    #[serde(rename = "FP64")]
    F64,
    #[serde(rename = "BF16")]
    Bf16,
    #[serde(rename = "UINT8")]
    U8,
    #[serde(rename = "INT32")]
    I32,
    #[serde(rename = "INT64")]
    I64,
}

impl Tensor {
    /// An FP32 tensor. Elements that do not fill the dimensions are refused when it is computed.
    pub fn f32(name: &str, dimensions: &[u32], elements: &[f32]) -> Self {
        Self::new(name, Datatype::F32, dimensions.to_vec(), elements, f32::to_le_bytes)
    }

    /// An INT64 tensor. Elements that do not fill the dimensions are refused when it is computed.
    pub fn i64(name: &str, dimensions: &[u32], elements: &[i64]) -> Self {
        Self::new(name, Datatype::I64, dimensions.to_vec(), elements, i64::to_le_bytes)
    }

    pub(crate) fn new<T: Copy, const SIZE: usize>(
        name: &str,
        datatype: Datatype,
        dimensions: Vec<u32>,
        elements: &[T],
        to_bytes: fn(T) -> [u8; SIZE],
    ) -> Self {
        let mut data = Vec::with_capacity(elements.len() * SIZE);
        for &element in elements {
            data.extend_from_slice(&to_bytes(element));
        }
        Self { name: name.to_owned(), datatype, dimensions, data }
    }

    /// The elements of an FP32 tensor.
    pub fn f32s(&self) -> Result<Vec<f32>, Error> {
        Ok(self.elements(Datatype::F32, f32::from_le_bytes)?.collect())
    }

    /// The elements of an INT64 tensor.
    pub fn i64s(&self) -> Result<Vec<i64>, Error> {
        Ok(self.elements(Datatype::I64, i64::from_le_bytes)?.collect())
    }

    fn elements<T, const SIZE: usize>(
        &self,
        datatype: Datatype,
        from_bytes: fn([u8; SIZE]) -> T,
    ) -> Result<impl Iterator<Item = T>, Error> {
        self.check_datatype(datatype)?;
        let (elements, _) = self.data.as_chunks();
        Ok(elements.iter().map(move |&bytes| from_bytes(bytes)))
    }

    pub(crate) fn check_datatype(&self, datatype: Datatype) -> Result<(), Error> {
        if self.datatype != datatype {
            return Err(Error::internal(format!(
                "the tensor {:?} is {}, not {}",
                self.name,
                self.datatype.name(),
                datatype.name()
            )));
        }
        Ok(())
    }
}

impl Datatype {
    pub(crate) const ALL: [Self; 7] =
        [Self::F16, Self::F32, Self::F64, Self::Bf16, Self::U8, Self::I32, Self::I64];

    /// The datatype that [`Self::name`] gives `name` for.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// As in the Open Inference Protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "FP16",
            Self::F32 => "FP32",
            Self::F64 => "FP64",
            Self::Bf16 => "BF16",
            Self::U8 => "UINT8",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
        }
    }

    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Reads the element that `bytes` are.
    pub(crate) fn element(self, bytes: &[u8]) -> Element {
        match self {
            Self::F16 => Element::F32(f16::from_le_bytes(whole(bytes)).to_f32()),
            Self::Bf16 => Element::F32(bf16::from_le_bytes(whole(bytes)).to_f32()),
            Self::F32 => Element::F32(f32::from_le_bytes(whole(bytes))),
            Self::F64 => Element::F64(f64::from_le_bytes(whole(bytes))),
            Self::U8 => Element::I64(u8::from_le_bytes(whole(bytes)).into()),
            Self::I32 => Element::I64(i32::from_le_bytes(whole(bytes)).into()),
            Self::I64 => Element::I64(i64::from_le_bytes(whole(bytes))),
        }
    }

    /// Appends a number, as JSON writes it, as an element; or says why it cannot be one.
    pub(crate) fn push(self, number: &str, data: &mut Vec<u8>) -> Result<(), &'static str> {
        self.try_push(number, data).ok_or(match self {
            Self::F16 => "is out of range for FP16",
            Self::F32 => "is out of range for FP32",
            Self::F64 => "is out of range for FP64",
            Self::Bf16 => "is out of range for BF16",
            Self::U8 => "is not an integer from 0 to 255 (UINT8)",
            Self::I32 => "is not an integer of 32 bits (INT32)",
            Self::I64 => "is not an integer of 64 bits (INT64)",
        })
    }

    fn try_push(self, number: &str, data: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::F16 => {
                let element = f16::from_f64(parse_f64(number)?);
                data.extend(element.is_finite().then(|| element.to_le_bytes())?);
            }
            Self::F32 => data.extend(parse_f32(number)?.to_le_bytes()),
            Self::F64 => data.extend(parse_f64(number)?.to_le_bytes()),
            Self::Bf16 => {
                let element = bf16::from_f64(parse_f64(number)?);
                data.extend(element.is_finite().then(|| element.to_le_bytes())?);
            }
            Self::U8 => data.push(u8::try_from(parse_i64(number)?).ok()?),
            Self::I32 => data.extend(i32::try_from(parse_i64(number)?).ok()?.to_le_bytes()),
            Self::I64 => data.extend(parse_i64(number)?.to_le_bytes()),
        }
        Some(())
    }
}

/// An element in the type that JSON writes it from.
#[derive(Clone, Copy)]
pub(crate) enum Element {
    F32(f32),
    F64(f64),
    I64(i64),
}

/// All of `bytes`, which are as many.
fn whole<const SIZE: usize>(bytes: &[u8]) -> [u8; SIZE] {
    bytes.first_chunk().copied().unwrap_or([0; SIZE])
}

fn parse_i64(number: &str) -> Option<i64> {
    number.parse().ok()
}

/// The nearest FP32; `None` beyond its range, as infinity is no measurement.
pub(crate) fn parse_f32(number: &str) -> Option<f32> {
    number.parse().ok().filter(|number: &f32| number.is_finite())
}

fn parse_f64(number: &str) -> Option<f64> {
    number.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(datatype: Datatype, number: &str) -> Result<Vec<u8>, &'static str> {
        let mut data = Vec::new();
        datatype.push(number, &mut data).map(|()| data)
    }

    #[test]
    fn elements_are_little_endian() {
        let tensor = Tensor::f32("x", &[1, 2], &[1.5, -2.0]);
        assert_eq!(tensor.data, [0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(tensor.f32s().unwrap(), [1.5, -2.0]);
        let tensor = Tensor::i64("x", &[1], &[-2]);
        assert_eq!(tensor.data, [0xfe, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(tensor.i64s().unwrap(), [-2]);
        assert_eq!(tensor.f32s().unwrap_err().to_string(), "the tensor \"x\" is INT64, not FP32");
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
            (Datatype::I32, "-1", &[255; 4]),
            (Datatype::I64, "-9223372036854775808", &i64::MIN.to_le_bytes()),
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
            (Datatype::U8, "1.0"),
            (Datatype::I32, "2147483648"),
            (Datatype::I64, "9223372036854775808"),
            (Datatype::I64, "0.5"),
        ] {
            assert!(pushed(datatype, number).is_err(), "{number} as {}", datatype.name());
        }
    }
}
