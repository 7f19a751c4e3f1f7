//! Tensors: little-endian elements in row-major order, as in `wasi:nn` and in binary tensor data. Types
//! that `wasi:nn` lacks have the same form here, and cross the component boundary packed (`packed.rs`).

use std::borrow::Cow;

use crate::byte_strings::{push_bytes, split_bytes};
use crate::datatype::Datatype;
use crate::error::Error;

/// The value of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name of the input or output.
    pub name: String,
    /// Type of the elements.
    pub datatype: Datatype,
    /// Size of each axis, outermost first.
    pub dimensions: Vec<u32>,
    /// The elements, little-endian, in row-major order. A BOOL is a byte, 0 or 1. An element of BYTES is
    /// its length, a `u32`, followed by its bytes. NaN of a floating-point type is a missing value.
    pub data: Vec<u8>,
}

impl Tensor {
    /// An FP32 tensor. The number of elements is checked against the dimensions when the tensor is used.
    pub fn f32(name: &str, dimensions: &[u32], elements: &[f32]) -> Self {
        Self::new(name, Datatype::F32, dimensions.to_vec(), elements, f32::to_le_bytes)
    }

    /// An INT64 tensor. The number of elements is checked against the dimensions when the tensor is used.
    pub fn i64(name: &str, dimensions: &[u32], elements: &[i64]) -> Self {
        Self::new(name, Datatype::I64, dimensions.to_vec(), elements, i64::to_le_bytes)
    }

    /// A BYTES tensor. The number of elements is checked against the dimensions when the tensor is used.
    pub fn bytes(name: &str, dimensions: &[u32], elements: &[impl AsRef<[u8]>]) -> Self {
        let mut data = Vec::new();
        for element in elements {
            push_bytes(element.as_ref(), &mut data);
        }
        let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
        Self { name, datatype: Datatype::Bytes, dimensions, data }
    }

    /// A BOOL tensor. The number of elements is checked against the dimensions when the tensor is used.
    pub fn bool(name: &str, dimensions: &[u32], elements: &[bool]) -> Self {
        let to_bytes = |element| [u8::from(element)];
        Self::new(name, Datatype::Bool, dimensions.to_vec(), elements, to_bytes)
    }

    /// A tensor of elements that `to_bytes` encodes.
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
    ///
    /// # Errors
    /// If the tensor has another datatype: 500.
    pub fn f32s(&self) -> Result<Vec<f32>, Error> {
        Ok(self.elements(Datatype::F32, f32::from_le_bytes)?.collect())
    }

    /// The elements of an INT64 tensor.
    ///
    /// # Errors
    /// If the tensor has another datatype: 500.
    pub fn i64s(&self) -> Result<Vec<i64>, Error> {
        Ok(self.elements(Datatype::I64, i64::from_le_bytes)?.collect())
    }

    /// The elements of a BYTES tensor.
    ///
    /// # Errors
    /// If the tensor has another datatype, or its data is truncated: 500.
    pub fn byte_strings(&self) -> Result<Vec<&[u8]>, Error> {
        self.check_datatype(Datatype::Bytes)?;
        let truncated = || {
            Error::internal(format!("the tensor {:?} is truncated within an element", self.name))
        };
        split_bytes(&self.data).map(|element| element.ok_or_else(truncated)).collect()
    }

    /// The elements of a BOOL tensor.
    ///
    /// # Errors
    /// If the tensor has another datatype: 500.
    pub fn bools(&self) -> Result<Vec<bool>, Error> {
        Ok(self.elements(Datatype::Bool, |[byte]| byte != 0)?.collect())
    }

    /// The number of elements.
    pub(crate) fn count(&self) -> usize {
        match self.datatype {
            Datatype::Bytes => split_bytes(&self.data).count(),
            datatype => self.data.len() / datatype.size(),
        }
    }

    /// Moves the axis `axis` to the front: the elements of one row are then contiguous, if it counts rows.
    /// A tensor whose elements do not match its dimensions stays unchanged.
    pub(crate) fn with_axis_first(&self, axis: usize) -> Cow<'_, Self> {
        if axis == 0 {
            return Cow::Borrowed(self);
        }
        self.with_axis_moved(axis).map_or(Cow::Borrowed(self), Cow::Owned)
    }

    #[cold]
    #[inline(never)]
    fn with_axis_moved(&self, axis: usize) -> Option<Self> {
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
        // Next to an axis of size 0, the others may have any size.
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

    /// Fails if the tensor has another datatype.
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
        assert_eq!(error, "the tensor \"x\" is truncated within an element");
    }

    #[test]
    fn axis_is_moved_to_the_front() {
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
