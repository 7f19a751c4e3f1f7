//! What a person sees of a transfer: a bar on a terminal, a line elsewhere.

use std::io::{self, IsTerminal, Write};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};

/// Where transfers are shown: standard error, or nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub enum Progress {
    #[default]
    Silent,
    /// One line for each transfer, when it is done.
    Lines,
    /// A bar while it is under way, too.
    Bars,
}

/// One transfer.
#[derive(Debug)]
pub struct Transfer {
    progress: Progress,
    /// What it is, `fetched model.onnx`.
    what: String,
    size: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// On standard error, unless it is to be `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::Silent,
            (false, true) => Self::Bars,
            (false, false) => Self::Lines,
        }
    }

    /// Shows a line.
    pub fn line(self, text: &str) {
        if !matches!(self, Self::Silent) {
            // Nothing can be done if standard error is gone.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Begins to show the transfer of `size` bytes.
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
    /// `bytes` have been transferred since it began.
    pub fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// Says that it is done.
    pub fn done(self) {
        let Self { progress, what, size, bar } = self;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        progress.line(&format!("  {what}, {}", ByteSize(size).display().si()));
    }
}
