//! Logging to standard error, human-readable or as JSON.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Environment variable with a filter in `tracing_subscriber`'s syntax: `SPINFER_LOG=debug`.
const FILTER_VARIABLE: &str = "SPINFER_LOG";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A readable line per event
    #[default]
    Human,
    /// A JSON object per line
    Json,
}

/// Targets that warn about clients' mistakes, once per aborted body or HTTP/2 violation: a client could
/// flood the log.
const QUIETED: &str = "wasmtime_wasi_http=error,h2=error";

/// Starts logging. `quiet` logs only warnings, unless `FILTER_VARIABLE` is set.
pub fn init(format: LogFormat, quiet: bool) {
    let level = if quiet { LevelFilter::WARN } else { LevelFilter::INFO };
    let directives = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let directives = if directives.is_empty() { format!("{level},{QUIETED}") } else { directives };
    let filter = EnvFilter::builder().parse_lossy(directives);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Human => subscriber.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
