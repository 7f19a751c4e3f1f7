//! The exposition formats: Prometheus' text format, version 0.0.4, and OpenMetrics 1.0.
//!
//! Implemented here, as no crate has both: `prometheus` has the former, `prometheus-client` the
//! latter, with a lock in each histogram.

use std::fmt::{Display, Write};

use super::histogram::Histogram;
use super::table::{Family, MetricKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    Prometheus,
    OpenMetrics,
}

impl ExpositionFormat {
    /// Negotiates by the `Accept` header: OpenMetrics if it is named with at least the quality of
    /// plain text, else Prometheus.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let best_quality = |names: &[&str]| {
            let ranges = accept.split(',').map(quality);
            let matching =
                ranges.filter(|(name, _)| names.iter().any(|n| name.eq_ignore_ascii_case(n)));
            matching.map(|(_, quality)| quality).fold(0.0, f32::max)
        };
        let open = best_quality(&["application/openmetrics-text"]);
        if open > 0.0 && open >= best_quality(&["text/plain", "text/*"]) {
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

/// Splits a media range of `Accept` into its name, without parameters, and its quality (RFC 9110,
/// 12.5.1).
fn quality(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (name, quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
}

/// Builder of the exposition's text.
#[derive(Debug)]
pub struct Exposition {
    format: ExpositionFormat,
    text: String,
}

/// Writer of the samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    family: &'static Family,
}

impl Exposition {
    #[must_use]
    pub fn new(format: ExpositionFormat) -> Self {
        Self { format, text: String::new() }
    }

    /// Starts `family`: writes its metadata, and returns the writer of its samples.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, unit, help, .. } = family;
        let name = match self.format {
            ExpositionFormat::Prometheus => name,
            ExpositionFormat::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        if self.format == ExpositionFormat::OpenMetrics && !unit.is_empty() {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        Samples { text: &mut self.text, family }
    }

    /// The complete text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == ExpositionFormat::OpenMetrics {
            self.line(format_args!("# EOF"));
        }
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a `String` does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

impl Samples<'_> {
    /// Writes a sample. `labels` are the values of the family's labels, in its order.
    pub fn value(&mut self, labels: &[&str], value: impl Display) -> &mut Self {
        self.sample("", labels, None, value);
        self
    }

    /// Writes the samples of a histogram.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) -> &mut Self {
        let mut count = 0;
        for (bound, cumulative) in histogram.cumulative() {
            let bound = bound.map_or("+Inf".to_owned(), number);
            self.sample("_bucket", labels, Some(&bound), cumulative);
            count = cumulative;
        }
        self.sample("_sum", labels, None, histogram.sum());
        self.sample("_count", labels, None, count);
        self
    }

    fn sample(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: impl Display) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let named = self.family.labels.iter().copied().zip(labels.iter().copied());
        let mut separator = '{';
        for (name, value) in named.chain(bound.map(|bound| ("le", bound))) {
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
            separator = ',';
        }
        let close = if separator == ',' { "}" } else { "" };
        // Writing to a `String` does not fail.
        let _ = writeln!(self.text, "{close} {value}");
    }
}

/// A bucket's bound in the form of OpenMetrics: `1.0`, `0.0005`.
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
        kind: MetricKind::Counter,
        unit: "",
        labels: &["b", "c"],
        help: "Of a.",
    };
    static HISTOGRAM: Family = Family {
        name: "d_seconds",
        kind: MetricKind::Histogram,
        unit: "seconds",
        labels: &[],
        help: "Of d.",
    };
    static BUCKETS: Buckets = Buckets { bounds: &[50, 1_000_000], steps: 1_000_000 };

    fn text(format: ExpositionFormat) -> String {
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
    fn both_formats_are_written() {
        let [counter, histogram] = SAMPLES;
        assert_eq!(
            text(ExpositionFormat::Prometheus),
            format!(
                "# HELP a_total Of a.\n# TYPE a_total counter\n{counter}\
                 # HELP d_seconds Of d.\n# TYPE d_seconds histogram\n{histogram}"
            )
        );
        assert_eq!(
            text(ExpositionFormat::OpenMetrics),
            format!(
                "# HELP a Of a.\n# TYPE a counter\n{counter}\
                 # HELP d_seconds Of d.\n# TYPE d_seconds histogram\n# UNIT d_seconds seconds\n\
                 {histogram}# EOF\n"
            )
        );
    }

    #[test]
    fn format_is_negotiated_by_accept() {
        for (accept, open) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", true),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=x", false),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.5", false),
            // Defaults of Prometheus 2 and 3.
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
            assert_eq!(
                ExpositionFormat::negotiate(accept) == ExpositionFormat::OpenMetrics,
                open,
                "{accept}"
            );
        }
    }

    proptest! {
        #[test]
        fn label_value_is_escaped_to_one_line_and_can_be_read_back(value in any::<String>()) {
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
                        None => prop_assert!(false, "backslash at the end: {escaped}"),
                    },
                    '"' => prop_assert!(false, "unescaped quote: {escaped}"),
                    other => read.push(other),
                }
            }
            prop_assert_eq!(read, value);
        }

        #[test]
        fn any_accept_header_is_handled(accept in "[ -~]{0,80}") {
            let _ = ExpositionFormat::negotiate(&accept);
        }
    }
}
