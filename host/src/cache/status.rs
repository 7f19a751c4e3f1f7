//! `Cache-Status`: what the cache had to do with an answer (RFC 9211).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::counts::Level;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went on to its component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// There was no answer.
    Miss,
    /// It was too old.
    Stale,
    /// The request asked for a new one, or for one that is newer.
    Request,
    /// The request is none that answers are kept for.
    Bypass,
}

/// A kept answer, fresh for `ttl` seconds more, or stale since as many.
pub(super) fn hit(headers: &mut HeaderMap, ttl: i64, level: Level) {
    let level = level.name();
    if let Ok(value) = format!("spinfer; hit; ttl={ttl}; detail={level}").try_into() {
        headers.append(CACHE_STATUS, value);
    }
}

/// An answer that another request was waiting for already.
pub(super) fn collapsed(headers: &mut HeaderMap, why: Forwarded) {
    let value = match why {
        Forwarded::Miss => "spinfer; fwd=miss; collapsed",
        Forwarded::Stale => "spinfer; fwd=stale; collapsed",
        Forwarded::Request => "spinfer; fwd=request; collapsed",
        Forwarded::Bypass => "spinfer; fwd=bypass; collapsed",
    };
    headers.append(CACHE_STATUS, HeaderValue::from_static(value));
}

/// A new answer, and whether it is kept. Every request that is not a hit comes here: nothing is made.
/// Appended, as the others: a component may say what its own caches did.
pub(super) fn forwarded(headers: &mut HeaderMap, why: Forwarded, stored: bool) {
    let value = match (why, stored) {
        (Forwarded::Miss, true) => "spinfer; fwd=miss; stored",
        (Forwarded::Miss, false) => "spinfer; fwd=miss",
        (Forwarded::Stale, true) => "spinfer; fwd=stale; stored",
        (Forwarded::Stale, false) => "spinfer; fwd=stale",
        (Forwarded::Request, true) => "spinfer; fwd=request; stored",
        (Forwarded::Request, false) => "spinfer; fwd=request",
        // What is not looked up is not kept.
        (Forwarded::Bypass, _) => "spinfer; fwd=bypass",
    };
    headers.append(CACHE_STATUS, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_writes_it() {
        let status = |put: fn(&mut HeaderMap)| {
            let mut headers = HeaderMap::new();
            put(&mut headers);
            headers[CACHE_STATUS].to_str().unwrap().to_owned()
        };
        let memory = status(|h| hit(h, 30, Level::Memory));
        assert_eq!(memory, "spinfer; hit; ttl=30; detail=memory");
        assert_eq!(status(|h| hit(h, -3, Level::Redis)), "spinfer; hit; ttl=-3; detail=redis");
        let of_two = status(|h| collapsed(h, Forwarded::Stale));
        assert_eq!(of_two, "spinfer; fwd=stale; collapsed");
        assert_eq!(status(|h| forwarded(h, Forwarded::Stale, true)), "spinfer; fwd=stale; stored");
        assert_eq!(status(|h| forwarded(h, Forwarded::Bypass, false)), "spinfer; fwd=bypass");
    }
}
