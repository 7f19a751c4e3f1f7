//! What is kept, as a value in Redis.
//!
//! ```text
//! 1 byte    the version of this encoding
//! 16 bytes  SHA-256 of the key and of what follows, the first half
//! Head      postcard (https://postcard.jamesmunns.com/wire-format)
//! the rest  the body
//! ```
//!
//! The digest tells what is cut off, damaged, or was stored under another key. It is no protection
//! from who writes into the Redis on purpose: whoever may write there decides what is answered.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::stored::Stored;
use crate::prediction_log::record::Predictions;
use crate::prediction_log::{Appended, MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, validate};

const VERSION: u8 = 3;
const DIGEST: usize = 16;
/// Headers of an answer: no host passes on more.
const MAX_HEADERS: usize = 1024;
/// No answer is good for longer: numbers from elsewhere must not overflow.
const LONGEST: u64 = 1 << 31;

#[derive(Debug, Serialize, Deserialize)]
struct Head<'a, P> {
    /// Microseconds after 1970.
    made: u64,
    /// Milliseconds.
    fresh: u64,
    /// Milliseconds.
    stale: u64,
    /// Microseconds.
    cost: u64,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a [u8])>,
    /// What was appended to the prediction log.
    predictions: Vec<P>,
}

/// Why a value is not what this host stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    #[error("it is of another version, or not of this host")]
    Version,
    #[error("it is not what was stored under this key")]
    Digest,
    #[error("it does not say what it is")]
    Head,
}

/// `entry`, for the key.
#[must_use]
pub(super) fn encode(key: &Key, entry: &Entry) -> Vec<u8> {
    let made = entry.made.duration_since(UNIX_EPOCH).unwrap_or_default();
    let head = Head {
        made: number(made.as_micros()),
        fresh: number(entry.fresh.as_millis()),
        stale: number(entry.stale.as_millis()),
        cost: number(entry.cost.as_micros()),
        headers: entry.stored.headers().map(|(name, value)| (name.as_str(), value)).collect(),
        predictions: entry.predictions.iter().map(|predictions| &**predictions).collect(),
    };
    let mut value = vec![VERSION];
    value.extend([0; DIGEST]);
    let mut value = postcard::to_extend(&head, value).expect("it has no part that can fail");
    value.extend_from_slice(&entry.stored.body());
    let digest = digest(key, &value[1 + DIGEST..]);
    value[1..=DIGEST].copy_from_slice(&digest);
    value
}

