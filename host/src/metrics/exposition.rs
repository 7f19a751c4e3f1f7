//! The text that monitoring systems read: Prometheus' own format, version 0.0.4, and OpenMetrics 1.0.
//!
//! Written here, as no crate does both: `prometheus` has the one, `prometheus-client` the other, with a
//! lock in each histogram.

use std::fmt::{Display, Write};

use super::histogram::Histogram;
use super::table::{Family, Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The one that `accept` likes best: Prometheus', unless it names OpenMetrics.
    #[must_use]
    pub fn asked(accept: &str) -> Self {
        let wanted = |names: &[&str]| {
            let ranges = accept.split(',').map(quality);
            let of = ranges.filter(|(name, _)| names.iter().any(|n| name.eq_ignore_ascii_case(n)));
            of.map(|(_, quality)| quality).fold(0.0, f32::max)
        };
        let open = wanted(&["application/openmetrics-text"]);

        if open > 0.0 && open >= wanted(&["text/plain", "text/*"]) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A media range of `Accept` without its parameters, and its quality (RFC 9110, 12.5.1).
fn quality(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (name, quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
}

/// The text in the making.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
}

/// The samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    family: &'static Family,
}

impl Exposition {
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// What follows are samples of `family`.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, unit, help, .. } = family;
        let name = match self.format {
            Format::Prometheus => name,
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        Samples { text: &mut self.text, family }
    }

    /// All of it.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.line(format_args!("# EOF"));
        }
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A `String` takes all.
        let _ = writeln!(self.text, "{line}");
    }
}

impl Samples<'_> {
    /// The family's value for `labels`, in its order.
    pub fn value(&mut self, labels: &[&str], value: impl Display) -> &mut Self {
        self.sample("", labels, None, value);
        self
    }

    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) -> &mut Self {
        let mut count = 0;
        for (end, up_to) in histogram.cumulative() {
            let end = end.map_or("+Inf".to_owned(), number);
            self.sample("_bucket", labels, Some(&end), up_to);
            count = up_to;
        }
        self.sample("_sum", labels, None, histogram.sum());
        self.sample("_count", labels, None, count);
        self
    }

    fn sample(&mut self, suffix: &str, labels: &[&str], end: Option<&str>, value: impl Display) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let named = self.family.labels.iter().copied().zip(labels.iter().copied());
        let mut separator = '{';
        for (name, value) in named.chain(end.map(|end| ("le", end))) {
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
            separator = ',';
        }
        let close = if separator == ',' { "}" } else { "" };
        // A `String` takes all.
        let _ = writeln!(self.text, "{close} {value}");
    }
}

/// As OpenMetrics writes the ends of buckets: `1.0`, `0.0005`.
fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.1}") } else { value.to_string() }
}

fn escape(value: &str, into: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::histogram::Buckets;
    use super::*;

    static COUNTER: Family = Family {
        name: "a_total",
        kind: Kind::Counter,
        unit: "",
        labels: &["b", "c"],
        help: "Of a.",
    };
    static HISTOGRAM: Family = Family {
        name: "d_seconds",
        kind: Kind::Histogram,
        unit: "seconds",
        labels: &[],
        help: "Of d.",
    };
    static BUCKETS: Buckets = Buckets { bounds: &[50, 1_000_000], steps: 1_000_000 };

    fn text(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        let mut counter = exposition.family(&COUNTER);
        counter.value(&["x", "a \"quote\", a \\ and a\nline"], 7).value(&["é", ""], 0);
        let histogram = Histogram::new(&BUCKETS);
        [10, 50, 51, 2_000_000].into_iter().for_each(|value| histogram.observe(value));
        exposition.family(&HISTOGRAM).histogram(&[], &histogram);
        exposition.finish()
    }

    const SAMPLES: [&str; 2] = [
        r#"a_total{b="x",c="a \"quote\", a \\ and a\nline"} 7
a_total{b="é",c=""} 0
"#,
        r#"d_seconds_bucket{le="0.00005"} 2
d_seconds_bucket{le="1.0"} 3
d_seconds_bucket{le="+Inf"} 4
d_seconds_sum 2.000111
d_seconds_count 4
"#,
    ];

    #[test]
    fn as_the_formats_have_it() {
        let [counter, histogram] = SAMPLES;
        assert_eq!(
            text(Format::Prometheus),
            format!(
                "# HELP a_total Of a.\n# TYPE a_total counter\n{counter}\
                 # HELP d_seconds Of d.\n# TYPE d_seconds histogram\n{histogram}"
            )
        );
        assert_eq!(
            text(Format::OpenMetrics),
            format!(
                "# HELP a Of a.\n# TYPE a counter\n{counter}\
                 # HELP d_seconds Of d.\n# TYPE d_seconds histogram\n# UNIT d_seconds seconds\n\
                 {histogram}# EOF\n"
            )
        );
    }

    #[test]
    fn who_asks_gets_what_it_likes_best() {
        for (accept, open) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", true),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=x", false),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.5", false),
            // Prometheus 2 and 3, by default.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
            (
                "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2",
                false,
            ),
        ] {
            assert_eq!(Format::asked(accept) == Format::OpenMetrics, open, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn a_value_of_a_label_is_one_line_and_can_be_read_back(value in any::<String>()) {
            let mut escaped = String::new();
            escape(&value, &mut escaped);
            prop_assert!(!escaped.contains('\n'));
            let mut characters = escaped.chars();
            let mut read = String::new();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => match characters.next() {
                        Some('n') => read.push('\n'),
                        Some(other) => read.push(other),
                        None => prop_assert!(false, "nothing is escaped: {escaped}"),
                    },
                    '"' => prop_assert!(false, "it ends there: {escaped}"),
                    other => read.push(other),
                }
            }
            prop_assert_eq!(read, value);
        }

        #[test]
        fn no_accept_header_panics(accept in "[ -~]{0,80}") {
            let _ = Format::asked(&accept);
        }
    }
}
