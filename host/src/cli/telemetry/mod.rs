//! Logging to standard error: for terminals, for other readers, or as JSON.

mod terminal;

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use self::terminal::TerminalFormat;
pub(super) use self::terminal::WIDTH;

/// Environment variable with a filter in `tracing_subscriber`'s syntax: `SPINFER_LOG=debug`.
const FILTER_VARIABLE: &str = "SPINFER_LOG";

/// Target of the lines of `--log-requests`.
pub(crate) const REQUESTS: &str = "requests";
/// Target of the output of components.
pub(crate) const GUEST: &str = "guest";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A readable line per event
    #[default]
    Human,
    /// A JSON object per line
    Json,
}

/// What is logged unless `FILTER_VARIABLE` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Warnings only.
    pub quiet: bool,
    /// Each request.
    pub requests: bool,
}

/// Targets that warn about clients' mistakes, once per aborted body or HTTP/2 violation: a client could
/// flood the log.
const QUIETED: &str = "wasmtime_wasi_http=error,h2=error";

/// Starts logging.
pub fn init(format: LogFormat, options: LogOptions) {
    let variable = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let filter = EnvFilter::builder().parse_lossy(directives(&variable, options));
    let is_terminal = io::stderr().is_terminal();
    // An event that cannot be written is dropped: the reader has closed the pipe.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match format {
        LogFormat::Human if is_terminal => {
            let ansi = allows_color(|name| std::env::var(name).ok());
            subscriber.with_ansi(ansi).event_format(TerminalFormat).init();
        }
        LogFormat::Human => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// Whether what is written to the standard output may have colours: it is a terminal that gets them.
#[must_use]
pub(super) fn output_has_colours() -> bool {
    std::io::stdout().is_terminal() && allows_color(|name| std::env::var(name).ok())
}

/// Whether a terminal gets colours ([NO_COLOR](https://no-color.org)).
fn allows_color(variable: impl Fn(&str) -> Option<String>) -> bool {
    let disabled = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !disabled && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The filter. A level without a target is that of spinfer and of components; it shows of libraries only
/// what they log by default.
fn directives(variable: &str, options: LogOptions) -> String {
    let expand = |directive: &str| match directive.trim().parse::<LevelFilter>() {
        Ok(level) => {
            let others = level.min(LevelFilter::INFO);
            format!("{others},{QUIETED},spinfer={level},{GUEST}={level},{REQUESTS}={level}")
        }
        Err(_) => directive.to_owned(),
    };
    let mut directives: Vec<_> =
        variable.split(',').filter(|directive| !directive.trim().is_empty()).map(expand).collect();
    if directives.is_empty() {
        directives.push(expand(if options.quiet { "warn" } else { "info" }));
    }
    if options.requests {
        directives.push(format!("{REQUESTS}=info"));
    }
    directives.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_that_of_spinfer() {
        let of = |variable: &str| directives(variable, LogOptions::default());
        let debug =
            "info,wasmtime_wasi_http=error,h2=error,spinfer=debug,guest=debug,requests=debug";
        assert_eq!(of("debug"), debug);
        assert_eq!(of("debug,hyper=trace"), format!("{debug},hyper=trace"));
        assert_eq!(of("spinfer::cache=debug"), "spinfer::cache=debug");
        assert!(of("").starts_with("info,") && of("").contains("spinfer=info"));
        assert!(of("error").starts_with("error,") && of("error").contains("spinfer=error"));
        assert!(of("off").starts_with("off,"));
        for variable in ["", "debug", "trace", "off", "debug,hyper=trace"] {
            EnvFilter::builder().parse(of(variable)).unwrap();
        }
    }

    #[test]
    fn requests_are_logged_also_with_quiet() {
        let of = |quiet, requests| directives("", LogOptions { quiet, requests });
        assert!(of(true, false).starts_with("warn,") && of(true, false).ends_with("requests=warn"));
        assert!(of(true, true).ends_with("requests=info"));
    }

    #[test]
    fn no_color_disables_colors() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.to_vec();
            let value = |name: &str| set.iter().find(|(other, _)| *other == name);
            allows_color(|name| value(name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(with(&[]) && with(&[("TERM", "xterm")]) && with(&[("NO_COLOR", "")]));
        assert!(!with(&[("NO_COLOR", "1")]) && !with(&[("TERM", "dumb")]));
    }
}
