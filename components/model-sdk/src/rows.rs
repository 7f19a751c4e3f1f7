//! Rows: what a model predicts from, and how they are read, by position or by name.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::error::{Error, quoted};
use crate::json::{self, Entries};
use crate::numbers::{self, Kind};
use crate::room::{check_strings, reserve};
use crate::signature::{Signature, TensorSignature};
use crate::tensor::{Datatype, Tensor, parse_f32, parse_f64, push_bytes};

/// One row, or several for one inference: of features, or of what the model makes features of.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How many: one, unless the first axis of every input and output of the model is free.
    pub count: u32,
    /// Row after row, each as long as the signature says, and finite. Of a BOOL, 1 or 0.
    pub features: &'a [f32],
    /// The same as FP64; empty if every input of the model is FP32.
    wide: &'a [f64],
    /// Row after row, where the model takes BYTES ([`crate::Mapping`]) or files ([`crate::File`]):
    /// strings in UTF-8, or a file. Then there are no features.
    pub bytes: &'a [Vec<u8>],
}

impl<'a> Rows<'a> {
    #[cfg(test)]
    pub(crate) fn of_features(count: u32, features: &'a [f32]) -> Self {
        Self { count, features, wide: &[], bytes: &[] }
    }

    /// The features as FP64; `None` if every input is FP32.
    pub(crate) fn wide(&self) -> Option<&'a [f64]> {
        (!self.wide.is_empty()).then_some(self.wide)
    }

    /// Each by itself.
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

    /// All of them as the FP32 input `name`; `row` is the shape of one.
    pub fn tensor(&self, name: &str, row: &[u32]) -> Tensor {
        let mut dimensions = Vec::with_capacity(1 + row.len());
        dimensions.push(self.count);
        dimensions.extend_from_slice(row);
        Tensor::new(name, Datatype::F32, dimensions, self.features, f32::to_le_bytes)
    }

    /// All of them as the inputs of the model, of their datatypes: the first features of a row are the
    /// first input's. Files are not of such.
    pub(crate) fn inputs(&self, signature: &Signature) -> Result<Vec<Tensor>, Error> {
        let strings = signature.kind_of_rows() == Some(Kind::Strings);
        if !strings && !self.bytes.is_empty() {
            return Err(Error::internal(
                "the component takes files, but does not say what they are to the model: `fn predict` of \
                 its `impl Model`",
            ));
        }
        let elements = if strings { self.bytes.len() } else { self.features.len() };
        let width = elements / self.count as usize;
        let mut start = 0;
        let mut inputs = Vec::with_capacity(signature.inputs.len());
        for input in &signature.inputs {
            let TensorSignature { name, datatype, shape, .. } = input;
            let open = || {
                Error::invalid(format!(
                    "features: the input {name:?} has the shape {shape}, which features alone do not \
                     settle; POST /v2/models/{}/infer takes the shape with them",
                    signature.name
                ))
            };
            let alone = signature.inputs.len() == 1;
            let own = if alone { width } else { shape.row().ok_or_else(open)? };
            let dimensions = shape.of_rows(self.count, own).ok_or_else(open)?;
            let mut data = Vec::with_capacity(self.count as usize * own * datatype.size());
            for row in 0..self.count as usize {
                let from = row * width + start;
                self.push(*datatype, from..from + own, &mut data).ok_or_else(|| {
                    Error::invalid(format!(
                        "features: {name:?} takes {}, and not all numbers of row {row} are such",
                        datatype.name()
                    ))
                })?;
            }
            inputs.push(Tensor { name: name.clone(), datatype: *datatype, dimensions, data });
            start += own;
        }
        Ok(inputs)
    }

    /// Appends features (or strings) as elements; `None` if one is no such element.
    fn push(&self, datatype: Datatype, of: Range<usize>, data: &mut Vec<u8>) -> Option<()> {
        match datatype {
            Datatype::F32 => {
                let features = self.features.get(of)?.iter();
                data.extend(features.flat_map(|feature| feature.to_le_bytes()));
                Some(())
            }
            Datatype::Bytes => {
                self.bytes.get(of)?.iter().for_each(|string| push_bytes(string, data));
                Some(())
            }
            _ => self.wide.get(of)?.iter().try_for_each(|&number| datatype.push_f64(number, data)),
        }
    }
}

