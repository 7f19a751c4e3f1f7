//! `spinfer log export`.

use std::fs::Permissions;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Location, Which, tell_none};
use crate::prediction_log::export::{Format, Progress, export};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// How they are written [default: by the end of the file's name; jsonl for -]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// The file; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    place: Location,
}

/// The name of standard output.
const STDOUT: &str = "-";
/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 18;

pub(super) fn run(options: &Export, out: &mut impl Write) -> Result<()> {
    let Export { format, output, which, place } = options;
    let is_stdout = output.as_os_str() == STDOUT;
    ensure!(is_stdout || !output.is_dir(), "{}: is a folder; name a file", output.display());
    let format = match format {
        Some(format) => *format,
        None => by_name(output)?,
    };
    let filter = which.filter()?;
    let mut reader = place.open()?;
    let snapshot = reader.snapshot()?;
    if is_stdout {
        ensure!(format != Format::Parquet, "a Parquet file needs a name: -o FILE");
        let buffered = BufWriter::new(std::io::stdout());
        let count = export(&snapshot, &filter, format, buffered, &mut |_| {})?;
        return if count == 0 { tell_none(&snapshot, &filter) } else { Ok(()) };
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // The error of a temporary file would tell its name.
    std::fs::metadata(folder.join(".")).with_context(|| folder.display().to_string())?;
    // It has its name once all of it is there.
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
    writeln!(out, "{count} records in {}", output.display())?;
    if count == 0 { tell_none(&snapshot, &filter) } else { Ok(()) }
}

/// The format that the end of a file's name says.
fn by_name(path: &Path) -> Result<Format> {
    if path.as_os_str() == STDOUT {
        return Ok(Format::Jsonl);
    }
    match path.extension().and_then(|end| end.to_str()) {
        Some("parquet") => Ok(Format::Parquet),
        Some("csv") => Ok(Format::Csv),
        Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
        _ => bail!(
            "{}: the name does not say the format; write --format jsonl, csv or parquet",
            path.display()
        ),
    }
}

/// On standard error, if somebody sees it.
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

fn show(bar: &ProgressBar, progress: Progress) {
    let (message, count) = match progress {
        Progress::Looked(count) => ("looking for columns:", count),
        Progress::Written(count) => ("writing:", count),
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
    fn the_end_of_a_name_says_the_format_or_nothing_does() {
        for (name, format) in [
            ("-", Format::Jsonl),
            ("log.jsonl", Format::Jsonl),
            ("folder/log.ndjson", Format::Jsonl),
            ("log.csv", Format::Csv),
            ("log.1.parquet", Format::Parquet),
        ] {
            assert_eq!(by_name(Path::new(name)).unwrap(), format, "{name}");
        }
        for name in ["x.xlsx", "x.json", "x", ".csv", "folder.csv/x"] {
            let expected = format!(
                "{name}: the name does not say the format; write --format jsonl, csv or parquet"
            );
            assert_eq!(by_name(Path::new(name)).unwrap_err().to_string(), expected);
        }
    }
}
