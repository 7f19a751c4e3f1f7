//! How long an instance is reused, and thereby which state requests share.
//!
//! Requests that the same instance serves, in sequence or, with `wasi:http` 0.3, concurrently,
//! share its linear memory, globals and resource handles. Whatever the settings, requests share
//! nothing
//! - with another instance or another component,
//! - after a trap or an exceeded deadline, both of which destroy the instance,
//! - through the file system, as mounts are read-only.
//!
//! With `requests = 1` requests share nothing: each is served by an instance of its own, created
//! from the same initial memory. That is the default for `wasi:http` 0.2, whose toolchains
//! (JavaScript's, Go's) are built for it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::config::limits::{MAX_DURATION, some_duration};

/// `[component.<id>.tool.spinfer.reuse]`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Maximum number of requests that an instance serves. `None`: the default of the interface that
    /// it serves them through, [`Self::requests_through`].
    pub requests: Option<CountRange>,
    /// Maximum age of an instance.
    pub age: Duration,
    /// Maximum number of requests that a `wasi:http` 0.3 instance serves concurrently, while they
    /// wait for I/O. Instances of other interfaces serve one.
    pub concurrency: CountRange,
    /// Minimum number of idle instances behind each door, while several requests of the component
    /// are in flight.
    pub min_idle: usize,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            requests: None,
            age: Duration::from_secs(60 * 60),
            // Spin's default.
            concurrency: CountRange::from(16),
            min_idle: 1,
        }
    }
}

/// `[application.tool.spinfer.reuse]` or `[component.<id>.tool.spinfer.reuse]`. An absent key is
/// inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ReuseConfig {
    pub(crate) requests: Option<CountRange>,
    #[serde(default, with = "some_duration")]
    pub(crate) age: Option<Duration>,
    pub(crate) concurrency: Option<CountRange>,
    pub(crate) min_idle: Option<usize>,
}

/// The interface that an instance serves requests through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedInterface {
    /// A typed call of this host's own interfaces: the fast and the assignment door. Also
    /// `wasi:http/handler` 0.3 of a component that exports the fast door.
    Typed,
    /// `wasi:http/handler` 0.3.
    Http03,
    /// `wasi:http/incoming-handler` 0.2.
    Http02,
    /// `fermyon:spin/inbound-http`.
    Spin1,
}

impl ServedInterface {
    /// Number of requests that an instance serves, unless it is set.
    const fn default_requests(self) -> usize {
        match self {
            // The interface states that instances are reused (wit/spinfer-serve).
            Self::Typed => 100_000,
            // As in Spin.
            Self::Http03 => 128,
            Self::Http02 | Self::Spin1 => 1,
        }
    }
}

/// Maximum of `min_idle`: each idle instance takes a slot in the pool.
const MAX_MIN_IDLE: usize = 100;

impl Reuse {
    /// Maximum number of requests that an instance serves through `interface`.
    #[must_use]
    pub fn requests_through(&self, interface: ServedInterface) -> CountRange {
        self.requests.unwrap_or_else(|| interface.default_requests().into())
    }

    /// These settings, overridden by `config`.
    ///
    /// # Errors
    /// Names the key of the first setting that is out of range.
    pub fn with(&self, config: &ReuseConfig) -> Result<Self, String> {
        let reuse = Self {
            requests: config.requests.or(self.requests),
            age: config.age.unwrap_or(self.age),
            concurrency: config.concurrency.unwrap_or(self.concurrency),
            min_idle: config.min_idle.unwrap_or(self.min_idle),
        };
        if reuse.age > MAX_DURATION {
            return Err("reuse.age: must be at most a day, for example \"1h\"".into());
        }
        if reuse.requests.is_some_and(|requests| requests.start == 0) {
            return Err("reuse.requests: must be at least 1 (a new instance per request)".into());
        }
        if reuse.concurrency.start == 0 {
            return Err("reuse.concurrency: must be at least 1".into());
        }
        if reuse.min_idle > MAX_MIN_IDLE {
            return Err(format!("reuse.min_idle: must be at most {MAX_MIN_IDLE}"));
        }
        Ok(reuse)
    }
}

/// A number, or a range from which each instance draws its number, so that instances started
/// together are not all replaced at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRange {
    start: usize,
    /// End of the range, exclusive.
    end: usize,
}

impl From<usize> for CountRange {
    fn from(number: usize) -> Self {
        Self { start: number, end: number.saturating_add(1) }
    }
}

impl CountRange {
    /// Draws the number of one instance.
    #[must_use]
    pub fn draw(self) -> usize {
        let Self { start, end } = self;
        if end - start > 1 { fastrand::usize(start..end) } else { start }
    }
}

impl fmt::Display for CountRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end } = self;
        if end - start > 1 { write!(f, "{start}..{end}") } else { write!(f, "{start}") }
    }
}

impl FromStr for CountRange {
    type Err = String;

    /// Parses `8`, or `1..8` with an exclusive end.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse::<usize>()
                .map_err(|_| format!("\"{text}\" is neither a number nor a range; write 8 or 1..8"))
        };
        match range(text) {
            None => number(text).map(Self::from),
            Some(Range { start, end }) => {
                let (start, end) = (number(start)?, number(end)?);
                if start < end { Ok(Self { start, end }) } else { Err(empty(text)) }
            }
        }
    }
}

