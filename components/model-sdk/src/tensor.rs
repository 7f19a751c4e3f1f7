//! Tensors: little-endian bytes, in row-major order, as `wasi:nn` and Triton's clients carry them.

use half::{bf16, f16};
use serde::Serialize;

use crate::error::Error;
use crate::json;
use crate::numbers::Kind;

/// A value for an input of the graph, or of one of its outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Of the input or output.
    pub name: String,
    /// Of every element.
    pub datatype: Datatype,
    /// The size of each axis, outermost first.
    pub dimensions: Vec<u32>,
    /// The elements, little-endian, in row-major order: of BOOL a byte each, 0 or 1; of BYTES the
    /// length of each, 4 bytes, and then its bytes.
    pub data: Vec<u8>,
}

/// The type of a tensor's elements, named as in the Open Inference Protocol: those that `wasi:nn`
/// carries, and two that a component has to map.
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
    /// In no tensor of `wasi:nn`.
    #[serde(rename = "BOOL")]
    Bool,
    /// Bytes, any number of them in each element; in JSON a string. In no tensor of `wasi:nn`.
    #[serde(rename = "BYTES")]
    Bytes,
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

    /// A BYTES tensor. Elements that do not fill the dimensions are refused when it is sent.
    pub fn bytes(name: &str, dimensions: &[u32], elements: &[impl AsRef<[u8]>]) -> Self {
        let mut data = Vec::new();
        for element in elements {
            push_bytes(element.as_ref(), &mut data);
        }
        let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
        Self { name, datatype: Datatype::Bytes, dimensions, data }
    }

    /// A BOOL tensor. Elements that do not fill the dimensions are refused when it is sent.
    pub fn bool(name: &str, dimensions: &[u32], elements: &[bool]) -> Self {
        let to_bytes = |element| [u8::from(element)];
        Self::new(name, Datatype::Bool, dimensions.to_vec(), elements, to_bytes)
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

    /// The elements of a BYTES tensor.
    pub fn byte_strings(&self) -> Result<Vec<&[u8]>, Error> {
        self.check_datatype(Datatype::Bytes)?;
        let ends = || Error::internal(format!("the tensor {:?} ends within an element", self.name));
        split_bytes(&self.data).map(|element| element.ok_or_else(ends)).collect()
    }

    /// The elements of a BOOL tensor.
    pub fn bools(&self) -> Result<Vec<bool>, Error> {
        Ok(self.elements(Datatype::Bool, |[byte]| byte != 0)?.collect())
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
    pub(crate) const ALL: [Self; 9] = [
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
        Self::U8,
        Self::I32,
        Self::I64,
        Self::Bool,
        Self::Bytes,
    ];

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
            Self::Bool => "BOOL",
            Self::Bytes => "BYTES",
        }
    }

    /// Whether a graph can have it: `wasi:nn` carries it.
    pub(crate) fn is_of_graphs(self) -> bool {
        !matches!(self, Self::Bool | Self::Bytes)
    }

    /// What JSON writes the elements as.
    pub(crate) fn kind<const OTHER: bool>(self) -> Kind {
        match self {
            Self::Bool if OTHER => Kind::Bools,
            Self::Bytes if OTHER => Kind::Strings,
            _ => Kind::Numbers,
        }
    }

    /// Bytes of an element; of BYTES the least it has, its length.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 | Self::Bytes => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Reads the element that `bytes` are; of BYTES its length.
    pub(crate) fn element(self, bytes: &[u8]) -> Element {
        match self {
            Self::F16 => Element::F32(f16::from_le_bytes(whole(bytes)).to_f32()),
            Self::Bf16 => Element::F32(bf16::from_le_bytes(whole(bytes)).to_f32()),
            Self::F32 => Element::F32(f32::from_le_bytes(whole(bytes))),
            Self::F64 => Element::F64(f64::from_le_bytes(whole(bytes))),
            Self::U8 | Self::Bool => Element::I64(u8::from_le_bytes(whole(bytes)).into()),
            Self::I32 | Self::Bytes => Element::I64(i32::from_le_bytes(whole(bytes)).into()),
            Self::I64 => Element::I64(i64::from_le_bytes(whole(bytes))),
        }
    }

    /// Appends a number (a string, a truth value), as JSON writes it, as an element; or says why it
    /// cannot be one. `OTHER`, here and below: whether it may be BOOL or BYTES; what reads those is
    /// compiled only then.
    pub(crate) fn push<const OTHER: bool>(
        self,
        number: &str,
        data: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        self.try_push::<OTHER>(number, data).ok_or(match self {
            Self::F16 => "is out of range for FP16",
            Self::F32 => "is out of range for FP32",
            Self::F64 => "is out of range for FP64",
            Self::Bf16 => "is out of range for BF16",
            Self::U8 => "is not an integer from 0 to 255 (UINT8)",
            Self::I32 => "is not an integer of 32 bits (INT32)",
            Self::I64 => "is not an integer of 64 bits (INT64)",
            Self::Bool => "is not true or false (BOOL)",
            Self::Bytes => "is not a string of Unicode (BYTES)",
        })
    }

    /// Appends a number as an element; `None` if it cannot be one.
    pub(crate) fn push_f64(self, number: f64, data: &mut Vec<u8>) -> Option<()> {
        /// Above, FP64 has not every integer: a number may have been rounded to one.
        const INTEGERS: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the nearest; its range is checked"
            )]
            Self::F32 => {
                let element = number as f32;
                data.extend(element.is_finite().then(|| element.to_le_bytes())?);
            }
            Self::F64 => data.extend(number.to_le_bytes()),
            Self::F16 => {
                let element = f16::from_f64(number);
                data.extend(element.is_finite().then(|| element.to_le_bytes())?);
            }
            Self::Bf16 => {
                let element = bf16::from_f64(number);
                data.extend(element.is_finite().then(|| element.to_le_bytes())?);
            }
            Self::Bool | Self::U8 | Self::I32 | Self::I64 => {
                let whole = number.fract() == 0.0 && number.abs() < INTEGERS;
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
                let integer = whole.then_some(number as i64)?;
                self.push_integer(integer, data)?;
            }
            Self::Bytes => return None,
        }
        Some(())
    }

    /// The same of an integer, and of BOOL 0 or 1.
    fn push_integer(self, integer: i64, data: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Bool => data.push(u8::try_from(integer).ok().filter(|&bit| bit <= 1)?),
            Self::U8 => data.push(u8::try_from(integer).ok()?),
            Self::I32 => data.extend(i32::try_from(integer).ok()?.to_le_bytes()),
            _ => data.extend(integer.to_le_bytes()),
        }
        Some(())
    }

    fn try_push<const OTHER: bool>(self, number: &str, data: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::F32 => data.extend(parse_f32(number)?.to_le_bytes()),
            Self::F16 | Self::F64 | Self::Bf16 => self.push_f64(parse_f64(number)?, data)?,
            Self::U8 | Self::I32 | Self::I64 => match number.parse() {
                Ok(integer) => self.push_integer(integer, data)?,
                // JSON tells 5.0 from 5 no more than JavaScript does.
                Err(_) => self.push_f64(parse_f64(number)?, data)?,
            },
            Self::Bool if OTHER => data.push(u8::from(number.parse::<bool>().ok()?)),
            Self::Bytes if OTHER => push_bytes(json::string(number)?.as_bytes(), data),
            Self::Bool | Self::Bytes => return None,
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

/// [`split_bytes`].
#[derive(Clone, Debug)]
pub(crate) struct SplitBytes<'a>(&'a [u8]);

