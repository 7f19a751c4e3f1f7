//! The log: to standard error, for people on a terminal, as JSON by flag.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Which lines to log, in `tracing_subscriber`'s filter syntax: `SPINFER_LOG=debug`.
const FILTER_VARIABLE: &str = "SPINFER_LOG";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line each.
    #[default]
    Human,
    /// One JSON object each.
    Json,
}

/// What warns of what a client does: of each body that it breaks off, each rule of HTTP/2 that it
/// breaks, as often as it does.
const TOO_LOUD: &str = "wasmtime_wasi_http=error,h2=error";

/// Starts logging; `quiet` keeps only warnings, unless the environment says otherwise.
pub fn init(format: LogFormat, quiet: bool) {
    let level = if quiet { LevelFilter::WARN } else { LevelFilter::INFO };
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let wanted = if wanted.is_empty() { format!("{level},{TOO_LOUD}") } else { wanted };
    let filter = EnvFilter::builder().parse_lossy(wanted);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Human => subscriber.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