/// Splits `1..8` into its two sides.
fn range(text: &str) -> Option<Range<&str>> {
    text.split_once("..").map(|(start, end)| start..end)
}

fn empty(text: &str) -> String {
    format!("\"{text}\" is an empty range, as its end is exclusive; write 1..8")
}

/// Parses a duration of Spin's flags: `30s`, a plain number of seconds, or a range, `1..8s`, from
/// which a duration is drawn.
///
/// # Errors
/// Quotes the invalid part, and what to write instead.
pub fn parse_duration_or_range(text: &str) -> Result<Duration, String> {
    let time = |text: &str| match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        // Spin accepts the Greek mu as well.
        Err(_) => humantime::parse_duration(&text.replace('μ', "u")).map_err(|e| {
            format!("\"{text}\" is not a duration: {e}; write 30s, 500ms or a range, 1..8s")
        }),
    };
    let Some(Range { start, end }) = range(text) else { return time(text) };
    let (start, end) = (time(start)?, time(end)?);
    if start >= end {
        return Err(empty(text));
    }
    // Saturates: a duration of centuries is over every maximum.
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Ok(Duration::from_nanos(fastrand::u64(nanoseconds(start)..=nanoseconds(end) - 1)))
}

impl<'de> Deserialize<'de> for CountRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number or a range, \"1..8\"")]
        enum Form {
            Number(usize),
            Range(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(number.into()),
            Form::Range(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in "[0-9.]{0,12}|.*") {
            if let Ok(count) = text.parse::<CountRange>() {
                let drawn = count.draw();
                prop_assert!(count.start <= drawn && drawn < count.end || drawn == usize::MAX);
                prop_assert_eq!(count.to_string().parse(), Ok(count));
            }
            let _ = parse_duration_or_range(&text);
        }

        #[test]
        fn drawn_values_are_within_their_range(start in 0_usize..50, length in 1_usize..50) {
            let end = start + length;
            let count: CountRange = format!("{start}..{end}").parse().unwrap();
            prop_assert!((start..end).contains(&count.draw()));
            let time = parse_duration_or_range(&format!("{start}..{end}s")).unwrap();
            let second = |count: usize| Duration::from_secs(count as u64);
            prop_assert!(second(start) <= time && time < second(end));
        }
    }

    #[test]
    fn durations_are_parsed_like_spins() {
        for (text, time) in [
            ("2", Duration::from_secs(2)),
            ("2s", Duration::from_secs(2)),
            ("300ms", Duration::from_millis(300)),
            ("7us", Duration::from_micros(7)),
            ("7μs", Duration::from_micros(7)),
            ("9ns..10ns", Duration::from_nanos(9)),
        ] {
            assert_eq!(parse_duration_or_range(text), Ok(time), "{text}");
        }
        for (text, part) in
            [("", "is not a duration"), ("1..x", "\"x\" is not a"), ("2..1s", "an empty range")]
        {
            let error = parse_duration_or_range(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    fn resolve(toml: &str) -> Result<Reuse, String> {
        let config: ReuseConfig = toml::from_str(toml).map_err(|e| e.to_string())?;
        Reuse::default().with(&config)
    }

    #[test]
    fn absent_setting_is_inherited() {
        assert_eq!(resolve(""), Ok(Reuse::default()));
        let expected =
            Reuse { requests: Some(1.into()), age: Duration::from_secs(60), ..Reuse::default() };
        assert_eq!(resolve("requests = 1\nage = '1m'"), Ok(expected));
        let range = resolve("requests = '10..20'").unwrap().requests.unwrap();
        assert_eq!((range.start, range.end), (10, 20));
    }

    #[test]
    fn default_number_of_requests_depends_on_the_interface() {
        use ServedInterface::{Http02, Http03, Spin1, Typed};
        let through = |toml: &str| {
            let reuse = resolve(toml).unwrap();
            [Typed, Http03, Http02, Spin1].map(|interface| reuse.requests_through(interface).draw())
        };
        assert_eq!(through(""), [100_000, 128, 1, 1]);
        assert_eq!(through("requests = 7"), [7; 4], "a setting is for every interface");
    }

    #[test]
    fn setting_out_of_range_is_rejected_with_its_key() {
        for (toml, part) in [
            ("requests = 0", "reuse.requests"),
            ("concurrency = 0", "reuse.concurrency"),
            ("requests = '0..8'", "reuse.requests"),
            ("requests = '8..8'", "an empty range"),
            ("requests = 'many'", "\"many\" is neither a number nor a range; write 8 or 1..8"),
            ("concurrency = true", "expected a number or a range"),
            ("min_idle = 101", "reuse.min_idle"),
            ("spare = 1", "unknown field `spare`"),
            ("age = '10000000000000000000s'", "reuse.age"),
            ("age = 'long'", "write \"30s\""),
            ("request = 1", "unknown field `request`"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(part), "{toml}: {error}");
        }
    }
}
