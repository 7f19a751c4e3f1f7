//! `Cache-Status`: how the cache handled a request (RFC 9211).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::counts::Level;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request was forwarded to its component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// No response was cached.
    Miss,
    /// The cached response was too old.
    Stale,
    /// The request asked for a new response, or for a newer one.
    Request,
    /// Responses to this request are not cached.
    Bypass,
}

/// Marks a cached response, fresh for another `ttl` seconds; stale if negative.
pub(super) fn hit(headers: &mut HeaderMap, ttl: i64, level: Level) {
    let level = level.name();
    if let Ok(value) = format!("spinfer; hit; ttl={ttl}; detail={level}").try_into() {
        headers.append(CACHE_STATUS, value);
    }
}

/// Marks a response to another request that was in flight.
pub(super) fn collapsed(headers: &mut HeaderMap, why: Forwarded) {
    let value = match why {
        Forwarded::Miss => "spinfer; fwd=miss; collapsed",
        Forwarded::Stale => "spinfer; fwd=stale; collapsed",
        Forwarded::Request => "spinfer; fwd=request; collapsed",
        Forwarded::Bypass => "spinfer; fwd=bypass; collapsed",
    };
    headers.append(CACHE_STATUS, HeaderValue::from_static(value));
}

/// Marks a new response, and whether it is stored. Every request that is not a hit comes here, so
/// nothing is allocated. The header is appended: a component may describe its own caches in it.
pub(super) fn forwarded(headers: &mut HeaderMap, why: Forwarded, stored: bool) {
    let value = match (why, stored) {
        (Forwarded::Miss, true) => "spinfer; fwd=miss; stored",
        (Forwarded::Miss, false) => "spinfer; fwd=miss",
        (Forwarded::Stale, true) => "spinfer; fwd=stale; stored",
        (Forwarded::Stale, false) => "spinfer; fwd=stale",
        (Forwarded::Request, true) => "spinfer; fwd=request; stored",
        (Forwarded::Request, false) => "spinfer; fwd=request",
        // Without a lookup nothing is stored.
        (Forwarded::Bypass, _) => "spinfer; fwd=bypass",
    };
    headers.append(CACHE_STATUS, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_follow_rfc_9211() {
        let status = |put: fn(&mut HeaderMap)| {
            let mut headers = HeaderMap::new();
            put(&mut headers);
            headers[CACHE_STATUS].to_str().unwrap().to_owned()
        };
        let memory = status(|h| hit(h, 30, Level::Memory));
        assert_eq!(memory, "spinfer; hit; ttl=30; detail=memory");
        assert_eq!(status(|h| hit(h, -3, Level::Redis)), "spinfer; hit; ttl=-3; detail=redis");
        let collapsed_stale = status(|h| collapsed(h, Forwarded::Stale));
        assert_eq!(collapsed_stale, "spinfer; fwd=stale; collapsed");
        assert_eq!(status(|h| forwarded(h, Forwarded::Stale, true)), "spinfer; fwd=stale; stored");
        assert_eq!(status(|h| forwarded(h, Forwarded::Bypass, false)), "spinfer; fwd=bypass");
    }
}
