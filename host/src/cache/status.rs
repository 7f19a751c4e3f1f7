//! `Cache-Status`: how the cache handled a request (RFC 9211).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::counts::Level;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request was forwarded to its component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// No response was cached.
    Miss,
    /// The cached response was too old.
    Stale,
    /// The request asked for a new response, or for a newer one.
    Request,
}

/// The part of the cache in a response. A response that it neither serves nor may store has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// A cached response, fresh for another `ttl` seconds; stale if negative.
    Hit { ttl: i64, level: Level },
    /// The response to another request that was in flight.
    Collapsed(Forwarded),
    /// A new response that is stored.
    Stored(Forwarded),
    /// A new response that is streamed, and stored if it is complete and not too large.
    Storing(Forwarded),
    /// A new response that is not stored: it is the first with its key.
    NotAdmitted,
    /// None: the request accepts only a cached response, and there is none.
    NotCached,
}

impl CacheStatus {
    /// Adds it to the headers of the response. It is appended: a component may describe its own caches.
    pub fn put_into(self, headers: &mut HeaderMap) {
        let value = match self {
            Self::Hit { ttl, level } => {
                let value = format!("spinfer; hit; ttl={ttl}; detail={}", level.name());
                // Everything in it is valid in a header.
                headers.extend(value.try_into().ok().map(|value| (CACHE_STATUS, value)));
                return;
            }
            // Most other responses come here, so nothing is allocated.
            Self::Stored(Forwarded::Miss) => "spinfer; fwd=miss; stored",
            Self::Stored(Forwarded::Stale) => "spinfer; fwd=stale; stored",
            Self::Stored(Forwarded::Request) => "spinfer; fwd=request; stored",
            Self::Storing(Forwarded::Miss) => "spinfer; fwd=miss",
            Self::Storing(Forwarded::Stale) => "spinfer; fwd=stale",
            Self::Storing(Forwarded::Request) => "spinfer; fwd=request",
            Self::Collapsed(Forwarded::Miss) => "spinfer; fwd=miss; collapsed",
            Self::Collapsed(Forwarded::Stale) => "spinfer; fwd=stale; collapsed",
            Self::Collapsed(Forwarded::Request) => "spinfer; fwd=request; collapsed",
            Self::NotAdmitted => "spinfer; fwd=miss; detail=not-admitted",
            Self::NotCached => "spinfer; detail=only-if-cached",
        };
        headers.append(CACHE_STATUS, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_follow_rfc_9211() {
        for (status, value) in [
            (
                CacheStatus::Hit { ttl: 30, level: Level::Memory },
                "spinfer; hit; ttl=30; detail=memory",
            ),
            (
                CacheStatus::Hit { ttl: -3, level: Level::Redis },
                "spinfer; hit; ttl=-3; detail=redis",
            ),
            (CacheStatus::Collapsed(Forwarded::Stale), "spinfer; fwd=stale; collapsed"),
            (CacheStatus::Stored(Forwarded::Stale), "spinfer; fwd=stale; stored"),
            (CacheStatus::Storing(Forwarded::Miss), "spinfer; fwd=miss"),
            (CacheStatus::NotAdmitted, "spinfer; fwd=miss; detail=not-admitted"),
            (CacheStatus::NotCached, "spinfer; detail=only-if-cached"),
        ] {
            let mut headers = HeaderMap::new();
            status.put_into(&mut headers);
            assert_eq!(headers[CACHE_STATUS], value);
            // After the caches that are nearer to the origin.
            let mut headers =
                HeaderMap::from_iter([(CACHE_STATUS, HeaderValue::from_static("origin; hit"))]);
            status.put_into(&mut headers);
            let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
            assert_eq!(all, ["origin; hit", value]);
        }
    }
}
