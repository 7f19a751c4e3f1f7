//! Tensors: little-endian bytes, in row-major order, as `wasi:nn` and Triton's clients carry them.
//! Those of types that `wasi:nn` does not have are packed on their way (`packed.rs`), and the same here.

use std::borrow::Cow;

use crate::byte_strings::{push_bytes, split_bytes};
use crate::datatype::Datatype;
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
    /// The elements, little-endian, in row-major order: of BOOL a byte each, 0 or 1; of BYTES the
    /// length of each, 4 bytes, and then its bytes. A NaN of a floating-point type is a missing value.
    pub data: Vec<u8>,
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

    /// How many elements there are.
    pub(crate) fn count(&self) -> usize {
        match self.datatype {
            Datatype::Bytes => split_bytes(&self.data).count(),
            datatype => self.data.len() / datatype.size(),
        }
    }

    /// The same with the axis `axis` first: row after row, where that counts rows. As it is if its
    /// elements do not fill its dimensions.
    pub(crate) fn with_axis_first(&self, axis: usize) -> Cow<'_, Self> {
        if axis == 0 {
            return Cow::Borrowed(self);
        }
        self.moved(axis).map_or(Cow::Borrowed(self), Cow::Owned)
    }

    #[cold]
    #[inline(never)]
    fn moved(&self, axis: usize) -> Option<Self> {
        let (before, after) = self.dimensions.split_at_checked(axis)?;
        let (&rows, after) = after.split_first()?;
        let product = |axes: &[u32]| {
            axes.iter().fold(1, |product: usize, &axis| product.saturating_mul(axis as usize))
        };
        let (outer, inner) = (product(before), product(after));
        let elements: Vec<&[u8]> = match self.datatype {
            Datatype::Bytes => {
                let mut rest = &*self.data;
                let lengths = split_bytes(&self.data).map(|element| {
                    let (element, left) = rest.split_at_checked(element?.len() + 4)?;
                    rest = left;
                    Some(element)
                });
                lengths.collect::<Option<_>>()?
            }
            datatype => self.data.chunks_exact(datatype.size()).collect(),
        };
        if elements.len() != outer.saturating_mul(rows as usize).saturating_mul(inner) {
            return None;
        }
        let mut data = Vec::with_capacity(self.data.len());
        // Where an axis is of size 0, others may be of any.
        let rows_of_elements = if elements.is_empty() { 0 } else { rows as usize };
        for row in 0..rows_of_elements {
            for before in 0..outer {
                let from = (before * rows as usize + row) * inner;
                elements[from..from + inner].iter().for_each(|part| data.extend_from_slice(part));
            }
        }
        let dimensions = [&[rows], before, after].concat();
        Some(Self { name: self.name.clone(), datatype: self.datatype, dimensions, data })
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_axis_is_moved_to_the_front() {
        let tensor = Tensor::i64("x", &[2, 3, 2], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let moved = tensor.with_axis_first(1);
        assert_eq!(moved.dimensions, [3, 2, 2]);
        assert_eq!(moved.i64s().unwrap(), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        assert_eq!(*tensor.with_axis_first(0), tensor);
        assert_eq!(*tensor.with_axis_first(3), tensor, "there is no such axis");
        let words = Tensor::bytes("x", &[2, 2], &["a", "bc", "", "d"]);
        let moved = words.with_axis_first(1);
        assert_eq!(*moved, Tensor::bytes("x", &[2, 2], &["a", "", "bc", "d"]));
        let empty = Tensor::i64("x", &[0, 3], &[]);
        assert_eq!(empty.with_axis_first(1).dimensions, [3, 0]);
        let wrong = Tensor::i64("x", &[2, 2], &[1]);
        assert_eq!(*wrong.with_axis_first(1), wrong);
    }
}
