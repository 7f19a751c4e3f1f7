//! Names of partitions, as Hive writes them: `model=iris/version=1/day=2026-11-30`.

use std::fmt::Write;

use super::super::times::format;

/// Value of a partition without one.
const DEFAULT: &str = "__HIVE_DEFAULT_PARTITION__";
/// Printable characters that Hive percent-encodes, besides control characters.
const ENCODED: &str = "\"#%'*/:=?\\{[]^\x7f";
/// Microseconds of a day.
pub(super) const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// The partition `key` with this value.
pub(super) fn partition(key: &str, value: &str) -> String {
    let mut name = format!("{key}=");
    if value.is_empty() {
        name.push_str(DEFAULT);
    }
    for character in value.chars() {
        if character.is_ascii_control() || ENCODED.contains(character) {
            // Writing to a string does not fail.
            let _ = write!(name, "%{:02X}", u32::from(character));
        } else {
            name.push(character);
        }
    }
    name
}

/// The partition of a day, in days of Unix time.
pub(super) fn day(day: i64) -> String {
    let time = format(day.saturating_mul(DAY));
    partition("day", time.split('T').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn special_characters_are_percent_encoded() {
        assert_eq!(partition("model", "iris-classifier"), "model=iris-classifier");
        assert_eq!(partition("model", "a/b=c:d%20 é'\n"), "model=a%2Fb%3Dc%3Ad%2520 é%27%0A");
        assert_eq!(partition("version", ""), "version=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(day(0), "day=1970-01-01");
        assert_eq!(day(1_796_040_000_000_000 / DAY), "day=2026-11-30");
    }

    proptest! {
        #[test]
        fn value_is_decoded_from_its_partition(value in "\\PC{1,20}|[%/=:'\n\t]{1,9}") {
            let name = partition("k", &value);
            let encoded = name.strip_prefix("k=").unwrap();
            prop_assert!(!encoded.contains(['/', '=', '\n']));
            let mut decoded = Vec::new();
            let mut rest = encoded;
            while let Some((before, after)) = rest.split_once('%') {
                decoded.extend_from_slice(before.as_bytes());
                decoded.push(u8::from_str_radix(&after[..2], 16).unwrap());
                rest = &after[2..];
            }
            decoded.extend_from_slice(rest.as_bytes());
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), value);
        }
    }
}
