//! A cached response, its age, and how long it may be served.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AGE, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::control::{RequestDirectives, ResponseDirectives, seconds};
use super::stored::Stored;
use crate::http::body::Body;
use crate::prediction_log::{Appended, PREDICTION_ID};

/// The lifetime of each response is shortened by a random fraction up to this one, so that responses
/// that were computed together do not expire together.
const JITTER: f64 = 0.05;

/// Approximate memory of an entry without its body and header values, in bytes: names, counts and
/// lengths, its slot in the cache, and what the allocator rounds up.
const OVERHEAD: usize = 384;

/// Headers that are not stored: those of the connection, those written anew for each response, and
/// the id of the request.
const NOT_STORED: [HeaderName; 4] = [CONNECTION, AGE, CONTENT_LENGTH, PREDICTION_ID];

/// Number of headers that are added to a cached response: `Age`, `Cache-Status`, an id, and those of
/// the server.
const ADDED_HEADERS: usize = 5;

/// A complete response with status 200.
#[derive(Debug)]
pub struct CacheEntry {
    pub(super) stored: Stored,
    /// When it was created; an `Age` of the response is subtracted.
    pub(super) created: SystemTime,
    /// How long it is fresh from then on.
    pub(super) fresh: Duration,
    /// How long it may be served stale after that.
    pub(super) stale: Duration,
    /// Time it took to compute it.
    pub(super) cost: Duration,
    /// The predictions it contains, which are logged each time it is served.
    pub(super) predictions: Appended,
}

/// How fresh a response is for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// It is served and refreshed: it is stale within `stale-while-revalidate`, or soon will be stale.
    RefreshAhead,
    /// It is too old for any request.
    Stale,
    /// The directives of the request exclude it: it is too old, or not fresh for long enough.
    Refused,
}

impl CacheEntry {
    /// A response that was just computed, in `cost`. Its `Age`, if any, counts: it may come from another
    /// server. A streamed response is completed [later](Self::complete).
    #[must_use]
    pub fn new(
        headers: &HeaderMap,
        body: &[u8],
        allowed: ResponseDirectives,
        cost: Duration,
    ) -> Self {
        let age = headers.get(AGE).and_then(|age| age.to_str().ok()).map(seconds);
        let now = SystemTime::now();
        Self {
            stored: Stored::of(headers, &NOT_STORED, body),
            created: now.checked_sub(age.unwrap_or_default()).unwrap_or(UNIX_EPOCH),
            fresh: allowed.fresh.mul_f64(1.0 - JITTER * fastrand::f64()),
            stale: allowed.stale,
            cost,
            predictions: Appended::default(),
        }
    }

    /// The same entry with the predictions that it contains.
    #[must_use]
    pub fn with_predictions(self, predictions: Appended) -> Self {
        Self { predictions, ..self }
    }

    /// The same entry with its complete body, which took `cost` to compute.
    #[must_use]
    pub fn complete(self, body: &[u8], cost: Duration) -> Self {
        Self { stored: self.stored.with_body(body), cost, ..self }
    }

