//! Feedback files: CSV with a header line, or JSON lines. A file is read one line at a time, so that
//! its size does not matter.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use super::{FeedbackItem, item, shortened};
use crate::prediction_log::scalar::{Members, Scalar};

/// Maximum length of a line, in bytes: a label has at most 1 KiB.
const MAX_LINE: u64 = 64 << 10;
/// The columns of a CSV file, which are the keys of a JSON line.
const COLUMNS: [&str; 6] = ["prediction_id", "row", "label", "value", "reward", "time"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FeedbackFormat {
    /// With a header line
    Csv,
    /// One JSON object a line
    Jsonl,
}

/// A line of a feedback file.
#[derive(Debug, PartialEq)]
pub struct FeedbackLine {
    /// Number of the line, from 1.
    pub number: u64,
    /// The item, or what is wrong with it.
    pub item: Result<FeedbackItem, String>,
}

/// A feedback file that is being read.
pub struct FeedbackFile<R: Read> {
    lines: Lines<R>,
    /// The columns of a CSV file; `None` for JSON lines.
    columns: Option<Vec<&'static str>>,
    /// Time of items without one, in microseconds of Unix time.
    now: i64,
}

impl<R: Read> std::fmt::Debug for FeedbackFile<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedbackFile").finish_non_exhaustive()
    }
}

impl<R: Read> FeedbackFile<R> {
    /// Starts to read `file`. `now` is the time of items without one, in microseconds of Unix time.
    ///
    /// # Errors
    /// Fails if a CSV file has no valid header line.
    pub fn new(format: FeedbackFormat, file: R, now: i64) -> Result<Self> {
        let mut lines = Lines { file: BufReader::new(file), number: 0 };
        let columns = match format {
            FeedbackFormat::Jsonl => None,
            FeedbackFormat::Csv => {
                let (_, header) = lines.next_record()?.unwrap_or_default();
                Some(columns(&cells(&header.unwrap_or_default()))?)
            }
        };
        Ok(Self { lines, columns, now })
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// Fails if the file cannot be read any further.
    pub fn next_line(&mut self) -> Result<Option<FeedbackLine>> {
        let Self { lines, columns, now } = self;
        let next = match columns {
            None => lines.next_line()?,
            Some(_) => lines.next_record()?,
        };
        let Some((number, line)) = next else { return Ok(None) };
        let item = match (line, columns) {
            (None, _) => Err(format!("is longer than {MAX_LINE} bytes")),
            (Some(line), None) => json_item(&line, *now),
            (Some(line), Some(columns)) => {
                let cells = cells(&line);
                members(&cells, columns).and_then(|members| item(0, &members, *now))
            }
        };
        Ok(Some(FeedbackLine { number, item }))
    }
}

/// A line with its number, from 1; without its text if that is too long.
type NumberedLine = (u64, Option<Vec<u8>>);

/// The lines of a file.
struct Lines<R> {
    file: BufReader<R>,
    /// Number of the lines that were read.
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Appends the next line to `line`, up to [`MAX_LINE`] bytes in all, and skips the rest of it.
    /// Returns false at the end of the file.
    fn append(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let limit = (MAX_LINE + 1).saturating_sub(line.len() as u64);
        if self.file.by_ref().take(limit).read_until(b'\n', line)? == 0 && limit > 0 {
            return Ok(false);
        }
        if line.last() != Some(&b'\n') {
            self.file.skip_until(b'\n')?;
        }
        self.number += 1;
        Ok(true)
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> io::Result<Option<NumberedLine>> {
        loop {
            let mut line = Vec::new();
            if !self.append(&mut line)? {
                return Ok(None);
            }
            let fits = line.len() as u64 <= MAX_LINE;
            if !fits || !line.trim_ascii().is_empty() {
                return Ok(Some((self.number, fits.then_some(line))));
            }
        }
    }

    /// The next record of a CSV file, which goes on after a line break in quotes.
    fn next_record(&mut self) -> Result<Option<NumberedLine>> {
        let Some((number, mut line)) = self.next_line()? else { return Ok(None) };
        if let Some(record) = &mut line {
            while is_open(record) {
                let goes_on = record.len() as u64 <= MAX_LINE && self.append(record)?;
                ensure!(goes_on, "line {number}: a quote is not closed");
            }
        }
        Ok(Some((number, line)))
    }
}

/// Whether `record` ends within a quoted cell.
fn is_open(record: &[u8]) -> bool {
    let (mut quoted, mut starts) = (false, true);
    for byte in record {
        match byte {
            // A doubled quote closes the cell and opens it again.
            b'"' if quoted => (quoted, starts) = (false, true),
            b'"' if starts => quoted = true,
            _ => starts = *byte == b',',
        }
    }
    quoted
}

/// The cells of a record.
fn cells(record: &[u8]) -> csv::ByteRecord {
    let mut cells = csv::ByteRecord::new();
    let mut reader = csv::ReaderBuilder::new();
    let reader = reader.has_headers(false).buffer_capacity(record.len().max(1));
    // Bytes in memory are read without an error, and of any form.
    let _ = reader.from_reader(record).read_byte_record(&mut cells);
    cells
}

/// The known columns of a header line, in its order.
fn columns(header: &csv::ByteRecord) -> Result<Vec<&'static str>> {
    let mut columns = Vec::with_capacity(header.len());
    for (index, name) in header.iter().enumerate() {
        let name = String::from_utf8_lossy(name);
        let name = if index == 0 { name.trim_start_matches('\u{feff}') } else { &name };
        let Some(&known) = COLUMNS.iter().find(|known| **known == name.trim()) else {
            bail!(
                "line 1: {:?} is not a column; write a header line with some of {}",
                shortened(name),
                COLUMNS.join(", ")
            );
        };
        ensure!(!columns.contains(&known), "line 1: the column {known} is there twice");
        columns.push(known);
    }
    let has = |names: &[&str]| names.iter().any(|name| columns.contains(name));
    ensure!(
        has(&["prediction_id"]) && has(&["label", "value", "reward"]),
        "line 1: write a header line with prediction_id and one of label, value and reward"
    );
    Ok(columns)
}

/// The cells of a record as the members of an object. An empty cell is absent.
fn members<'a>(
    record: &'a csv::ByteRecord,
    columns: &[&'static str],
) -> Result<Members<'a>, String> {
    if record.len() != columns.len() {
        return Err(format!("has {} cells; the header line has {}", record.len(), columns.len()));
    }
    let mut members = Members::default();
    for (&column, cell) in columns.iter().zip(record) {
        let text = std::str::from_utf8(cell).map_err(|_| format!("`{column}`: is not UTF-8"))?;
        let text = text.trim();
        let number = || text.parse().map(Scalar::Number).ok();
        let value = match column {
            _ if text.is_empty() => Scalar::Null,
            "row" => text.parse().map_or(Scalar::Text(text.into()), Scalar::Integer),
            "value" | "reward" => number().unwrap_or(Scalar::Text(text.into())),
            _ => Scalar::Text(text.into()),
        };
        members.0.push((column.into(), value));
    }
    Ok(members)
}

