//! CSV as pandas writes it: a line of column names, then a line per row.

use csv_core::ReadFieldResult;

use crate::error::Error;
use crate::row_reader::{Cell, RowReader};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a table.
pub(super) fn read(reader: &mut RowReader<'_>, body: &[u8]) -> Result<(), Error> {
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut lines =
        Lines { csv: csv_core::Reader::new(), rest: text, buffer: vec![0; text.len() + 1] };
    let Some(names) = lines.next()? else {
        return Err(Error::invalid("the body as CSV: expected a line of column names, got none"));
    };
    let names: Vec<_> = names.iter().map(|name| name.trim().into()).collect();
    let columns = reader.columns_in_order(&"the body as CSV: the first line", &names)?;
    let mut row = 0;
    while let Some(cells) = lines.next()? {
        row += 1;
        let mut cells = cells.iter().map(|cell| Cell::Csv(cell));
        reader.cells(&format_args!("CSV row {row}"), &columns, &mut cells)?;
    }
    Ok(())
}

/// The lines of a table.
struct Lines<'a> {
    csv: csv_core::Reader,
    rest: &'a [u8],
    /// Longer than the text, and therefore than any field.
    buffer: Vec<u8>,
}

impl Lines<'_> {
    /// The fields of the next line that is not empty. `None` at the end.
    fn next(&mut self) -> Result<Option<Vec<String>>, Error> {
        let mut fields = Vec::new();
        let mut length = 0;
        loop {
            let (result, read, written) =
                self.csv.read_field(self.rest, &mut self.buffer[length..]);
            self.rest = &self.rest[read..];
            length += written;
            match result {
                // The reader has all of the text: the next call returns the last field or the end.
                ReadFieldResult::InputEmpty => {}
                ReadFieldResult::OutputFull => {
                    return Err(Error::internal("a field of CSV is longer than the text"));
                }
                ReadFieldResult::Field { record_end } => {
                    let field = str::from_utf8(&self.buffer[..length])
                        .map_err(|_| Error::invalid("the body as CSV: expected UTF-8"))?;
                    fields.push(field.to_owned());
                    length = 0;
                    if record_end {
                        return Ok(Some(fields));
                    }
                }
                ReadFieldResult::End => return Ok(None),
            }
        }
    }
}
