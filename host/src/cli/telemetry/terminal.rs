//! The log on a terminal: short times, no names of modules, and no line wider than [`WIDTH`].

use std::fmt::{self, Write};

use chrono::Local;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::GUEST;

/// Width of a terminal that is not wider than usual.
pub(crate) const WIDTH: usize = 80;
/// Width of the time, the level, and the spaces after them.
const HEAD: usize = "12:00:00 DEBUG ".len();
/// Indent of the further lines of an event.
const INDENT: usize = 4;

/// Formats an event as `12:00:00  INFO graph loaded model=iris/1 took=1.2ms`.
#[derive(Debug)]
pub(super) struct TerminalFormat;

impl<S, N> FormatEvent<S, N> for TerminalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let text = fields.text(metadata.target());
        let (time, level) = (Local::now().format("%H:%M:%S"), *metadata.level());
        if out.has_ansi_escapes() {
            write!(out, "\x1b[2m{time}\x1b[0m {}{level:>5}\x1b[0m ", color(level))?;
        } else {
            write!(out, "{time} {level:>5} ")?;
        }
        for line in wrapped(&text, WIDTH - HEAD, INDENT) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    }
}

/// The fields of an event.
#[derive(Debug, Default)]
struct EventFields {
    message: String,
    /// ` name=value` of each.
    others: String,
    component: String,
}

impl EventFields {
    fn text(self, target: &str) -> String {
        let Self { message, others, component } = self;
        match target {
            // The output of a component.
            GUEST => format!("{component}: {message}"),
            _ if target.starts_with("spinfer") || target == super::REQUESTS => message + &others,
            _ => format!("{target}: {message}{others}"),
        }
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }
}

impl EventFields {
    fn add(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = visible(value),
            name => {
                if name == "component" {
                    self.component = visible(value);
                }
                let value = rounded(value).unwrap_or_else(|| visible(value));
                // A `String` cannot fail.
                let _ = write!(self.others, " {name}={value}");
            }
        }
    }
}

/// `text` on one line, without control characters, which could change what a terminal shows.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' | '\t' => visible.push(' '),
            c if c.is_control() => visible.extend(c.escape_default()),
            c => visible.push(c),
        }
    }
    visible
}

/// A duration of `Debug`, `1.234567ms`, with two digits: `1.2ms`.
fn rounded(value: &str) -> Option<String> {
    let unit = ["ns", "µs", "ms", "s"].into_iter().find(|unit| value.ends_with(unit))?;
    let digits = value.strip_suffix(unit)?;
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = digits.parse().ok()?;
    let decimals = usize::from(number < 10.0 && digits.contains('.'));
    Some(format!("{number:.decimals$}{unit}"))
}

/// The lines of `text`: the first has at most `first` columns, and each other [`WIDTH`], with an `indent`.
/// A longer word is not broken, as it may be a path to copy.
pub(crate) fn wrapped(text: &str, first: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut columns, mut limit) = (String::new(), 0, first);
    for word in text.split(' ') {
        let width = word.chars().count();
        if columns > 0 && columns + 1 + width > limit {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            (columns, limit) = (0, WIDTH - indent);
        }
        if columns > 0 {
            line.push(' ');
            columns += 1;
        }
        line.push_str(word);
        columns += width;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::util::SubscriberInitExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            io::Write::write(&mut *self.0.lock().unwrap(), bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `log` writes, without the times.
    fn logged(log: impl FnOnce()) -> Vec<String> {
        let output = Output::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(TerminalFormat)
            .with_writer(move || writer.clone());
        let guard = subscriber.set_default();
        log();
        drop(guard);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let is_time = |line: &str| line.as_bytes().get(2) == Some(&b':');
        text.lines()
            .map(|line| if is_time(line) { line[9..].to_owned() } else { line.to_owned() })
            .collect()
    }

    #[test]
    fn events_are_short_lines() {
        let took = Duration::from_nanos(1_234_567);
        let lines = logged(|| tracing::info!(model = "iris/1", ?took, "graph loaded"));
        assert_eq!(lines, [" INFO graph loaded model=iris/1 took=1.2ms"]);
        let lines = logged(|| {
            tracing::info!(target: "guest", component = "a", stream = "stderr", "said\x1b[2J");
            tracing::warn!(target: "hyper::proto", "closed");
        });
        assert_eq!(lines, [" INFO a: said\\u{1b}[2J", " WARN hyper::proto: closed"]);
        let long = "word ".repeat(60);
        let lines = logged(|| tracing::error!(%long, "a message"));
        assert!(lines.len() > 3 && lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert!(lines[1..].iter().all(|line| line.starts_with("    word")), "{lines:?}");
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(wrapped("", 10, 2), [""]);
        assert_eq!(wrapped("one two", 7, 2), ["one two"]);
        assert_eq!(wrapped("one two three", 7, 2), ["one two", "  three"]);
        let path = "x".repeat(100);
        assert_eq!(wrapped(&format!("a {path} b"), 10, 2), ["a", &format!("  {path}"), "  b"]);
    }

    #[test]
    fn durations_are_rounded() {
        for (value, rounded_value) in [
            ("1.234567ms", Some("1.2ms")),
            ("12.5µs", Some("12µs")),
            ("30s", Some("30s")),
            ("999.999s", Some("1000s")),
            ("infs", None),
            ("stores", None),
            ("ms", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(rounded(value).as_deref(), rounded_value, "{value}");
        }
    }
}
