//! Timestamps: microseconds of Unix time in the file, RFC 3339 everywhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// `time` in microseconds of Unix time; 0 before 1970.
#[must_use]
pub fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Formats microseconds of Unix time in RFC 3339: `2026-11-30T12:00:00.000000Z`.
#[must_use]
pub fn format(micros: i64) -> String {
    // The last microsecond that RFC 3339 can represent.
    const LAST: u64 = 253_402_300_799_999_999;
    let micros = u64::try_from(micros).unwrap_or(0).min(LAST);
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(micros)).to_string()
}

/// Parses an RFC 3339 time to microseconds of Unix time. `None` if `text` is not one, or is before
/// 1970.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (local, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, seconds_east(offset)?)
        }
    };
    // RFC 3339 allows a space instead of the T, which `humantime` allows in its weak form only.
    let time = humantime::parse_rfc3339(&format!("{}Z", local.replace(['t', ' '], "T"))).ok()?;
    let micros = micros(time).checked_sub(offset * 1_000_000)?;
    (micros >= 0).then_some(micros)
}

/// Parses an offset, in seconds: `+01:30` is 5,400.
fn seconds_east(offset: &str) -> Option<i64> {
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let number = |text: &str, below: i64| -> Option<i64> {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = if is_number { text.parse().ok()? } else { return None };
        (number < below).then_some(number)
    };
    let seconds = number(hours, 24)? * 3600 + number(minutes, 60)? * 60;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

/// The smallest UUIDv7 of the millisecond of `micros`.
#[must_use]
pub(super) fn first_id(micros: i64) -> Uuid {
    const MILLIS: u64 = (1 << 48) - 1;
    let millis = u64::try_from(micros / 1000).unwrap_or(0).min(MILLIS);
    Uuid::from_u128(u128::from(millis) << 80)
}

/// The time in a UUIDv7, in microseconds of Unix time.
#[must_use]
pub(super) fn micros_of(id: Uuid) -> i64 {
    let millis = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX);
    millis.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_with_offsets_and_fractions_are_parsed() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-30T12:00:00.5Z", 1_796_040_000_500_000),
            ("2026-11-30t12:00:00.000001z", 1_796_040_000_000_001),
            ("2026-11-30 13:30:00+01:30", 1_796_040_000_000_000),
            ("2026-11-30T07:00:00-05:00", 1_796_040_000_000_000),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
        }
        for text in [
            "",
            "Z",
            "now",
            "2026-11-30",
            "2026-11-30T12:00:00",
            "2026-11-30T12:00:00+1:30",
            "2026-11-30T12:00:00+24:00",
            "2026-11-30T12:00:00+-1:30",
            "2026-13-30T12:00:00Z",
            "1970-01-01T00:00:00+00:01",
            "ééé",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn formatted_time_is_parsed_back(micros in 0_i64..253_402_300_799_999_999) {
            prop_assert_eq!(parse(&format(micros)), Some(micros));
        }

        #[test]
        fn any_text_is_handled(text in "[-+0-9TZtz:. é]{0,40}") {
            let _ = parse(&text);
        }

        // An id has 48 bits of milliseconds.
        #[test]
        fn ids_are_ordered_by_time(
            one in 0_i64..1000 << 48,
            other in 0_i64..1000 << 48,
        ) {
            prop_assert_eq!(micros_of(first_id(one)), one / 1000 * 1000);
            prop_assert_eq!(
                first_id(one).cmp(&first_id(other)),
                (one / 1000).cmp(&(other / 1000)),
            );
        }
    }
}
