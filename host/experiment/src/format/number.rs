//! Numbers and durations of a file.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::keys::{Keys, Problems, shown};

/// Suffixes of a duration, with their lengths in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The number of a value.
#[expect(clippy::cast_precision_loss, reason = "valid values are far below 2^53")]
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}

/// Parses a whole number with a suffix: `500ms`, `30s`, `10m`, `2h`, `7d`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, length) = UNITS.iter().find(|(suffix, _)| *suffix == &text[digits.len()..])?;
    let count: u64 = digits.parse().ok()?;
    count.checked_mul(*length).map(Duration::from_millis)
}

/// A duration as in a file, with the largest suffix that leaves a whole number.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let (suffix, length) = UNITS
        .iter()
        .rev()
        .find(|(_, length)| milliseconds.is_multiple_of(u128::from(*length)) && milliseconds > 0)
        .unwrap_or(&UNITS[1]);
    format!("{}{suffix}", milliseconds / u128::from(*length))
}

impl Keys<'_> {
    /// A number that has to be `fitting` if it is set: `expected` describes them, as in
    /// "a share from 0 to 1".
    pub(super) fn number(
        &self,
        key: &str,
        expected: &str,
        problems: &mut Problems,
        fitting: impl Fn(f64) -> bool,
    ) -> Option<f64> {
        let value = self.table.get(key)?;
        match number(value) {
            // -0 becomes 0.
            Some(number) if fitting(number) => Some(if number == 0.0 { 0.0 } else { number }),
            Some(number) => {
                problems.add(self.key(key), format_args!("{number} is not {expected}"));
                None
            }
            None => {
                let got = value.type_str();
                problems.add(self.key(key), format_args!("expected {expected}, got {got}"));
                None
            }
        }
    }

    /// A whole number from `range`, if it is set.
    pub(super) fn count(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        problems: &mut Problems,
    ) -> Option<u64> {
        let (from, to) = (range.start(), range.end());
        let value = self.table.get(key)?;
        let count = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let count = count.filter(|count| range.contains(count));
        if count.is_none() {
            let got = shown(value);
            let problem = format_args!("{got} is not a whole number from {from} to {to}");
            problems.add(self.key(key), problem);
        }
        count
    }

    /// A duration from `range`, if it is set.
    pub(super) fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Duration>,
        problems: &mut Problems,
    ) -> Option<Duration> {
        let text = self.text(key, problems)?;
        let duration = parse_duration(text).filter(|duration| range.contains(duration));
        if duration.is_none() {
            let (from, to) = (duration_text(*range.start()), duration_text(*range.end()));
            let text = text.escape_debug();
            let problem = format_args!(
                "\"{text}\" is not a duration from {from} to {to}; write a whole number with ms, s, \
                 m, h or d, such as \"10m\""
            );
            problems.add(self.key(key), problem);
        }
        duration
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_one_suffix() {
        for (text, milliseconds) in
            [("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("2h", 7_200_000), ("0s", 0)]
        {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Some(duration));
            assert_eq!(duration_text(duration), text);
        }
        assert_eq!(duration_text(Duration::from_millis(90_000)), "90s");
        for text in ["", "s", "10", "1.5s", "-1s", "1 s", "10M", "99999999999999999999s", "1é"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration(&format!("{}d", u64::MAX)), None, "overflow");
    }

    proptest! {
        #[test]
        fn any_duration_is_read_from_its_text(milliseconds in 0..u64::MAX) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Some(duration));
        }
    }
}
