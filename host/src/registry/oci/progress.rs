//! Progress of transfers on standard error: a bar on a terminal, otherwise a line.

use std::io::{self, IsTerminal, Write};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};

/// How transfers are shown.
#[derive(Clone, Copy, Debug, Default)]
pub enum TransferProgress {
    #[default]
    Silent,
    /// A line per completed transfer.
    Lines,
    /// A bar during the transfer, then a line.
    Bars,
}

/// One transfer.
#[derive(Debug)]
pub struct Transfer {
    progress: TransferProgress,
    /// Description, such as `fetched model.onnx`.
    what: String,
    /// Size in bytes.
    size: u64,
    bar: Option<ProgressBar>,
}

impl TransferProgress {
    /// Shows transfers on standard error, unless `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::Silent,
            (false, true) => Self::Bars,
            (false, false) => Self::Lines,
        }
    }

    /// Prints a line.
    pub fn line(self, text: &str) {
        if !matches!(self, Self::Silent) {
            // An error of standard error cannot be reported anywhere.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Starts showing a transfer of `size` bytes.
    #[must_use]
    pub fn transfer(self, what: &str, size: u64) -> Transfer {
        let bar = matches!(self, Self::Bars).then(|| {
            let style = ProgressStyle::with_template(
                "  {msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}",
            );
            let bar = ProgressBar::new(size).with_message(what.to_owned());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Transfer { progress: self, what: what.to_owned(), size, bar }
    }
}

impl Transfer {
    /// Shows that `bytes` have been transferred.
    pub fn set_position(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// Shows that the transfer is complete.
    pub fn finish(self) {
        let Self { progress, what, size, bar } = self;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        progress.line(&format!("  {what}, {}", ByteSize(size).display().si()));
    }
}
