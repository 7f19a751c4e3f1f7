//! For how long an instance is used, which is also what one request may leave for the next.
//!
//! What may pass between two requests that the same instance serves, one after the other or, in
//! `wasi:http` 0.3, at the same time: all its memory, globals and resource handles, as the component
//! left them. What never passes, whatever the settings: anything
//! to another instance, to another component, or past a trap or a missed deadline, both of which
//! end the instance; anything through the file system, as mounts are read-only. With
//! `requests = 1` nothing passes at all: every request has an instance of its own, from the same
//! initial memory.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::config::limits::{MAX_DURATION, some_duration};

/// `[component.<id>.tool.spinfer.reuse]`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Requests an instance serves in its life.
    pub requests: Count,
    /// How old an instance gets.
    pub age: Duration,
    /// Requests a `wasi:http` 0.3 instance serves at a time, where they wait for something. The
    /// other doors have one.
    pub concurrency: Count,
    /// Instances kept ready for a component that several requests are busy with, behind each door.
    pub spare: usize,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            requests: Count::from(100_000),
            age: Duration::from_secs(60 * 60),
            // As in Spin.
            concurrency: Count::from(16),
            spare: 1,
        }
    }
}

/// The same in a manifest; what is absent is inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReuseConfig {
    pub(crate) requests: Option<Count>,
    #[serde(default, with = "some_duration")]
    pub(crate) age: Option<Duration>,
    pub(crate) concurrency: Option<Count>,
    pub(crate) spare: Option<usize>,
}

/// Instances kept ready: each takes a place in the pool.
const MAX_SPARE: usize = 100;

impl Reuse {
    /// These settings with what `config` sets put over them.
    pub fn with(&self, config: &ReuseConfig) -> Result<Self, String> {
        let reuse = Self {
            requests: config.requests.unwrap_or(self.requests),
            age: config.age.unwrap_or(self.age),
            concurrency: config.concurrency.unwrap_or(self.concurrency),
            spare: config.spare.unwrap_or(self.spare),
        };
        if reuse.age > MAX_DURATION {
            return Err("reuse.age: must be at most a day: \"1h\"".into());
        }
        if reuse.requests.least == 0 {
            return Err("reuse.requests: must be at least 1, a new instance for each".into());
        }
        if reuse.concurrency.least == 0 {
            return Err("reuse.concurrency: must be at least 1".into());
        }
        if reuse.spare > MAX_SPARE {
            return Err(format!("reuse.spare: must be at most {MAX_SPARE}"));
        }
        Ok(reuse)
    }
}

/// A number, or a range of which each instance has one that is drawn: instances that begin together
/// need not end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    least: usize,
    /// One more than there may be.
    end: usize,
}

impl From<usize> for Count {
    fn from(number: usize) -> Self {
        Self { least: number, end: number.saturating_add(1) }
    }
}

impl Count {
    /// That of an instance.
    #[must_use]
    pub fn draw(self) -> usize {
        let Self { least, end } = self;
        if end - least > 1 { fastrand::usize(least..end) } else { least }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, end } = self;
        if end - least > 1 { write!(f, "{least}..{end}") } else { write!(f, "{least}") }
    }
}

impl FromStr for Count {
    type Err = String;

    /// Reads `8`, or `1..8`, the end of which is not part of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("\"{text}\" is no number and no range; write 8, or 1..8");
        let number = |text: &str| text.parse::<usize>().map_err(|_| form());
        match range(text) {
            None => number(text).map(Self::from),
            Some(Range { start, end }) => {
                let (least, end) = (number(start)?, number(end)?);
                if least < end { Ok(Self { least, end }) } else { Err(empty(text)) }
            }
        }
    }
}

/// The two sides of a range.
fn range(text: &str) -> Option<Range<&str>> {
    text.split_once("..").map(|(start, end)| start..end)
}

fn empty(text: &str) -> String {
    format!("\"{text}\" is an empty range: its end is not part of it; write 1..8")
}

/// Reads a time as Spin's flags have it: a number is seconds, and `1..8s` a range, of which one is
/// drawn.
pub fn drawn_time(text: &str) -> Result<Duration, String> {
    let time = |text: &str| match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        // A small mu, as Spin takes it.
        Err(_) => humantime::parse_duration(&text.replace('μ', "u"))
            .map_err(|e| format!("\"{text}\" is no time: {e}; write 30s, 500ms or a range, 1..8s")),
    };
    let Some(Range { start, end }) = range(text) else { return time(text) };
    let (start, end) = (time(start)?, time(end)?);
    if start >= end {
        return Err(empty(text));
    }
    // Beyond that it is refused anyway.
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Ok(Duration::from_nanos(fastrand::u64(nanoseconds(start)..=nanoseconds(end) - 1)))
}

impl<'de> Deserialize<'de> for Count {
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
        fn any_text_is_a_count_or_refused(text in "[0-9.]{0,12}|.*") {
            if let Ok(count) = text.parse::<Count>() {
                let drawn = count.draw();
                prop_assert!(count.least <= drawn && drawn < count.end || drawn == usize::MAX);
                prop_assert_eq!(count.to_string().parse(), Ok(count));
            }
            let _ = drawn_time(&text);
        }

        #[test]
        fn what_is_drawn_is_within_its_range(start in 0_usize..50, length in 1_usize..50) {
            let end = start + length;
            let count: Count = format!("{start}..{end}").parse().unwrap();
            prop_assert!((start..end).contains(&count.draw()));
            let time = drawn_time(&format!("{start}..{end}s")).unwrap();
            let second = |count: usize| Duration::from_secs(count as u64);
            prop_assert!(second(start) <= time && time < second(end));
        }
    }

    #[test]
    fn times_are_as_in_spin() {
        for (text, time) in [
            ("2", Duration::from_secs(2)),
            ("2s", Duration::from_secs(2)),
            ("300ms", Duration::from_millis(300)),
            ("7us", Duration::from_micros(7)),
            ("7μs", Duration::from_micros(7)),
            ("9ns..10ns", Duration::from_nanos(9)),
        ] {
            assert_eq!(drawn_time(text), Ok(time), "{text}");
        }
        for (text, part) in
            [("", "is no time"), ("1..x", "\"x\" is no time"), ("2..1s", "an empty range")]
        {
            let error = drawn_time(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    fn resolve(toml: &str) -> Result<Reuse, String> {
        let config: ReuseConfig = toml::from_str(toml).map_err(|e| e.to_string())?;
        Reuse::default().with(&config)
    }

    #[test]
    fn what_is_absent_is_inherited() {
        assert_eq!(resolve(""), Ok(Reuse::default()));
        let expected =
            Reuse { requests: 1.into(), age: Duration::from_secs(60), ..Reuse::default() };
        assert_eq!(resolve("requests = 1\nage = '1m'"), Ok(expected));
        let range = resolve("requests = '10..20'").unwrap().requests;
        assert_eq!((range.least, range.end), (10, 20));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (toml, part) in [
            ("requests = 0", "reuse.requests"),
            ("concurrency = 0", "reuse.concurrency"),
            ("requests = '0..8'", "reuse.requests"),
            ("requests = '8..8'", "an empty range"),
            ("requests = 'many'", "\"many\" is no number and no range; write 8, or 1..8"),
            ("concurrency = true", "expected a number or a range"),
            ("spare = 101", "reuse.spare"),
            ("age = '10000000000000000000s'", "reuse.age"),
            ("age = 'long'", "write \"30s\""),
            ("request = 1", "unknown field `request`"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(part), "{toml}: {error}");
        }
    }
}
