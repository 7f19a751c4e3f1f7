//! A cached response as a value in Redis:
//!
//! ```text
//! 1 byte    version of this encoding
//! 16 bytes  first half of the SHA-256 of the key and of everything below
//! header    postcard (https://postcard.jamesmunns.com/wire-format)
//! the rest  body
//! ```
//!
//! The digest detects values that are truncated, damaged, or stored under another key. It does not
//! protect against forged values: a client with write access to the Redis controls the responses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::entry::CacheEntry;
use crate::cache::key::CacheKey;
use crate::cache::stored::Stored;
use crate::prediction_log::record::Predictions;
use crate::prediction_log::{Appended, MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, validate};

const VERSION: u8 = 3;
const DIGEST: usize = 16;
/// Maximum number of headers: no host passes on more.
const MAX_HEADERS: usize = 1024;
/// Maximum lifetime, in seconds: numbers of other hosts must not overflow.
const MAX_SECONDS: u64 = 1 << 31;

#[derive(Debug, Serialize, Deserialize)]
struct ValueHeader<'a, P> {
    /// Time of the response, in microseconds since 1970.
    created: u64,
    /// Time for which it is fresh, in milliseconds.
    fresh: u64,
    /// Time for which it may be served stale after that, in milliseconds.
    stale: u64,
    /// Time to compute it, in microseconds.
    cost: u64,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a [u8])>,
    /// The predictions to be logged each time the response is served.
    predictions: Vec<P>,
}

/// Why a value is not one that this host has stored under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    #[error("its encoding is unknown: stored by another version of spinfer, or another program")]
    Version,
    #[error("its digest does not match: damaged, or stored under another key")]
    Digest,
    #[error("its header is invalid")]
    Head,
}

/// Encodes `entry` for `key`.
#[must_use]
pub(super) fn encode(key: &CacheKey, entry: &CacheEntry) -> Vec<u8> {
    let created = entry.created.duration_since(UNIX_EPOCH).unwrap_or_default();
    let head = ValueHeader {
        created: number(created.as_micros()),
        fresh: number(entry.fresh.as_millis()),
        stale: number(entry.stale.as_millis()),
        cost: number(entry.cost.as_micros()),
        headers: entry.stored.headers().map(|(name, value)| (name.as_str(), value)).collect(),
        predictions: entry.predictions.iter().map(|predictions| &**predictions).collect(),
    };
    let mut value = vec![VERSION];
    value.extend([0; DIGEST]);
    let mut value = postcard::to_extend(&head, value).expect("no field can fail to serialize");
    value.extend_from_slice(&entry.stored.body());
    let digest = digest(key, &value[1 + DIGEST..]);
    value[1..=DIGEST].copy_from_slice(&digest);
    value
}

/// Decodes the value of `key`.
///
/// # Errors
/// The value is foreign: it was stored under this key by something other than a host.
pub(super) fn decode(key: &CacheKey, value: &[u8]) -> Result<CacheEntry, Foreign> {
    let (version, rest) = value.split_first().ok_or(Foreign::Version)?;
    let (stored, rest) = rest.split_first_chunk::<DIGEST>().ok_or(Foreign::Version)?;
    if *version != VERSION {
        return Err(Foreign::Version);
    }
    if *stored != digest(key, rest) {
        return Err(Foreign::Digest);
    }
    let (head, body) = postcard::take_from_bytes(rest).map_err(|_| Foreign::Head)?;
    entry(head, body)
}

fn entry(head: ValueHeader<'_, Predictions>, body: &[u8]) -> Result<CacheEntry, Foreign> {
    if head.headers.len() > MAX_HEADERS {
        return Err(Foreign::Head);
    }
    let header = |(name, value): &(&str, &[u8])| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let headers: Option<Vec<_>> = head.headers.iter().map(header).collect();
    let length = head.headers.iter().map(|(_, value)| value.len()).sum();
    let stored = Stored::from_pairs(headers.ok_or(Foreign::Head)?, length, body);
    let lifetime = |millis: u64| Duration::from_millis(millis.min(MAX_SECONDS * 1000));
    // The clock of another node may be ahead.
    let created =
        UNIX_EPOCH.checked_add(Duration::from_micros(head.created)).ok_or(Foreign::Head)?;
    Ok(CacheEntry {
        stored,
        created: created.min(SystemTime::now()),
        fresh: lifetime(head.fresh),
        stale: lifetime(head.stale),
        cost: Duration::from_micros(head.cost).min(Duration::from_secs(MAX_SECONDS)),
        predictions: predictions(head.predictions)?,
    })
}

/// Checks the predictions by the limits of a request.
fn predictions(predictions: Vec<Predictions>) -> Result<Appended, Foreign> {
    let rows = predictions.iter().fold(0_u32, |rows, some| rows.saturating_add(some.rows));
    if rows > MAX_REQUEST_ROWS || predictions.iter().any(|some| validate(some).is_err()) {
        return Err(Foreign::Head);
    }
    let appended: Appended = predictions.into_iter().collect();
    if appended.size() > MAX_REQUEST_BYTES { Err(Foreign::Head) } else { Ok(appended) }
}

