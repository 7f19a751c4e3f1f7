//! Reads rows from JSON or CSV, by position or by name.

mod cell;
mod columns;

use std::borrow::Cow;
use std::fmt;

pub(crate) use self::cell::Cell;
use self::cell::CellValue;

use serde_json::value::RawValue;

use crate::datatype::Datatype;
use crate::datatype::parse::float32;
use crate::error::Error;
use crate::json::{self, Entries};
use crate::json_array::{self, ItemKind, shown};
use crate::reserve::{check_strings, reserve};
use crate::rows::Rows;
use crate::signature::Signature;

/// Collects the rows of a request. `what` in its methods: the name of what is read, for messages.
pub(crate) struct RowReader<'a> {
    signature: &'a Signature,
    /// Kind of the items of a row.
    kind: ItemKind,
    /// Datatype of all elements. `None` if a row has several.
    datatype: Option<Datatype>,
    /// Number of elements in a row. If the signature leaves it open, that of the first row.
    width: Option<usize>,
    /// Number of strings among them, if a row has both strings and numbers.
    strings: usize,
    features: Vec<f32>,
    /// The numbers in 64 bits, if some are not FP32.
    wide: Option<Vec<u64>>,
    bytes: Vec<Vec<u8>>,
    count: u32,
    ignores_unknown: bool,
}

/// The feature of each column, by position. `None` for a column that the model does not have.
pub(crate) type Columns = Vec<Option<usize>>;

impl<'a> RowReader<'a> {
    /// `max_elements`: upper bound of the number of elements in all rows.
    ///
    /// # Errors
    /// If rows cannot represent the model's inputs.
    pub(crate) fn new(signature: &'a Signature, max_elements: usize) -> Result<Self, Error> {
        let width = signature.features();
        let kind = signature.kind_of_rows();
        let (mut datatype, mut is_wide) = (signature.datatype(), signature.is_wide());
        let mut strings = 0;
        if datatype.is_none() && width.is_none() {
            if signature.inputs.iter().any(|input| input.datatype == Datatype::Bytes) {
                return Err(Error::invalid(format!(
                    "this model has string inputs and inputs with free axes, which rows cannot represent; \
                     use POST /v2/models/{}/infer",
                    signature.name
                )));
            }
            // Only the component can assign the features to inputs.
            (datatype, is_wide) = (Some(Datatype::F32), false);
        }
        if datatype.is_none() {
            let of_strings = signature.inputs.iter().filter(|it| it.datatype == Datatype::Bytes);
            strings = of_strings.filter_map(|input| input.row()).sum();
        }
        let features = Vec::with_capacity(width.unwrap_or_default().min(max_elements));
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
            ignores_unknown: false,
        })
    }

    /// Ignores columns that the model does not have.
    pub(crate) fn ignoring_unknown_columns(self) -> Self {
        Self { ignores_unknown: true, ..self }
    }

    /// The name of the only element of a row, if that is a string.
    pub(crate) fn name_of_string(&self) -> Option<&'a str> {
        match &*self.signature.inputs {
            [input] if self.takes_strings() => match &*input.fields {
                [name] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether rows have strings only.
    pub(crate) fn takes_strings(&self) -> bool {
        self.kind == ItemKind::Strings
    }

    /// Whether rows have strings.
    pub(crate) fn has_strings(&self) -> bool {
        self.takes_strings() || self.strings > 0
    }

    /// All rows read.
    ///
    /// # Errors
    /// If there are none.
    pub(crate) fn rows(&self, what: &str) -> Result<Rows<'_>, Error> {
        if self.count == 0 {
            return Err(Error::invalid(format!("{what}: expected at least one row, got none")));
        }
        let wide = self.wide.as_deref().unwrap_or_default();
        Ok(Rows { count: self.count, features: &self.features, wide, bytes: &self.bytes })
    }

    /// Reserves memory for `rows` rows, which `json` contains.
    #[inline(never)]
    pub(crate) fn expect(&mut self, rows: usize, json: &RawValue) -> Result<(), Error> {
        // An element and its separator take at least two bytes.
        let max = json.get().len() / 2 + 1;
        let all = |width: usize| rows.saturating_mul(width).min(max);
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

    /// The number of strings among the `width` elements of a row.
    fn strings_of(&self, width: usize) -> usize {
        if self.takes_strings() { width } else { self.strings.min(width) }
    }

    /// Adds a file as a row.
    pub(crate) fn file(&mut self, file: Vec<u8>) {
        self.bytes.push(file);
        self.count += 1;
    }

    /// Reads one row: an array, an object of values by column name, or a string if that is the only element.
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
            return self.array_of_values(what, json);
        }
        let shape = &self.signature.row;
        let count = json_array::read(what, self.kind, json, shape, |token| {
            self.features.push(float32(token)?);
            Ok(())
        })
        .map_err(Error::invalid)?;
        self.finish_row(what, count, self.kind.many())
    }

    #[inline(never)]
    fn array_of_values(&mut self, what: &dyn fmt::Display, json: &RawValue) -> Result<(), Error> {
        if self.takes_strings() && matches!(json.get().as_bytes(), [b'"' | b'n', ..]) {
            return self.cells(what, &[Some(0)], &mut [Cell::Json(json.get())].into_iter());
        }
        let (signature, kind) = (self.signature, self.kind);
        let mut position = 0;
        let mut refused = None;
        let mut take = |token: &str| {
            // Surplus elements: `finish_row` reports them.
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
        // Dynamic: one copy of `read` for all rows that are not on the fast path.
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
        self.finish_row(what, count, kind.many())
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
            // Rows usually have the same keys.
            if index == 0 || !entries.iter().map(|(name, _)| name).eq(&names) {
                names = entries.iter().map(|(name, _)| name.clone()).collect();
                columns = self.columns(&what, &names)?;
            }
            let mut cells = entries.iter().map(|(_, value)| Cell::Json(value.get()));
            self.cells(&what, &columns, &mut cells)?;
        }
        Ok(())
    }

    /// Reads a row, one cell per column. `cells` is dynamic: as a type parameter it would add 3 kB of code
    /// per kind of table.
    pub(crate) fn cells<'c>(
        &mut self,
        what: &dyn fmt::Display,
        columns: &[Option<usize>],
        cells: &mut dyn ExactSizeIterator<Item = Cell<'c>>,
    ) -> Result<(), Error> {
        if cells.len() != columns.len() {
            return Err(Error::invalid(format!(
                "{what}: expected {} values, one per column, got {}",
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

    /// The datatype of the element at `position` of a row, and its index among the numbers or strings of
    /// the row.
    fn datatype_at(&self, position: usize) -> (Datatype, usize) {
        match self.datatype {
            Some(datatype) => (datatype, position),
            None => {
                let slot = self.signature.slot(position);
                slot.map_or((Datatype::F32, position), |slot| (slot.datatype, slot.at))
            }
        }
    }

    /// Appends an element.
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

    /// Counts a row of `count` elements, `of` in messages.
    fn finish_row(&mut self, what: &dyn fmt::Display, count: usize, of: &str) -> Result<(), Error> {
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