/// Each element of the data of a BYTES tensor, without its length; `None` where it ends too early.
pub(crate) fn split_bytes(data: &[u8]) -> SplitBytes<'_> {
    SplitBytes(data)
}

impl<'a> Iterator for SplitBytes<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self(rest) = self;
        if rest.is_empty() {
            return None;
        }
        let element = rest.split_first_chunk().and_then(|(&length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)
        });
        let (element, left) = element.unzip();
        *rest = left.unwrap_or_default();
        Some(element)
    }
}

/// Appends an element of BYTES.
pub(crate) fn push_bytes(element: &[u8], data: &mut Vec<u8>) {
    let length = u32::try_from(element.len()).expect("addresses of WebAssembly have 32 bits");
    data.extend(length.to_le_bytes());
    data.extend_from_slice(element);
}

/// All of `bytes`, which are as many.
fn whole<const SIZE: usize>(bytes: &[u8]) -> [u8; SIZE] {
    bytes.first_chunk().copied().unwrap_or([0; SIZE])
}

/// The nearest FP32; `None` beyond its range, as infinity is no measurement.
pub(crate) fn parse_f32(number: &str) -> Option<f32> {
    number.parse().ok().filter(|number: &f32| number.is_finite())
}

pub(crate) fn parse_f64(number: &str) -> Option<f64> {
    number.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(datatype: Datatype, number: &str) -> Result<Vec<u8>, &'static str> {
        let mut data = Vec::new();
        datatype.push::<true>(number, &mut data).map(|()| data)
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
        let tensor = Tensor::bool("x", &[2], &[true, false]);
        assert_eq!(tensor.data, [1, 0]);
        assert_eq!(tensor.bools().unwrap(), [true, false]);
        let mut tensor = Tensor::bytes("x", &[2], &["é", ""]);
        assert_eq!(tensor.data, [2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0]);
        assert_eq!(tensor.byte_strings().unwrap(), ["é".as_bytes(), b""]);
        tensor.data.pop();
        let error = tensor.byte_strings().unwrap_err().to_string();
        assert_eq!(error, "the tensor \"x\" ends within an element");
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
            (Datatype::Bool, "true", &[1]),
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
            // As FP64 it would be 2^53.
            (Datatype::I64, "9007199254740993.0"),
            (Datatype::I32, "2147483648"),
            (Datatype::I64, "9223372036854775808"),
            (Datatype::I64, "0.5"),
            (Datatype::Bool, "t"),
            (Datatype::Bytes, r#""\ud800""#),
        ] {
            assert!(pushed(datatype, number).is_err(), "{number} as {}", datatype.name());
        }
    }
}