    /// Approximate memory, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        OVERHEAD + self.stored.size() + self.predictions.size()
    }

    /// How fresh it is at `now`, for a request with `directives`. Nothing older than `age_limit` is
    /// served.
    ///
    /// A popular response is refreshed shortly before it is stale, by a request chosen at random: the
    /// longer it takes to compute, the earlier (XFetch, Vattani et al. 2015, "Optimal Probabilistic
    /// Cache Stampede Prevention", with beta = 1). `random` is uniform in (0, 1].
    #[must_use]
    pub fn state(
        &self,
        directives: &RequestDirectives,
        age_limit: Duration,
        now: SystemTime,
        random: f64,
    ) -> Freshness {
        let age = self.age(now);
        let ahead = self.cost.mul_f64(-random.max(f64::MIN_POSITIVE).ln());
        let too_old = directives.max_age.is_some_and(|max| age > max);
        let too_short = directives.min_fresh.is_some_and(|min| age + min >= self.fresh);
        if age >= (self.fresh + self.stale).min(age_limit) {
            Freshness::Stale
        } else if directives.no_cache || too_old || too_short {
            Freshness::Refused
        } else if age + ahead >= self.fresh {
            Freshness::RefreshAhead
        } else {
            Freshness::Fresh
        }
    }

    /// Seconds until it is stale; negative afterwards.
    #[must_use]
    pub fn ttl(&self, now: SystemTime) -> i64 {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        seconds(self.fresh) - seconds(self.age(now))
    }

    /// Time until it may no longer be served, stale or not.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        (self.fresh + self.stale).saturating_sub(self.age(now))
    }

    /// The response, as served at `now`.
    #[must_use]
    pub fn response(&self, now: SystemTime) -> Response<Body> {
        let mut response = Response::new(Body::whole(self.stored.body()));
        *response.status_mut() = StatusCode::OK;
        *response.headers_mut() = self.stored.to_map(ADDED_HEADERS);
        response.headers_mut().insert(AGE, HeaderValue::from(self.age(now).as_secs()));
        if !self.predictions.is_empty() {
            response.extensions_mut().insert(self.predictions.clone());
        }
        response
    }

    fn age(&self, now: SystemTime) -> Duration {
        // After the clock was set back the entry counts as new.
        now.duration_since(self.created).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cache) fn entry(fresh: u64, stale: u64, cost: Duration) -> CacheEntry {
        let secs = Duration::from_secs;
        let allowed = ResponseDirectives { fresh: secs(fresh), stale: secs(stale) };
        CacheEntry::new(&HeaderMap::new(), b"body", allowed, cost)
    }

    #[test]
    fn entry_becomes_refresh_ahead_and_then_stale() {
        let entry = entry(100, 50, Duration::from_secs(1));
        let after = |secs| entry.created + Duration::from_secs(secs);
        let no_limit = Duration::MAX;
        let state =
            |directives, secs, random| entry.state(&directives, no_limit, after(secs), random);
        let any = RequestDirectives::default();
        assert_eq!(state(any, 0, 1.0), Freshness::Fresh);
        assert_eq!(state(any, 90, 1.0), Freshness::Fresh);
        assert_eq!(state(any, 101, 1.0), Freshness::RefreshAhead);
        assert_eq!(state(any, 151, 1.0), Freshness::Stale);
        // Refreshed early: e^-20 was drawn, and the response takes a second to compute.
        assert_eq!(state(any, 90, (-20.0_f64).exp()), Freshness::RefreshAhead);
        assert_eq!(state(any, 50, (-20.0_f64).exp()), Freshness::Fresh);
        // The clock was set back.
        assert_eq!(
            entry.state(&any, no_limit, entry.created - Duration::from_secs(9), 1.0),
            Freshness::Fresh
        );

        let limited = |secs| entry.state(&any, Duration::from_secs(10), after(secs), 1.0);
        assert_eq!((limited(9), limited(10)), (Freshness::Fresh, Freshness::Stale));

        assert_eq!(state(RequestDirectives { no_cache: true, ..any }, 0, 1.0), Freshness::Refused);
        assert_eq!(state(RequestDirectives { no_cache: true, ..any }, 151, 1.0), Freshness::Stale);
        let max_age = RequestDirectives { max_age: Some(Duration::from_secs(10)), ..any };
        assert_eq!(
            (state(max_age, 10, 1.0), state(max_age, 11, 1.0)),
            (Freshness::Fresh, Freshness::Refused)
        );
        let min_fresh = RequestDirectives { min_fresh: Some(Duration::from_secs(60)), ..any };
        assert_eq!(
            (state(min_fresh, 30, 1.0), state(min_fresh, 41, 1.0)),
            (Freshness::Fresh, Freshness::Refused)
        );
    }

    #[test]
    fn lifetime_is_shortened_by_jitter() {
        for _ in 0..1000 {
            let fresh = entry(1000, 0, Duration::ZERO).fresh.as_secs_f64();
            assert!((950.0..=1000.0).contains(&fresh), "{fresh}");
        }
    }

    #[test]
    fn age_of_the_response_counts() {
        let allowed = ResponseDirectives { fresh: Duration::from_secs(100), stale: Duration::ZERO };
        let headers = HeaderMap::from_iter([
            (AGE, HeaderValue::from_static("40")),
            (CONNECTION, HeaderValue::from_static("close")),
        ]);
        let entry = CacheEntry::new(&headers, b"", allowed, Duration::ZERO);
        let response = entry.response(SystemTime::now());
        assert_eq!(response.headers()["age"], "40");
        assert!(!response.headers().contains_key("connection"));
        assert!((50..=60).contains(&entry.ttl(SystemTime::now())));
        // An age that overflows is the maximum, not ignored.
        let headers =
            HeaderMap::from_iter([(AGE, HeaderValue::from_static("99999999999999999999"))]);
        let entry = CacheEntry::new(&headers, b"", allowed, Duration::ZERO);
        assert!(entry.ttl(SystemTime::now()) < 0);
    }
}
