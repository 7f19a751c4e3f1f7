//! `spinfer log export`: writes records to a file for other programs.

use std::fs::Permissions;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{FilterOptions, Foreign, LogLocation, plural, report_no_match};
use crate::prediction_log::export::dataset::{DatasetReport, export_dataset};
use crate::prediction_log::export::destination::Destination;
use crate::prediction_log::export::{ExportFormat, ExportProgress, export};

#[derive(Debug, Args)]
pub(super) struct ExportOptions {
    /// Format of the file [default: by its extension; jsonl for -]
    #[arg(long, value_enum)]
    format: Option<ExportFormat>,

    /// File to write; - is standard output
    #[arg(short, long, value_name = "FILE", required_unless_present = "to")]
    output: Option<PathBuf>,

    /// Folder or URL (file, s3, gs, az, abfss) of a Parquet dataset, to which everything is added that
    /// was written since the last export there
    #[arg(
        long,
        value_name = "FOLDER|URL",
        conflicts_with_all = [
            "output", "format", "model", "version", "component", "experiment", "variant", "status",
            "since", "until", "redis",
        ]
    )]
    to: Option<String>,

    /// Export everything in the log again, as for a dataset that was deleted
    #[arg(long, requires = "to")]
    all: bool,

    #[command(flatten)]
    filters: FilterOptions,

    #[command(flatten)]
    location: LogLocation,
}

/// `--output` for standard output.
const STDOUT: &str = "-";
/// Size of the write buffer, in bytes.
const BUFFER: usize = 1 << 18;

pub(super) fn run(options: &ExportOptions, out: &mut impl Write) -> Result<()> {
    let ExportOptions { format, output, to, all, filters, location } = options;
    if let Some(to) = to {
        return export_to(to, *all, location, out);
    }
    let output = output.as_deref().unwrap_or(Path::new(STDOUT));
    let is_stdout = output.as_os_str() == STDOUT;
    ensure!(is_stdout || !output.is_dir(), "{}: is a folder; pass a file", output.display());
    let format = match format {
        Some(format) => *format,
        None => format_of(output)?,
    };
    let filter = filters.filter()?;
    let mut reader = location.open(Foreign::Fail)?;
    let snapshot = reader.snapshot()?;
    if is_stdout {
        ensure!(
            format != ExportFormat::Parquet,
            "Parquet cannot be written to standard output; pass -o FILE"
        );
        let buffered = BufWriter::new(std::io::stdout());
        let count = export(&snapshot, &filter, format, buffered, &mut |_| {})?;
        return if count == 0 { report_no_match(&snapshot, &filter) } else { Ok(()) };
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // Checked first: the error of the temporary file would show its name.
    std::fs::metadata(folder.join(".")).with_context(|| folder.display().to_string())?;
    // A temporary file, renamed when it is complete.
    let mut file = tempfile::Builder::new()
        .prefix(".spinfer-export-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| format!("{}: cannot write here", folder.display()))?;
    let bar = bar();
    let written = {
        let buffered = BufWriter::with_capacity(BUFFER, file.as_file_mut());
        export(&snapshot, &filter, format, buffered, &mut |progress| show(&bar, progress))
    };
    bar.finish_and_clear();
    let count = written.with_context(|| output.display().to_string())?;
    file.as_file().sync_all()?;
    file.persist(output).with_context(|| output.display().to_string())?;
    writeln!(out, "{} in {}", plural(count, "record"), output.display())?;
    if count == 0 { report_no_match(&snapshot, &filter) } else { Ok(()) }
}

/// Exports what is new to the dataset at `to`.
fn export_to(to: &str, all: bool, location: &LogLocation, out: &mut impl Write) -> Result<()> {
    let path = location.open(Foreign::Fail)?.reader.path().to_owned();
    let destination = Destination::parse(to)?;
    let bar = bar();
    let exported = export_dataset(&path, &destination, all, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let report = exported?;
    let DatasetReport { objects, records, feedback, resumed, missed } = report;
    let name = destination.name();
    if report == DatasetReport::default() {
        return Ok(writeln!(out, "{name}: nothing new since the last export")?);
    }
    if resumed > 0 {
        let objects = plural(resumed, "object");
        writeln!(out, "{name}: {objects} had been written by an export that was aborted")?;
    }
    let (objects, records) = (plural(objects, "object"), plural(records, "record"));
    writeln!(out, "{name}: {objects} with {records} and {}", plural(feedback, "feedback item"))?;
    if missed > 0 {
        // Standard error may be closed.
        let _ = writeln!(
            io::stderr(),
            "warning: {} had been deleted before this export; export more often, or raise max_age \
             and max_size of [prediction_log]",
            plural(missed, "record")
        );
    }
    Ok(())
}

/// The format for the extension of a file.
fn format_of(path: &Path) -> Result<ExportFormat> {
    if path.as_os_str() == STDOUT {
        return Ok(ExportFormat::Jsonl);
    }
    match path.extension().and_then(|end| end.to_str()) {
        Some("parquet") => Ok(ExportFormat::Parquet),
        Some("csv") => Ok(ExportFormat::Csv),
        Some("jsonl" | "ndjson") => Ok(ExportFormat::Jsonl),
        _ => bail!(
            "{}: the extension does not determine the format; pass --format jsonl, csv or parquet",
            path.display()
        ),
    }
}

/// A progress bar on standard error; hidden unless that is a terminal.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {pos} records ({per_sec})") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: ExportProgress) {
    let (message, count) = match progress {
        ExportProgress::Scanned(count) => ("reading columns:", count),
        ExportProgress::Written(count) => ("writing:", count),
    };
    if bar.message() != message {
        bar.set_message(message);
        bar.reset_eta();
    }
    bar.set_position(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_the_extension_of_the_file() {
        for (name, format) in [
            ("-", ExportFormat::Jsonl),
            ("log.jsonl", ExportFormat::Jsonl),
            ("folder/log.ndjson", ExportFormat::Jsonl),
            ("log.csv", ExportFormat::Csv),
            ("log.1.parquet", ExportFormat::Parquet),
        ] {
            assert_eq!(format_of(Path::new(name)).unwrap(), format, "{name}");
        }
        for name in ["x.xlsx", "x.json", "x", ".csv", "folder.csv/x"] {
            let expected = format!(
                "{name}: the extension does not determine the format; pass --format jsonl, csv or parquet"
            );
            assert_eq!(format_of(Path::new(name)).unwrap_err().to_string(), expected);
        }
    }
}