fn json_item(line: &[u8], now: i64) -> Result<FeedbackItem, String> {
    let members: Members<'_> =
        serde_json::from_slice(line).map_err(|error| format!("is not a JSON object: {error}"))?;
    item(0, &members, now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prediction_log::feedback::Truth;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn read(format: FeedbackFormat, text: &[u8]) -> Result<Vec<FeedbackLine>> {
        let mut file = FeedbackFile::new(format, text, 7)?;
        std::iter::from_fn(|| file.next_line().transpose()).collect()
    }

    fn truths(lines: Vec<FeedbackLine>) -> Vec<(u64, u32, Truth, i64)> {
        let truth = |FeedbackLine { number, item }| {
            let FeedbackItem { row, truth, time, .. } = item.unwrap();
            (number, row, truth, time)
        };
        lines.into_iter().map(truth).collect()
    }

    #[test]
    fn csv_and_json_lines_are_read_with_their_line_numbers() {
        let csv = format!(
            "\u{feff}prediction_id,label,value,row,time\r\n{ID},setosa,,,\r\n\r\n\
             {ID},,-1.5e3,2,1970-01-01T00:00:01Z\n{ID},\" a,\nb\",,0,\n{ID},7,,,\n"
        );
        let label = |text: &str| Truth::Label(text.into());
        let lines = truths(read(FeedbackFormat::Csv, csv.as_bytes()).unwrap());
        let expected = [
            (2, 0, label("setosa"), 7),
            (4, 2, Truth::Value(-1500.0), 1_000_000),
            (5, 0, label("a,\nb"), 7),
            (7, 0, label("7"), 7),
        ];
        assert_eq!(lines, expected);
        let json = format!(
            "{{\"prediction_id\": \"{ID}\", \"label\": 7}}\n\n  \r\n\
             {{\"prediction_id\": \"{ID}\", \"reward\": 1, \"row\": 3}}"
        );
        let lines = truths(read(FeedbackFormat::Jsonl, json.as_bytes()).unwrap());
        assert_eq!(lines, [(1, 0, label("7"), 7), (4, 3, Truth::Reward(1.0), 7)]);
    }

    #[test]
    fn invalid_line_is_reported_and_the_next_one_read() {
        let csv = format!(
            "prediction_id,value,row\nx,1,\n{ID},high,\n{ID},inf,\n{ID},1e999,\n{ID},,\n{ID},1\n\
             {ID},1,-1\n\u{e9},1,\n{ID},2,1\n"
        );
        let lines = read(FeedbackFormat::Csv, csv.as_bytes()).unwrap();
        let problems: Vec<_> = lines.iter().filter_map(|line| line.item.as_ref().err()).collect();
        for (problem, part) in problems.iter().zip([
            "`prediction_id`: \"x\" is not a UUID",
            "`value`: \"high\" is not a number",
            "`value`: inf is not a number",
            "`value`: inf is not a number",
            "write exactly one of `label`, `value` and `reward`",
            "has 2 cells; the header line has 3",
            "`row`: -1 is not a row",
            "`prediction_id`: \"\u{e9}\" is not a UUID",
        ]) {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!((problems.len(), lines.len()), (8, 9));
        let long = " ".repeat(2 * usize::try_from(MAX_LINE).unwrap());
        let json = format!(
            "7\n{{\"prediction_id\": 1\n{long}\n{{\"prediction_id\": \"{ID}\", \"value\": 1}}\n"
        );
        let lines = read(FeedbackFormat::Jsonl, json.as_bytes()).unwrap();
        let numbers: Vec<_> = lines.iter().map(|line| (line.number, line.item.is_ok())).collect();
        assert_eq!(numbers, [(1, false), (2, false), (3, false), (4, true)]);
    }

    #[test]
    fn line_with_a_time_in_the_future_is_rejected() {
        let csv = format!(
            "prediction_id,label,time\n{ID},a,2099-01-01T00:00:00Z\n{ID},b,1970-01-01T00:00:01Z\n"
        );
        let json = format!(
            "{{\"prediction_id\": \"{ID}\", \"label\": \"a\", \"time\": \"2099-01-01T00:00:00Z\"}}\n\
             {{\"prediction_id\": \"{ID}\", \"label\": \"b\"}}\n"
        );
        for (format, text) in [(FeedbackFormat::Csv, csv), (FeedbackFormat::Jsonl, json)] {
            let lines = read(format, text.as_bytes()).unwrap();
            let error = lines[0].item.as_ref().unwrap_err();
            assert!(
                error.starts_with("`time`: \"2099-01-01T00:00:00Z\" is in the future"),
                "{error}"
            );
            assert!(lines[1].item.is_ok(), "{lines:?}");
        }
    }

    #[test]
    fn invalid_csv_file_is_an_error_with_the_expected_header() {
        for (text, part) in [
            ("", "line 1: write a header line with prediction_id and one of label"),
            ("prediction_id\n", "line 1: write a header line with prediction_id and one of label"),
            ("label,value\n", "line 1: write a header line with prediction_id"),
            ("prediction_id,label,label\n", "line 1: the column label is there twice"),
            ("id,label\n", "line 1: \"id\" is not a column; write a header line with some of"),
        ] {
            let error = read(FeedbackFormat::Csv, text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
        let open = format!("prediction_id,label\n{ID},\"{}", "x\n".repeat(1 << 20));
        let error = read(FeedbackFormat::Csv, open.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "line 2: a quote is not closed");
    }

    proptest! {
        #[test]
        fn any_file_is_handled(
            bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\",\n{}a-e0-9:]{0,80}",
        ) {
            for format in [FeedbackFormat::Csv, FeedbackFormat::Jsonl] {
                let _ = read(format, &bytes);
                let _ = read(format, format!("prediction_id,label\n{text}").as_bytes());
            }
        }
    }
}