fn digest(key: &CacheKey, rest: &[u8]) -> [u8; DIGEST] {
    let digest = Sha256::new().chain_update(key.bytes()).chain_update(rest).finalize();
    let mut half = [0; DIGEST];
    half.copy_from_slice(&digest[..DIGEST]);
    half
}

fn number(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Request};
    use proptest::prelude::*;

    use super::*;
    use crate::cache::control::ResponseDirectives;
    use crate::cache::key::KeyPrefix;
    use crate::prediction_log::validate::tests::iris;

    fn key(path: &str) -> CacheKey {
        let request = Request::get(path).body(()).unwrap();
        KeyPrefix::new([]).key(0, &request.into_parts().0, ("", b""), &[])
    }

    fn response(body: &[u8]) -> CacheEntry {
        let headers = [("content-type", &b"text/plain"[..]), ("x-a", b"\xff 1"), ("x-a", b"")];
        let headers =
            headers.map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_bytes(v).unwrap()));
        let mut map = HeaderMap::new();
        headers.into_iter().for_each(|(name, value): (HeaderName, _)| _ = map.append(name, value));
        let allowed =
            ResponseDirectives { fresh: Duration::from_secs(60), stale: Duration::from_secs(7) };
        let predictions = [iris(1), iris(2)].into_iter().collect();
        let entry = CacheEntry::new(&map, body, allowed, Duration::from_micros(1234));
        entry.with_predictions(predictions)
    }

    #[test]
    fn entry_round_trips() {
        let key = key("/a");
        for body in [&b""[..], b"body", &[7; 100_000]] {
            let stored = response(body);
            let decoded = decode(&key, &encode(&key, &stored)).unwrap();
            assert_eq!(
                (&decoded.stored, &decoded.predictions),
                (&stored.stored, &stored.predictions)
            );
            let times = |e: &CacheEntry| (e.fresh.as_millis(), e.stale, e.cost);
            assert_eq!(times(&decoded), times(&stored));
            let rounding = stored.created.duration_since(decoded.created).unwrap();
            assert!(rounding < Duration::from_micros(1));
        }
    }

    #[test]
    fn foreign_values_are_refused() {
        let (here, there) = (key("/a"), key("/b"));
        let value = encode(&here, &response(b"body"));
        let foreign = |value: &[u8]| decode(&here, value).unwrap_err();
        assert_eq!(decode(&there, &value).unwrap_err(), Foreign::Digest);
        for cut in 0..value.len() {
            let expected = if cut <= DIGEST { Foreign::Version } else { Foreign::Digest };
            assert_eq!(foreign(&value[..cut]), expected, "{cut}");
        }
        for index in 0..value.len() {
            let mut value = value.clone();
            value[index] ^= 1;
            let expected = if index == 0 { Foreign::Version } else { Foreign::Digest };
            assert_eq!(foreign(&value), expected, "{index}");
        }
        assert_eq!(foreign(b"of another program"), Foreign::Version);
    }

    /// A value with a valid digest of arbitrary contents.
    fn forged(key: &CacheKey, rest: &[u8]) -> Vec<u8> {
        [&[VERSION][..], &digest(key, rest), rest].concat()
    }

    #[test]
    fn numbers_of_another_host_are_bounded() {
        let key = key("/a");
        let max = u64::MAX;
        let head = |created| ValueHeader {
            created,
            fresh: max,
            stale: max,
            cost: max,
            headers: vec![],
            predictions: Vec::<Predictions>::new(),
        };
        let far = postcard::to_allocvec(&head(max)).unwrap();
        if let Ok(entry) = decode(&key, &forged(&key, &far)) {
            assert!(entry.created <= SystemTime::now());
            assert!((entry.fresh + entry.stale + entry.cost).as_secs() <= 3 * MAX_SECONDS);
            let _ = entry.response(SystemTime::now());
        }
        let now = postcard::to_allocvec(&head(0)).unwrap();
        assert!(decode(&key, &forged(&key, &now)).is_ok());
        let header = |name, value| {
            let head = ValueHeader { headers: vec![(name, value)], ..head(0) };
            let head = postcard::to_allocvec(&head).unwrap();
            decode(&key, &forged(&key, &head)).map(drop)
        };
        assert_eq!(header("x-a", b"a"), Ok(()));
        assert_eq!(header("x a", b"a"), Err(Foreign::Head));
        assert_eq!(header("x-a", b"a\r\nx-b: b"), Err(Foreign::Head));
        let with = |predictions| {
            let head = postcard::to_allocvec(&ValueHeader { predictions, ..head(0) }).unwrap();
            decode(&key, &forged(&key, &head)).map(drop)
        };
        assert_eq!(with(vec![iris(1), iris(3)]), Ok(()));
        assert_eq!(with(vec![Predictions { rows: 2, ..iris(1) }]), Err(Foreign::Head));
    }

    #[test]
    fn value_of_an_older_version_is_refused() {
        let key = key("/a");
        let mut value = encode(&key, &response(b"body"));
        value[0] = VERSION - 1;
        assert_eq!(decode(&key, &value).unwrap_err(), Foreign::Version);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = key("/a");
            let _ = decode(&key, &rest);
            let _ = decode(&key, &forged(&key, &rest));
        }
    }
}
