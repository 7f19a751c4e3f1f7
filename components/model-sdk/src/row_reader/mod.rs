//! How rows are read: by position or by name, from JSON or CSV.

mod cell;
mod columns;

use std::borrow::Cow;
use std::fmt;

pub(crate) use self::cell::Cell;
use self::cell::CellValue;

use serde_json::value::RawValue;

use crate::datatype::{Datatype, float32};
use crate::error::Error;
use crate::json::{self, Entries};
use crate::json_array::{self, ItemKind, shown};
use crate::reserve::{check_strings, reserve};
use crate::rows::Rows;
use crate::signature::Signature;

/// Rows as they are read. `what`, in its methods, is what is read, for messages.
pub(crate) struct RowReader<'a> {
    signature: &'a Signature,
    /// What arrays of a row are of.
    kind: ItemKind,
    /// The datatype of all elements; `None` if a row has several.
    datatype: Option<Datatype>,
    /// Of the strings and the numbers of one row together. Where the signature leaves it open, the first
    /// row settles it.
    width: Option<usize>,
    /// The strings of them.
    strings: usize,
    features: Vec<f32>,
    /// The same in 64 bits, where some are not FP32.
    wide: Option<Vec<u64>>,
    bytes: Vec<Vec<u8>>,
    count: u32,
    ignores_others: bool,
}

/// The features that columns stand for, by position; `None` for one that the model does not have.
pub(crate) type Columns = Vec<Option<usize>>;

impl<'a> RowReader<'a> {
    /// `most`: what the rows read will have together at the most.
    pub(crate) fn new(signature: &'a Signature, most: usize) -> Result<Self, Error> {
        let width = signature.features();
        let kind = signature.kind_of_rows();
        let (mut datatype, mut is_wide) = (signature.datatype(), signature.is_wide());
        let mut strings = 0;
        if datatype.is_none() && width.is_none() {
            if signature.inputs.iter().any(|input| input.datatype == Datatype::Bytes) {
                return Err(Error::invalid(format!(
                    "this model takes strings beside inputs of free axes, which rows cannot hold: \
                     POST /v2/models/{}/infer does",
                    signature.name
                )));
            }
            // Only the component can say which is which.
            (datatype, is_wide) = (Some(Datatype::F32), false);
        }
        if datatype.is_none() {
            let of_strings = signature.inputs.iter().filter(|it| it.datatype == Datatype::Bytes);
            strings = of_strings.filter_map(|input| input.row()).sum();
        }
        let features = Vec::with_capacity(width.unwrap_or_default().min(most));
        let wide = is_wide.then(Vec::new);
        Ok(Self {
            signature,
            kind,
            datatype,
            width,
            strings,
            features,
            wide,
            bytes: Vec::new(),
            count: 0,
            ignores_others: false,
        })
    }

