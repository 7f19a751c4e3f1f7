//! Rows: the input of [`crate::Model::predict`].

use std::ops::Range;

use crate::byte_strings::push_bytes;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// The rows of one inference: numbers, strings, or both; or a file.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Number of rows: 1, unless the batch axis of every input and output is free.
    pub count: u32,
    /// The numbers of all rows, row by row, each in the order of the inputs. A missing value is NaN. A BOOL
    /// is 1 or 0. A number that FP32 cannot represent is rounded to the nearest.
    pub features: &'a [f32],
    /// The numbers in 64 bits, as [`Datatype::bits`]. Empty if all are FP32.
    pub(crate) wide: &'a [u64],
    /// The strings of all rows in UTF-8, row by row, each in the order of the BYTES inputs; or one file
    /// ([`crate::File`]).
    pub bytes: &'a [Vec<u8>],
}

impl<'a> Rows<'a> {
    #[cfg(test)]
    pub(crate) fn of_features(count: u32, features: &'a [f32]) -> Self {
        Self { count, features, wide: &[], bytes: &[] }
    }

    /// The rows one by one.
    pub(crate) fn each(self) -> impl Iterator<Item = Rows<'a>> {
        let count = self.count as usize;
        let (features, bytes) = (self.features.len() / count, self.bytes.len() / count);
        (0..count).map(move |row| Rows {
            count: 1,
            features: &self.features[row * features..][..features],
            wide: self.wide.get(row * features..(row + 1) * features).unwrap_or_default(),
            bytes: &self.bytes[row * bytes..][..bytes],
        })
    }

    /// The numbers of all rows as the FP32 input `name`. `row`: the shape of one row, without the batch axis.
    pub fn tensor(&self, name: &str, row: &[u32]) -> Tensor {
        let mut dimensions = Vec::with_capacity(1 + row.len());
        dimensions.push(self.count);
        dimensions.extend_from_slice(row);
        Tensor::new(name, Datatype::F32, dimensions, self.features, f32::to_le_bytes)
    }

    /// All rows as the inputs of the model, in its datatypes. The numbers of a row are distributed over the
    /// inputs in order, and its strings over the BYTES inputs.
    ///
    /// # Errors
    /// If the rows are a file, or do not determine the dimensions of an input.
    pub(crate) fn inputs(&self, signature: &Signature) -> Result<Vec<Tensor>, Error> {
        let strings = signature.inputs.iter().any(|input| input.datatype == Datatype::Bytes);
        if !strings && !self.bytes.is_empty() {
            return Err(Error::internal(
                "the component accepts files (`FILE`), but its `impl Model` has no `fn predict` that reads them",
            ));
        }
        let alone = signature.inputs.len() == 1;
        let is_open = |input: &&TensorSignature| !alone && input.row().is_none();
        if let Some(input) = signature.inputs.iter().find(is_open) {
            return Err(undetermined(signature, input));
        }
        let count = self.count as usize;
        let widths = [self.features.len() / count, self.bytes.len() / count];
        let mut starts = [0, 0];
        let mut inputs = Vec::with_capacity(signature.inputs.len());
        for input in &signature.inputs {
            let of_strings = usize::from(input.datatype == Datatype::Bytes);
            let (width, start) = (widths[of_strings], starts[of_strings]);
            let own = if alone { width } else { input.row().unwrap_or_default() };
            inputs.push(self.input(signature, input, width, start, own)?);
            starts[of_strings] += own;
        }
        Ok(inputs)
    }

    /// One input: `own` elements of each row from `start` on, where a row has `width` numbers (or strings).
    fn input(
        &self,
        signature: &Signature,
        input: &TensorSignature,
        width: usize,
        start: usize,
        own: usize,
    ) -> Result<Tensor, Error> {
        let TensorSignature { name, datatype, batch_axis, .. } = input;
        let mut dimensions =
            input.of_rows(self.count, own).ok_or_else(|| undetermined(signature, input))?;
        let mut data = Vec::with_capacity(self.count as usize * own * datatype.size());
        let mut push = |of: Range<usize>| {
            self.push(*datatype, of, &mut data).ok_or_else(|| {
                Error::internal(format!("the rows have too few elements for the input {name:?}"))
            })
        };
        if *batch_axis == 0 {
            for row in 0..self.count as usize {
                let from = row * width + start;
                push(from..from + own)?;
            }
        } else {
            // The batch axis is not the first: rows are interleaved.
            let outer = dimensions[1..=*batch_axis].iter().map(|&axis| axis as usize).product();
            let inner = own.checked_div(outer).unwrap_or_default();
            for before in 0..outer {
                for row in 0..self.count as usize {
                    let from = row * width + start + before * inner;
                    push(from..from + inner)?;
                }
            }
            dimensions[..=*batch_axis].rotate_left(1);
        }
        Ok(Tensor { name: name.clone(), datatype: *datatype, dimensions, data })
    }

    /// Appends numbers (or strings) as elements. `None` if there are too few.
    fn push(&self, datatype: Datatype, of: Range<usize>, data: &mut Vec<u8>) -> Option<()> {
        match datatype {
            Datatype::F32 => {
                let features = self.features.get(of)?.iter();
                data.extend(features.flat_map(|feature| feature.to_le_bytes()));
            }
            Datatype::Bytes => {
                self.bytes.get(of)?.iter().for_each(|string| push_bytes(string, data));
            }
            _ => self.wide.get(of)?.iter().for_each(|&bits| datatype.push_bits(bits, data)),
        }
        Some(())
    }
}

/// A row does not determine the dimensions of `input`.
#[cold]
fn undetermined(signature: &Signature, input: &TensorSignature) -> Error {
    Error::invalid(format!(
        "features: they do not determine the dimensions of the input {:?} of shape {}; \
         use POST /v2/models/{}/infer, which takes the shape",
        input.name, input.shape, signature.name
    ))
}