/// Rows as they are read. `what`, in its methods, is what is read, for messages. `OTHER`: whether they
/// may hold something other than numbers; what reads that is compiled only then.
pub(crate) struct Reader<'a, const OTHER: bool> {
    signature: &'a Signature,
    kind: Kind,
    /// Of one row. Where the signature leaves it open, the first row settles it.
    width: Option<usize>,
    features: Vec<f32>,
    /// The same as FP64, where an input needs it.
    wide: Option<Vec<f64>>,
    bytes: Vec<Vec<u8>>,
    count: u32,
}

/// A value of a table.
#[derive(Clone, Copy)]
pub(crate) enum Cell<'a> {
    Json(&'a str),
    Csv(&'a str),
}

/// The features that columns stand for, by position; `None` for one that the model does not have.
pub(crate) type Columns = Vec<Option<usize>>;

impl<'a, const OTHER: bool> Reader<'a, OTHER> {
    /// `most`: what the rows read will have together at the most.
    pub(crate) fn new(signature: &'a Signature, most: usize) -> Result<Self, Error> {
        let Some(kind) = signature.kind_of_rows() else {
            return Err(Error::invalid(
                "this model takes BYTES beside other inputs, which rows cannot hold: POST .../infer does",
            ));
        };
        let width = signature.features();
        let features = Vec::with_capacity(width.unwrap_or_default().min(most));
        let wide = signature.is_wide().then(Vec::new);
        Ok(Self { signature, kind, width, features, wide, bytes: Vec::new(), count: 0 })
    }

    /// The name of the string that a row is, if it is one string.
    pub(crate) fn name_of_string(&self) -> Option<&'a str> {
        match &*self.signature.inputs {
            [input] if self.takes_strings() => match &*input.fields {
                [name] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn takes_strings(&self) -> bool {
        OTHER && self.kind == Kind::Strings
    }

    /// All that was read: at least one row.
    pub(crate) fn rows(&self, what: &str) -> Result<Rows<'_>, Error> {
        if self.count == 0 {
            return Err(Error::invalid(format!("{what}: expected at least one row, got none")));
        }
        let wide = self.wide.as_deref().unwrap_or_default();
        Ok(Rows { count: self.count, features: &self.features, wide, bytes: &self.bytes })
    }

    /// Makes room for so many rows, which `json` has.
    #[inline(never)]
    pub(crate) fn expect(&mut self, rows: usize, json: &RawValue) -> Result<(), Error> {
        // A number and what is between it and the next take two bytes at least.
        let most = json.get().len() / 2 + 1;
        let elements = rows.saturating_mul(self.width.unwrap_or_default()).min(most);
        if self.takes_strings() {
            check_strings(elements, json.get().len())?;
            return reserve(&mut self.bytes, elements);
        }
        if let Some(wide) = &mut self.wide {
            reserve(wide, elements)?;
        }
        reserve(&mut self.features, elements)
    }

    /// Takes a file as a row.
    pub(crate) fn file(&mut self, file: Vec<u8>) {
        self.bytes.push(file);
        self.count += 1;
    }

    /// Reads a row from an array of numbers; of strings, if the model takes those, or from one string.
    pub(crate) fn array(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        let strings = self.takes_strings();
        if strings && json.get().starts_with('"') {
            return self.cells(what, &[Some(0)], &mut [Cell::Json(json.get())].into_iter());
        }
        let count = numbers::read(what, self.kind, json, &self.signature.row, |token| {
            if strings {
                let string = json::string(token).ok_or("is not of Unicode")?;
                self.bytes.push(string.into_owned().into());
            } else {
                self.features.push(parse_f32(token).ok_or("is out of range for FP32")?);
                if let Some(wide) = &mut self.wide {
                    set_wide(wide, self.features.len() - 1, token);
                }
            }
            Ok(())
        })
        .map_err(Error::invalid)?;
        self.end(what, count, self.kind.many())
    }

    /// Reads an array of rows, each an array of numbers, or an object with a number for each feature's
    /// name; or with strings.
    pub(crate) fn each(&mut self, what: &str, rows: &RawValue) -> Result<(), Error> {
        let json = rows;
        let rows = json::items(&what, json)?;
        self.expect(rows.len(), json)?;
        let mut names: Vec<Cow<'_, str>> = Vec::new();
        let mut columns = Columns::new();
        for (index, row) in rows.into_iter().enumerate() {
            let what = format_args!("{what}[{index}]");
            if !row.get().starts_with('{') {
                self.array(&what, row)?;
                continue;
            }
            let Entries(entries) = Entries::of_part(&what, row)?;
            // Mostly all rows have the same.
            if index == 0 || !entries.iter().map(|(name, _)| name).eq(&names) {
                names = entries.iter().map(|(name, _)| name.clone()).collect();
                columns = self.columns(&what, &names)?;
            }
            let mut cells = entries.iter().map(|(_, value)| Cell::Json(value.get()));
            self.cells(&what, &columns, &mut cells)?;
        }
        Ok(())
    }

    /// Finds the feature of each of `names`, which have an order: where the features of the model have no
    /// names, by position.
    pub(crate) fn columns_in_order(
        &self,
        what: &dyn fmt::Display,
        names: &[Cow<'_, str>],
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
        names: &[Cow<'_, str>],
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

    /// Reads a row of which each cell stands in one of `columns`. `cells` is no type parameter: there
    /// would be 3 kB for each kind of table.
    pub(crate) fn cells<'c>(
        &mut self,
        what: &dyn fmt::Display,
        columns: &[Option<usize>],
        cells: &mut dyn ExactSizeIterator<Item = Cell<'c>>,
    ) -> Result<(), Error> {
        if cells.len() != columns.len() {
            return Err(Error::invalid(format!(
                "{what}: expected {} values, one for each column, got {}",
                columns.len(),
                cells.len()
            )));
        }
        let width = columns.iter().flatten().count();
        let start = self.features.len() + self.bytes.len();
        if self.takes_strings() {
            self.bytes.resize(start + width, Vec::new());
        } else {
            self.features.resize(start + width, 0.0);
        }
        for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
            let Some(position) = *column else { continue };
            if self.cell(start + position, cell).is_none() {
                let fields = self.signature.fields();
                let field = fields.get(position).copied().unwrap_or("column");
                let expected = if self.takes_strings() {
                    "a string of Unicode"
                } else {
                    "a finite number of FP32"
                };
                let (Cell::Json(cell) | Cell::Csv(cell)) = cell;
                return Err(Error::invalid(format!(
                    "{what}[{index}] ({field}): expected {expected}, got {}",
                    quoted(cell)
                )));
            }
        }
        self.end(what, width, "columns")
    }

    fn cell(&mut self, at: usize, cell: Cell<'_>) -> Option<()> {
        match cell {
            Cell::Json(json) if self.takes_strings() => {
                self.bytes[at] = json::string(json)?.into_owned().into();
            }
            Cell::Csv(text) if self.takes_strings() => self.bytes[at] = text.into(),
            Cell::Json(number) | Cell::Csv(number) => {
                let number = number.trim();
                self.features[at] = parse_f32(number)?;
                if let Some(wide) = &mut self.wide {
                    set_wide(wide, at, number);
                }
            }
        }
        Some(())
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

/// Keeps a number that is finite as FP32 as FP64 too.
#[inline(never)]
fn set_wide(wide: &mut Vec<f64>, position: usize, number: &str) {
    wide.resize(wide.len().max(position + 1), 0.0);
    wide[position] = parse_f64(number).unwrap_or_default();
}
