//! Exports the log's records: to one file, as JSON lines, CSV or Parquet, or to a dataset of Parquet
//! files ([`dataset`]). Memory is independent of the number of records.

mod layout;
mod parquet;

mod cloud;
pub mod dataset;
pub mod destination;
mod feedback;
mod hive;

use std::io::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::json;
use super::reader::{Filter, LogSnapshot, Member, StoredFeedback, StoredRecord};
use super::scalar::Scalar;
use layout::{ExportLayout, FieldLayout};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line
    Jsonl,
    /// With a header line
    Csv,
    /// Apache Parquet, compressed with Snappy
    Parquet,
}

/// Progress of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportProgress {
    /// Number of records scanned for their columns.
    Scanned(u64),
    /// Number of records written.
    Written(u64),
}

/// Number of records between two reports of progress.
const REPORT: u64 = 4096;

/// Columns of every export, before and after the inputs and outputs: the members of a record, in their
/// order.
const BEFORE: [&str; 17] = [
    "id",
    "row",
    "time",
    "model",
    "version",
    "route",
    "component",
    "experiment",
    "variant",
    "unit",
    "propensity",
    "failed_over",
    "cache",
    "status",
    "latency_us",
    "sample",
    "trace_id",
];
const AFTER: [&str; 5] =
    ["attributes", "omitted", "feedback.label", "feedback.value", "feedback.reward"];

/// The members of a record and of its feedback, in the order of the columns.
fn members_of(record: &StoredRecord) -> impl Iterator<Item = (&'static str, Member<'_>)> {
    let StoredFeedback { label, value, reward } = &record.feedback;
    let feedback = [
        ("feedback.label", Member::Optional(label.as_deref())),
        ("feedback.value", Member::Number(*value)),
        ("feedback.reward", Member::Number(*reward)),
    ];
    record.members().into_iter().chain(feedback)
}

/// Writes the matching records to `out`. Returns their number.
pub fn export<W: Write + Send>(
    snapshot: &LogSnapshot<'_>,
    filter: &Filter,
    as_format: ExportFormat,
    out: W,
    report: &mut dyn FnMut(ExportProgress),
) -> Result<u64> {
    match as_format {
        ExportFormat::Jsonl => jsonl(snapshot, filter, out, report),
        ExportFormat::Csv => csv(snapshot, filter, out, report),
        ExportFormat::Parquet => {
            let layout = ExportLayout::find(snapshot, filter, report)?;
            let mut file = parquet::ParquetFile::new(&layout, out)?;
            let count = each(snapshot, filter, report, |record| file.write(record))?;
            file.finish()?;
            Ok(count)
        }
    }
}

/// Calls `take` for every matching record. Returns their number.
fn each(
    snapshot: &LogSnapshot<'_>,
    filter: &Filter,
    report: &mut dyn FnMut(ExportProgress),
    mut take: impl FnMut(&StoredRecord) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    snapshot.each(filter, |record| {
        take(&record)?;
        count += 1;
        if count % REPORT == 0 {
            report(ExportProgress::Written(count));
        }
        anyhow::Ok(())
    })?;
    report(ExportProgress::Written(count));
    Ok(count)
}

fn jsonl(
    snapshot: &LogSnapshot<'_>,
    filter: &Filter,
    mut out: impl Write,
    report: &mut dyn FnMut(ExportProgress),
) -> Result<u64> {
    let mut line = Vec::new();
    let count = each(snapshot, filter, report, |record| {
        line.clear();
        record.write_json(&mut line);
        line.push(b'\n');
        Ok(out.write_all(&line)?)
    })?;
    out.flush()?;
    Ok(count)
}

fn csv(
    snapshot: &LogSnapshot<'_>,
    filter: &Filter,
    out: impl Write,
    report: &mut dyn FnMut(ExportProgress),
) -> Result<u64> {
    let layout = ExportLayout::find(snapshot, filter, report)?;
    let mut file = ::csv::Writer::from_writer(out);
    file.write_record(layout.names()).map_err(failed)?;
    let mut row = CsvRow::default();
    let count = each(snapshot, filter, report, |record| {
        row.of(record, &layout);
        file.write_record(row.fields()).map_err(failed)?;
        Ok(())
    })?;
    file.flush().context("cannot write the file")?;
    Ok(count)
}

/// Unwraps the I/O error in an error of the CSV writer.
fn failed(error: ::csv::Error) -> anyhow::Error {
    let text = error.to_string();
    match error.into_kind() {
        ::csv::ErrorKind::Io(error) => error.into(),
        _ => anyhow::Error::msg(text),
    }
}

/// The fields of one CSV row, concatenated.
#[derive(Default)]
struct CsvRow {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvRow {
    fn of(&mut self, record: &StoredRecord, layout: &ExportLayout) {
        self.text.clear();
        self.ends.clear();
        for (name, member) in members_of(record) {
            match (name, member) {
                ("inputs", Member::Object(json)) => self.add_fields(json, &layout.inputs),
                ("outputs", Member::Object(json)) => self.add_fields(json, &layout.outputs),
                (_, Member::Number(number)) => self.add_number(number),
                (_, member) => self.add(member.text()),
            }
        }
    }

    fn add_number(&mut self, number: Option<f64>) {
        if let Some(number) = number {
            json::write(&number, &mut self.text);
        }
        self.end();
    }

    fn add(&mut self, text: impl AsRef<str>) {
        self.text.extend_from_slice(text.as_ref().as_bytes());
        self.end();
    }

    fn add_fields(&mut self, json: &str, fields: &FieldLayout) {
        let FieldLayout::Columns(columns) = fields else { return self.add(json) };
        fields.cells(json, |cells| {
            for index in 0..columns.len() {
                self.add_value(cells.get(index).and_then(Option::as_ref));
            }
        });
    }

    fn add_value(&mut self, value: Option<&Scalar<'_>>) {
        match value {
            None | Some(Scalar::Null | Scalar::Nested) => {}
            Some(Scalar::Boolean(value)) => json::write(value, &mut self.text),
            Some(Scalar::Integer(value)) => json::write(value, &mut self.text),
            Some(Scalar::Number(value)) => json::write(value, &mut self.text),
            Some(Scalar::Text(text)) => self.text.extend_from_slice(text.as_bytes()),
        }
        self.end();
    }

    fn end(&mut self) {
        self.ends.push(self.text.len());
    }

    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let field = &self.text[start..end];
            start = end;
            field
        })
    }
}

#[cfg(test)]
mod tests;