/// What was stored under the key.
pub(super) fn decode(key: &Key, value: &[u8]) -> Result<Entry, Foreign> {
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

fn entry(head: Head<'_, Predictions>, body: &[u8]) -> Result<Entry, Foreign> {
    if head.headers.len() > MAX_HEADERS {
        return Err(Foreign::Head);
    }
    let header = |(name, value): &(&str, &[u8])| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let headers: Option<Vec<_>> = head.headers.iter().map(header).collect();
    let length = head.headers.iter().map(|(_, value)| value.len()).sum();
    let stored = Stored::from_pairs(headers.ok_or(Foreign::Head)?, length, body);
    let lasts = |millis: u64| Duration::from_millis(millis.min(LONGEST * 1000));
    // Another node's clock may be ahead.
    let made = UNIX_EPOCH.checked_add(Duration::from_micros(head.made)).ok_or(Foreign::Head)?;
    Ok(Entry {
        stored,
        made: made.min(SystemTime::now()),
        fresh: lasts(head.fresh),
        stale: lasts(head.stale),
        cost: Duration::from_micros(head.cost).min(Duration::from_secs(LONGEST)),
        predictions: predictions(head.predictions)?,
    })
}

/// What a request may have appended.
fn predictions(predictions: Vec<Predictions>) -> Result<Appended, Foreign> {
    let rows = predictions.iter().fold(0_u32, |rows, some| rows.saturating_add(some.rows));
    if rows > MAX_REQUEST_ROWS || predictions.iter().any(|some| validate(some).is_err()) {
        return Err(Foreign::Head);
    }
    let appended: Appended = predictions.into_iter().collect();
    if appended.size() > MAX_REQUEST_BYTES { Err(Foreign::Head) } else { Ok(appended) }
}

fn digest(key: &Key, rest: &[u8]) -> [u8; DIGEST] {
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
    use crate::cache::control::Allowed;
    use crate::cache::key::Origin;
    use crate::prediction_log::validate::tests::iris;

    fn key(path: &str) -> Key {
        let request = Request::get(path).body(()).unwrap();
        Origin::new([]).key(0, &request.into_parts().0, ("", b""), &[])
    }

    fn answer(body: &[u8]) -> Entry {
        let headers = [("content-type", &b"text/plain"[..]), ("x-a", b"\xff 1"), ("x-a", b"")];
        let headers =
            headers.map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_bytes(v).unwrap()));
        let mut map = HeaderMap::new();
        headers.into_iter().for_each(|(name, value): (HeaderName, _)| _ = map.append(name, value));
        let allowed = Allowed { fresh: Duration::from_secs(60), stale: Duration::from_secs(7) };
        let predictions = [iris(1), iris(2)].into_iter().collect();
        let entry = Entry::new(&map, body, allowed, Duration::from_micros(1234));
        entry.with_predictions(predictions)
    }

    #[test]
    fn what_is_stored_comes_back() {
        let key = key("/a");
        for body in [&b""[..], b"body", &[7; 100_000]] {
            let kept = answer(body);
            let back = decode(&key, &encode(&key, &kept)).unwrap();
            assert_eq!((&back.stored, &back.predictions), (&kept.stored, &kept.predictions));
            let times = |e: &Entry| (e.fresh.as_millis(), e.stale, e.cost);
            assert_eq!(times(&back), times(&kept));
            assert!(kept.made.duration_since(back.made).unwrap() < Duration::from_micros(1));
        }
    }

    #[test]
    fn what_is_foreign_is_told() {
        let (here, there) = (key("/a"), key("/b"));
        let value = encode(&here, &answer(b"body"));
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
        assert_eq!(foreign(b"somebody else's"), Foreign::Version);
    }

    /// `rest`, as one who knows the encoding would forge it.
    fn forged(key: &Key, rest: &[u8]) -> Vec<u8> {
        [&[VERSION][..], &digest(key, rest), rest].concat()
    }

    #[test]
    fn numbers_of_another_host_are_bounded() {
        let key = key("/a");
        let most = u64::MAX;
        let head = |made| Head {
            made,
            fresh: most,
            stale: most,
            cost: most,
            headers: vec![],
            predictions: Vec::<Predictions>::new(),
        };
        let far = postcard::to_allocvec(&head(most)).unwrap();
        if let Ok(entry) = decode(&key, &forged(&key, &far)) {
            assert!(entry.made <= SystemTime::now());
            assert!((entry.fresh + entry.stale + entry.cost).as_secs() <= 3 * LONGEST);
            let _ = entry.response(SystemTime::now());
        }
        let now = postcard::to_allocvec(&head(0)).unwrap();
        assert!(decode(&key, &forged(&key, &now)).is_ok());
        let header = |name, value| {
            let head = Head { headers: vec![(name, value)], ..head(0) };
            let head = postcard::to_allocvec(&head).unwrap();
            decode(&key, &forged(&key, &head)).map(drop)
        };
        assert_eq!(header("x-a", b"a"), Ok(()));
        assert_eq!(header("x a", b"a"), Err(Foreign::Head));
        assert_eq!(header("x-a", b"a\r\nx-b: b"), Err(Foreign::Head));
        let with = |predictions| {
            let head = postcard::to_allocvec(&Head { predictions, ..head(0) }).unwrap();
            decode(&key, &forged(&key, &head)).map(drop)
        };
        assert_eq!(with(vec![iris(1), iris(3)]), Ok(()));
        assert_eq!(with(vec![Predictions { rows: 2, ..iris(1) }]), Err(Foreign::Head));
    }

    #[test]
    fn what_an_older_host_stored_is_of_another_version() {
        let key = key("/a");
        let mut value = encode(&key, &answer(b"body"));
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
