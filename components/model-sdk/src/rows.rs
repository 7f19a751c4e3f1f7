//! Rows of features: what a model predicts from, and how they are read from JSON.

use std::fmt;

use serde_json::value::RawValue;

use crate::error::Error;
use crate::numbers;
use crate::signature::Signature;
use crate::tensor::{Datatype, Tensor, parse_f32};

/// One row of features, or several for one inference.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How many: one, unless the first axis of every input and output of the graph is free.
    pub count: u32,
    /// Row after row, each as long as the signature says, and finite.
    pub features: &'a [f32],
}

impl<'a> Rows<'a> {
    /// Each by itself.
    pub(crate) fn each(self) -> impl Iterator<Item = Rows<'a>> {
        let width = self.features.len() / self.count as usize;
        let rows = (0..self.count as usize).map(move |row| row * width);
        rows.map(move |start| Rows { count: 1, features: &self.features[start..start + width] })
    }

    /// All of them as the FP32 input `name`; `row` is the shape of one.
    pub fn tensor(&self, name: &str, row: &[u32]) -> Tensor {
        let mut dimensions = Vec::with_capacity(1 + row.len());
        dimensions.push(self.count);
        dimensions.extend_from_slice(row);
        Tensor::new(name, Datatype::F32, dimensions, self.features, f32::to_le_bytes)
    }
}

/// Rows as they are read.
pub(crate) struct Reader<'a> {
    signature: &'a Signature,
    /// Of one row. Where the signature leaves it open, the first row settles it.
    width: Option<usize>,
    features: Vec<f32>,
    count: u32,
}

impl<'a> Reader<'a> {
    /// `most`: what the rows read will have together at the most.
    pub(crate) fn new(signature: &'a Signature, most: usize) -> Self {
        let width = signature.features();
        let features = Vec::with_capacity(width.unwrap_or_default().min(most));
        Self { signature, width, features, count: 0 }
    }

    /// Reads a row from an array of numbers; `what` is the array in messages.
    pub(crate) fn array(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        let count = numbers::read(what, json, &self.signature.row, |number| {
            self.features.push(parse_f32(number).ok_or("is out of range for FP32")?);
            Ok(())
        })
        .map_err(Error::invalid)?;
        let width = *self.width.get_or_insert(count);
        if count != width {
            let fields = self.signature.fields();
            let named =
                if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
            return Err(Error::invalid(format!(
                "{what}: expected {width} numbers{named}, got {count}"
            )));
        }
        self.count += 1;
        Ok(())
    }

    /// Reads `rows`, at least one; `what` is their array in messages.
    pub(crate) fn arrays(mut self, what: &str, rows: &[&RawValue]) -> Result<Self, Error> {
        for (index, row) in rows.iter().enumerate() {
            self.array(&format_args!("{what}[{index}]"), row)?;
        }
        if self.count == 0 {
            return Err(Error::invalid(format!("{what}: expected at least one row, got none")));
        }
        Ok(self)
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows { count: self.count, features: &self.features }
    }
}
