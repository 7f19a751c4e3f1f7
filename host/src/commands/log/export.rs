//! `spinfer log export`.

use std::fs::Permissions;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Location, Which};
use crate::prediction_log::export::{Format, Progress, export};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// How they are written [default: by the end of the file's name, or jsonl]
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

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 18;

pub(super) fn run(options: &Export, out: &mut impl Write) -> Result<()> {
    let Export { format, output, which, place } = options;
    let format = format.unwrap_or_else(|| by_name(output));
    let filter = which.filter();
    let mut reader = place.open()?;
    let snapshot = reader.snapshot()?;
    if output.as_os_str() == "-" {
        ensure!(format != Format::Parquet, "a Parquet file needs a name: -o FILE");
        export(&snapshot, &filter, format, BufWriter::new(std::io::stdout()), &mut |_| {})?;
        return Ok(());
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
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
    Ok(())
}

fn by_name(path: &Path) -> Format {
    match path.extension().and_then(|end| end.to_str()) {
        Some("parquet") => Format::Parquet,
        Some("csv") => Format::Csv,
        _ => Format::Jsonl,
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
