//! Rows of features: what a model predicts from, and how they are read, by position or by name.

use std::fmt;

use serde_json::value::RawValue;

use crate::error::Error;
use crate::json::{self, Entries};
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

/// Rows as they are read. `what`, in its methods, is what is read, for messages.
pub(crate) struct Reader<'a> {
    signature: &'a Signature,
    /// Of one row. Where the signature leaves it open, the first row settles it.
    width: Option<usize>,
    features: Vec<f32>,
    count: u32,
}

/// The features that columns stand for, by position; `None` for one that the model does not have.
pub(crate) type Columns = Vec<Option<usize>>;

impl<'a> Reader<'a> {
    /// `most`: what the rows read will have together at the most.
    pub(crate) fn new(signature: &'a Signature, most: usize) -> Self {
        let width = signature.features();
        let features = Vec::with_capacity(width.unwrap_or_default().min(most));
        Self { signature, width, features, count: 0 }
    }

    /// All that was read: at least one row.
    pub(crate) fn rows(&self, what: &str) -> Result<Rows<'_>, Error> {
        if self.count == 0 {
            return Err(Error::invalid(format!("{what}: expected at least one row, got none")));
        }
        Ok(Rows { count: self.count, features: &self.features })
    }

    /// Reads a row from an array of numbers.
    pub(crate) fn array(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        let count = numbers::read(what, json, &self.signature.row, |number| {
            self.features.push(parse_f32(number).ok_or("is out of range for FP32")?);
            Ok(())
        })
        .map_err(Error::invalid)?;
        self.end(what, count, "numbers")
    }

    /// Reads an array of rows, each an array of numbers, or an object with a number for each feature's
    /// name.
    pub(crate) fn each(&mut self, what: &str, rows: &RawValue) -> Result<(), Error> {
        let rows: Vec<&RawValue> = json::decode_part(&what, rows)?;
        let mut names: Vec<String> = Vec::new();
        let mut columns = Columns::new();
        for (index, row) in rows.into_iter().enumerate() {
            let what = format_args!("{what}[{index}]");
            if !row.get().starts_with('{') {
                self.array(&what, row)?;
                continue;
            }
            let Entries(entries) = json::decode_part(&what, row)?;
            // Mostly all rows have the same.
            if index == 0 || !entries.iter().map(|(name, _)| name).eq(&names) {
                names = entries.iter().map(|(name, _)| name.clone()).collect();
                columns = self.columns(&what, &names)?;
            }
            let cells = entries.iter().map(|(_, value)| value.get());
            self.cells(&what, &columns, cells)?;
        }
        Ok(())
    }

    /// Finds the feature of each of `names`, which have an order: where the features of the model have no
    /// names, by position.
    pub(crate) fn columns_in_order(
        &self,
        what: &dyn fmt::Display,
        names: &[String],
    ) -> Result<Columns, Error> {
        if self.signature.fields().is_empty() {
            return Ok((0..names.len()).map(Some).collect());
        }
        self.columns(what, names)
    }

    /// Finds the feature of each of `names`, the keys of an object.
    pub(crate) fn columns(
        &self,
        what: &dyn fmt::Display,
        names: &[String],
    ) -> Result<Columns, Error> {
        let fields = self.signature.fields();
        if fields.is_empty() {
            return Err(Error::invalid(format!(
                "{what}: expected an array, as model.toml has no names (`fields`) of features"
            )));
        }
        let columns: Columns =
            names.iter().map(|name| fields.iter().position(|field| field == name)).collect();
        for (position, field) in fields.iter().enumerate() {
            let times = columns.iter().filter(|column| **column == Some(position)).count();
            if times != 1 {
                let problem = if times == 0 { "is missing" } else { "stands twice" };
                return Err(Error::invalid(format!(
                    "{what}: {field:?} {problem}; expected {}",
                    fields.join(", ")
                )));
            }
        }
        Ok(columns)
    }

    /// Reads a row of which each cell stands in one of `columns`.
    pub(crate) fn cells<'c>(
        &mut self,
        what: &dyn fmt::Display,
        columns: &[Option<usize>],
        cells: impl ExactSizeIterator<Item = &'c str>,
    ) -> Result<(), Error> {
        if cells.len() != columns.len() {
            return Err(Error::invalid(format!(
                "{what}: expected {} values, one for each column, got {}",
                columns.len(),
                cells.len()
            )));
        }
        let start = self.features.len();
        let width = columns.iter().flatten().count();
        self.features.resize(start + width, 0.0);
        for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
            let Some(position) = *column else { continue };
            self.features[start + position] = parse_f32(cell.trim()).ok_or_else(|| {
                let fields = self.signature.fields();
                let field = fields.get(position).copied().unwrap_or("column");
                Error::invalid(format!(
                    "{what}[{index}] ({field}): expected a finite number of FP32, got {cell}"
                ))
            })?;
        }
        self.end(what, width, "columns")
    }

    /// Counts a row that has `count` numbers.
    fn end(&mut self, what: &dyn fmt::Display, count: usize, of: &str) -> Result<(), Error> {
        let width = *self.width.get_or_insert(count.max(1));
        if count != width {
            let fields = self.signature.fields();
            let named =
                if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
            return Err(Error::invalid(format!(
                "{what}: expected {width} {of}{named}, got {count}"
            )));
        }
        self.count += 1;
        Ok(())
    }
}