    /// The same, ignoring columns that the model does not have.
    pub(crate) fn ignoring_others(self) -> Self {
        Self { ignores_others: true, ..self }
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

    /// Whether rows are of strings alone.
    pub(crate) fn takes_strings(&self) -> bool {
        self.kind == ItemKind::Strings
    }

    /// Whether rows are of strings, alone or beside others.
    pub(crate) fn has_strings(&self) -> bool {
        self.takes_strings() || self.strings > 0
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
        let all = |width: usize| rows.saturating_mul(width).min(most);
        let width = self.width.unwrap_or_default();
        let strings = self.strings_of(width);
        if strings > 0 {
            check_strings(all(strings), json.get().len())?;
            reserve(&mut self.bytes, all(strings))?;
        }
        if let Some(wide) = &mut self.wide {
            reserve(wide, all(width - strings))?;
        }
        reserve(&mut self.features, all(width - strings))
    }

    /// How many of `width` elements of a row are strings.
    fn strings_of(&self, width: usize) -> usize {
        if self.takes_strings() { width } else { self.strings.min(width) }
    }

    /// Takes a file as a row.
    pub(crate) fn file(&mut self, file: Vec<u8>) {
        self.bytes.push(file);
        self.count += 1;
    }

    /// Reads one row: an array, an object with a value for each column's name; or a string, where a row is
    /// one.
    pub(crate) fn row(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        if json.get().starts_with('{') { self.object(what, json) } else { self.array(what, json) }
    }

    #[inline(never)]
    fn object(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        let Entries(entries) = Entries::of_part(what, json)?;
        let names: Vec<_> = entries.iter().map(|(name, _)| name.clone()).collect();
        let columns = self.columns(what, &names)?;
        let mut cells = entries.iter().map(|(_, value)| Cell::Json(value.get()));
        self.cells(what, &columns, &mut cells)
    }

    fn array(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        if self.datatype != Some(Datatype::F32) {
            return self.array_of_others(what, json);
        }
        let shape = &self.signature.row;
        let count = json_array::read(what, self.kind, json, shape, |token| {
            self.features.push(float32(token)?);
            Ok(())
        })
        .map_err(Error::invalid)?;
        self.end(what, count, self.kind.many())
    }

    #[inline(never)]
    fn array_of_others(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        if self.takes_strings() && matches!(json.get().as_bytes(), [b'"' | b'n', ..]) {
            return self.cells(what, &[Some(0)], &mut [Cell::Json(json.get())].into_iter());
        }
        let (signature, kind) = (self.signature, self.kind);
        let mut position = 0;
        let mut refused = None;
        let mut take = |token: &str| {
            // There are too many, which the end of the row says.
            if self.width.is_some_and(|width| position >= width) {
                return Ok(());
            }
            let (datatype, _) = self.datatype_at(position);
            let taken = Cell::Json(token).value(datatype).map(|value| self.push(value));
            if let Err(reason) = taken {
                refused = Some((shown(token).to_owned(), reason));
            } else {
                position += 1;
            }
            taken
        };
        // The same function for each that is not for speed.
        let take: &mut dyn FnMut(&str) -> Result<(), &'static str> = &mut take;
        let count = json_array::read(what, kind, json, &signature.row, take);
        let count = count.map_err(|problem| {
            Error::invalid(match (refused, signature.fields().get(position)) {
                (Some((item, reason)), Some(field)) => {
                    format!("{what}[{position}] ({field}): {item} {reason}")
                }
                _ => problem,
            })
        })?;
        self.end(what, count, kind.many())
    }

    /// Reads an array of rows.
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
        self.check_width(what, width, "columns")?;
        let (numbers, strings) = (self.features.len(), self.bytes.len());
        let of_strings = self.strings_of(width);
        self.features.resize(numbers + width - of_strings, 0.0);
        if let Some(wide) = &mut self.wide {
            wide.resize(numbers + width - of_strings, 0);
        }
        self.bytes.resize(strings + of_strings, Vec::new());
        for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
            let Some(position) = *column else { continue };
            let refused = |reason| {
                let fields = self.signature.fields();
                let nth = format!("column {}", position + 1);
                let field = fields.get(position).copied().unwrap_or(&nth);
                let (Cell::Json(cell) | Cell::Csv(cell)) = cell;
                let cell = shown(cell);
                Error::invalid(format!("{what}[{index}] ({field}): got {cell}, which {reason}"))
            };
            if self.datatype == Some(Datatype::F32) {
                self.features[numbers + position] = cell.float32().map_err(refused)?;
                continue;
            }
            let (datatype, at) = self.datatype_at(position);
            match cell.value(datatype).map_err(refused)? {
                CellValue::Number(number, bits) => {
                    self.features[numbers + at] = number;
                    if let Some(wide) = &mut self.wide {
                        wide[numbers + at] = bits;
                    }
                }
                CellValue::Text(text) => self.bytes[strings + at] = text,
            }
        }
        self.count += 1;
        Ok(())
    }

    /// What the element at `position` of a row is, and its position among the row's numbers or strings.
    fn datatype_at(&self, position: usize) -> (Datatype, usize) {
        match self.datatype {
            Some(datatype) => (datatype, position),
            None => {
                let slot = self.signature.slot(position);
                slot.map_or((Datatype::F32, position), |slot| (slot.datatype, slot.at))
            }
        }
    }

    fn push(&mut self, value: CellValue) {
        match value {
            CellValue::Number(number, bits) => {
                self.features.push(number);
                if let Some(wide) = &mut self.wide {
                    wide.push(bits);
                }
            }
            CellValue::Text(text) => self.bytes.push(text),
        }
    }

    /// Counts a row that has `count` elements.
    fn end(&mut self, what: &dyn fmt::Display, count: usize, of: &str) -> Result<(), Error> {
        self.check_width(what, count, of)?;
        self.count += 1;
        Ok(())
    }

    fn check_width(
        &mut self,
        what: &dyn fmt::Display,
        count: usize,
        of: &str,
    ) -> Result<(), Error> {
        let width = *self.width.get_or_insert(count.max(1));
        if count != width {
            let fields = self.signature.fields();
            let named =
                if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
            return Err(Error::invalid(format!(
                "{what}: expected {width} {of}{named}, got {count}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
