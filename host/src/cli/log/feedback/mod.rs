//! `spinfer log feedback`: adds the ground truth in a file to predictions, in the log's file or
//! through a running host.

mod remote;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use reqwest::Url;

use super::{Foreign, LogLocation};
use crate::prediction_log::feedback::file::{FeedbackFile, FeedbackFormat, FeedbackLine};
use crate::prediction_log::feedback::{FeedbackItem, Receipt, Rejection};
use crate::prediction_log::feedback_import::FeedbackImport;
use crate::prediction_log::stats::shown_path;
use crate::prediction_log::times::micros;
use remote::FeedbackClient;

#[derive(Debug, Args)]
pub(super) struct FeedbackOptions {
    /// File with the columns prediction_id, row, time and label, value or reward; - is standard
    /// input
    file: PathBuf,

    /// Format of the file [default: by its extension]
    #[arg(long, value_enum)]
    format: Option<FeedbackFormat>,

    /// Send the feedback to the data plane of a running host, such as http://127.0.0.1:3000
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "state_dir", "runtime_config_file", "redis"])]
    url: Option<Url>,

    #[command(flatten)]
    location: LogLocation,
}

/// `file` for standard input.
const STDIN: &str = "-";
/// Maximum number of items that are stored at once.
const BATCH: usize = 2_000;
/// Maximum number of rejected lines whose problems are shown.
const SHOWN: u64 = 20;

pub(super) fn run(options: &FeedbackOptions, out: &mut impl Write) -> Result<()> {
    let FeedbackOptions { file, format, url, location } = options;
    let is_stdin = file.as_os_str() == STDIN;
    let name = if is_stdin { "standard input".into() } else { file.display().to_string() };
    let format = match format {
        Some(format) => *format,
        None => format_of(file)?,
    };
    let input: Box<dyn Read> = match is_stdin {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file).with_context(|| name.clone())?),
    };
    let lines = FeedbackFile::new(format, input, micros(SystemTime::now()));
    let mut lines = lines.with_context(|| name.clone())?;
    let mut upload = Upload {
        target: match url {
            Some(url) => FeedbackTarget::Host(FeedbackClient::new(url)?),
            None => FeedbackTarget::File(Box::new(open(location)?)),
        },
        name: name.clone(),
        batch: Vec::new(),
        numbers: Vec::new(),
        summary: Summary::default(),
    };
    let read = upload.read(&mut lines);
    let Summary { accepted, unknown, replaced, unchanged, rejected } = upload.summary;
    writeln!(
        out,
        "{name}: {accepted} accepted ({unknown} for unknown predictions, {replaced} replaced, \
         {unchanged} unchanged), {rejected} rejected"
    )?;
    read?;
    let lines = if rejected == 1 { "line was" } else { "lines were" };
    ensure!(rejected == 0, "{name}: {rejected} {lines} rejected");
    Ok(())
}

fn format_of(file: &Path) -> Result<FeedbackFormat> {
    match file.extension().and_then(|end| end.to_str()) {
        Some("csv") => Ok(FeedbackFormat::Csv),
        Some("jsonl" | "ndjson") => Ok(FeedbackFormat::Jsonl),
        _ => bail!(
            "{}: the name does not determine the format; pass --format csv or jsonl",
            file.display()
        ),
    }
}

/// Opens the log's file for feedback.
fn open(location: &LogLocation) -> Result<FeedbackImport> {
    ensure!(
        location.redis.is_none(),
        "--redis: feedback is stored by a host, or in the log's file; pass --url"
    );
    // Fails with advice if there is no log.
    let path = location.open(Foreign::Fail)?.reader.path().to_owned();
    FeedbackImport::open(&path).with_context(|| shown_path(&path))
}

enum FeedbackTarget {
    File(Box<FeedbackImport>),
    Host(FeedbackClient),
}

/// The counts of all lines so far.
#[derive(Debug, Default)]
struct Summary {
    accepted: usize,
    unknown: usize,
    replaced: usize,
    unchanged: usize,
    rejected: u64,
}

/// Feedback on its way from a file to the log.
struct Upload {
    target: FeedbackTarget,
    name: String,
    /// Items that are not stored yet, and the numbers of their lines.
    batch: Vec<FeedbackItem>,
    numbers: Vec<u64>,
    summary: Summary,
}

impl Upload {
    fn read(&mut self, lines: &mut FeedbackFile<Box<dyn Read>>) -> Result<()> {
        loop {
            let next = lines.next_line();
            // What was read before the end, or the failure, is stored.
            if self.batch.len() >= BATCH || !matches!(next, Ok(Some(_))) {
                self.store()?;
            }
            match next.with_context(|| self.name.clone())? {
                None => return Ok(()),
                Some(FeedbackLine { number, item: Ok(item) }) => {
                    self.batch.push(FeedbackItem { index: self.batch.len(), ..item });
                    self.numbers.push(number);
                }
                Some(FeedbackLine { number, item: Err(problem) }) => self.reject(number, &problem),
            }
        }
    }

    fn store(&mut self) -> Result<()> {
        let (items, numbers) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.numbers));
        let Some(&first) = numbers.first() else { return Ok(()) };
        let receipt = match &mut self.target {
            FeedbackTarget::File(file) => file.store(items).map_err(anyhow::Error::from),
            FeedbackTarget::Host(host) => host.send(&items),
        };
        let receipt = receipt.with_context(|| {
            format!(
                "{}: not stored from line {first} on; run the command again, which changes nothing \
                 that is stored",
                self.name
            )
        })?;
        let Receipt { accepted, unknown, replaced, unchanged, rejected } = receipt;
        self.summary.accepted += accepted;
        self.summary.unknown += unknown;
        self.summary.replaced += replaced;
        self.summary.unchanged += unchanged;
        for Rejection { index, error } in rejected {
            self.reject(numbers.get(index).copied().unwrap_or(first), &error);
        }
        Ok(())
    }

    fn reject(&mut self, number: u64, problem: &str) {
        self.summary.rejected += 1;
        // Problems of a closed standard error cannot be reported anywhere.
        if self.summary.rejected <= SHOWN {
            let _ = writeln!(io::stderr(), "{}:{number}: {problem}", self.name);
        } else if self.summary.rejected == SHOWN + 1 {
            let _ = writeln!(io::stderr(), "{}: further rejected lines are not shown", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_the_extension_of_the_file() {
        for (name, format) in [
            ("labels.csv", FeedbackFormat::Csv),
            ("a/labels.jsonl", FeedbackFormat::Jsonl),
            ("labels.1.ndjson", FeedbackFormat::Jsonl),
        ] {
            assert_eq!(format_of(Path::new(name)).unwrap(), format);
        }
        for name in ["-", "labels", "labels.parquet"] {
            let error = format_of(Path::new(name)).unwrap_err().to_string();
            assert!(error.ends_with("pass --format csv or jsonl"), "{error}");
        }
    }
}
