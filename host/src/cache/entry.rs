//! An answer that is kept: what it is, since when, and for how long it is good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AGE, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::control::{Allowed, Asked, seconds};
use super::stored::Stored;
use crate::http::body::Body;
use crate::prediction_log::{Appended, PREDICTION_ID};

/// Of its time an answer loses up to this part, by chance: what was made together does not have to
/// be made again together.
const JITTER: f64 = 0.05;

/// What a kept answer takes beside its body and the values of its headers, about: names, counts and
/// lengths, its place in the cache, and what the allocator rounds up.
const OVERHEAD: usize = 384;

/// Headers that are of one answer, not of the next: the connection's, what an answer that is whole
/// says anew, and the id of its request.
const NOT_KEPT: [HeaderName; 4] = [CONNECTION, AGE, CONTENT_LENGTH, PREDICTION_ID];

/// Headers an answer gets when it is given again: `Age`, `Cache-Status`, an id, and what the server
/// adds.
const ADDED: usize = 5;

/// A 200, complete.
#[derive(Debug)]
pub struct Entry {
    pub(super) stored: Stored,
    pub(super) made: SystemTime,
    pub(super) fresh: Duration,
    pub(super) stale: Duration,
    /// What it took to make it.
    pub(super) cost: Duration,
    /// The predictions it was made from, where they are logged: each time it is served.
    pub(super) predictions: Appended,
}

/// How good an answer is for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Fresh,
    /// It may be given, and a new one is to be made: it is stale and may be, or soon will be.
    Ageing,
    /// It is too old for any.
    Stale,
    /// It is not what this request asks for: too old, or not good for long enough.
    Refused,
}

impl Entry {
    /// An answer that was just made, in `cost`. Its own `Age` counts: it may come from elsewhere.
    /// What is known only when all of it was sent comes [later](Self::complete).
    #[must_use]
    pub fn new(headers: &HeaderMap, body: &[u8], allowed: Allowed, cost: Duration) -> Self {
        let age = headers.get(AGE).and_then(|age| age.to_str().ok()).map(seconds);
        let now = SystemTime::now();
        Self {
            stored: Stored::of(headers, &NOT_KEPT, body),
            made: now.checked_sub(age.unwrap_or_default()).unwrap_or(UNIX_EPOCH),
            fresh: allowed.fresh.mul_f64(1.0 - JITTER * fastrand::f64()),
            stale: allowed.stale,
            cost,
            predictions: Appended::default(),
        }
    }

    /// With the predictions it was made from.
    #[must_use]
    pub fn with_predictions(self, predictions: Appended) -> Self {
        Self { predictions, ..self }
    }

    /// All of it was sent, and took so long.
    #[must_use]
    pub fn complete(self, body: &[u8], cost: Duration) -> Self {
        Self { stored: self.stored.with_body(body), cost, ..self }
    }

    /// What it takes of memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        OVERHEAD + self.stored.size() + self.predictions.size()
    }

    /// How good it is at `now`. An answer that is asked for often is made again shortly before its
    /// time, by whoever draws a number that says so: the more it costs, the earlier (XFetch, Vattani
    /// et al. 2015, "Optimal Probabilistic Cache Stampede Prevention", with beta = 1). `drawn` is
    /// uniform in (0, 1]. Nothing is good for longer than `longest`.
    #[must_use]
    pub fn state(&self, asked: &Asked, longest: Duration, now: SystemTime, drawn: f64) -> State {
        let age = self.age(now);
        let soon = self.cost.mul_f64(-drawn.max(f64::MIN_POSITIVE).ln());
        let too_old = asked.max_age.is_some_and(|most| age > most);
        let too_short = asked.min_fresh.is_some_and(|least| age + least >= self.fresh);
        if age >= (self.fresh + self.stale).min(longest) {
            State::Stale
        } else if asked.renewed || too_old || too_short {
            State::Refused
        } else if age + soon >= self.fresh {
            State::Ageing
        } else {
            State::Fresh
        }
    }

    /// For how many seconds it is fresh still; negative once it is not.
    #[must_use]
    pub fn ttl(&self, now: SystemTime) -> i64 {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        seconds(self.fresh) - seconds(self.age(now))
    }

    /// For how long it may be given still.
    #[must_use]
    pub fn lasts(&self, now: SystemTime) -> Duration {
        (self.fresh + self.stale).saturating_sub(self.age(now))
    }

    /// The answer, once more.
    #[must_use]
    pub fn response(&self, now: SystemTime) -> Response<Body> {
        let mut response = Response::new(Body::whole(self.stored.body()));
        *response.status_mut() = StatusCode::OK;
        *response.headers_mut() = self.stored.to_map(ADDED);
        response.headers_mut().insert(AGE, HeaderValue::from(self.age(now).as_secs()));
        if !self.predictions.is_empty() {
            response.extensions_mut().insert(self.predictions.clone());
        }
        response
    }

    fn age(&self, now: SystemTime) -> Duration {
        // A clock that was set back makes it new, not older.
        now.duration_since(self.made).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cache) fn entry(fresh: u64, stale: u64, cost: Duration) -> Entry {
        let secs = Duration::from_secs;
        let allowed = Allowed { fresh: secs(fresh), stale: secs(stale) };
        Entry::new(&HeaderMap::new(), b"body", allowed, cost)
    }

    #[test]
    fn an_answer_ages() {
        let entry = entry(100, 50, Duration::from_secs(1));
        let after = |secs| entry.made + Duration::from_secs(secs);
        let for_long = Duration::MAX;
        let state = |asked, secs, drawn| entry.state(&asked, for_long, after(secs), drawn);
        let any = Asked::default();
        assert_eq!(state(any, 0, 1.0), State::Fresh);
        assert_eq!(state(any, 90, 1.0), State::Fresh);
        assert_eq!(state(any, 101, 1.0), State::Ageing);
        assert_eq!(state(any, 151, 1.0), State::Stale);
        // Before its time, by who draws e^-20 of something that takes a second.
        assert_eq!(state(any, 90, (-20.0_f64).exp()), State::Ageing);
        assert_eq!(state(any, 50, (-20.0_f64).exp()), State::Fresh);
        // A clock that was set back.
        assert_eq!(
            entry.state(&any, for_long, entry.made - Duration::from_secs(9), 1.0),
            State::Fresh
        );

        let of_ten = |secs| entry.state(&any, Duration::from_secs(10), after(secs), 1.0);
        assert_eq!((of_ten(9), of_ten(10)), (State::Fresh, State::Stale));

        assert_eq!(state(Asked { renewed: true, ..any }, 0, 1.0), State::Refused);
        assert_eq!(state(Asked { renewed: true, ..any }, 151, 1.0), State::Stale);
        let at_most = Asked { max_age: Some(Duration::from_secs(10)), ..any };
        assert_eq!(
            (state(at_most, 10, 1.0), state(at_most, 11, 1.0)),
            (State::Fresh, State::Refused)
        );
        let at_least = Asked { min_fresh: Some(Duration::from_secs(60)), ..any };
        assert_eq!(
            (state(at_least, 30, 1.0), state(at_least, 41, 1.0)),
            (State::Fresh, State::Refused)
        );
    }

    #[test]
    fn it_loses_a_little_of_its_time() {
        for _ in 0..1000 {
            let fresh = entry(1000, 0, Duration::ZERO).fresh.as_secs_f64();
            assert!((950.0..=1000.0).contains(&fresh), "{fresh}");
        }
    }

    #[test]
    fn age_goes_on_from_where_it_was() {
        let allowed = Allowed { fresh: Duration::from_secs(100), stale: Duration::ZERO };
        let headers = HeaderMap::from_iter([
            (AGE, HeaderValue::from_static("40")),
            (CONNECTION, HeaderValue::from_static("close")),
        ]);
        let entry = Entry::new(&headers, b"", allowed, Duration::ZERO);
        let answer = entry.response(SystemTime::now());
        assert_eq!(answer.headers()["age"], "40");
        assert!(!answer.headers().contains_key("connection"));
        assert!((50..=60).contains(&entry.ttl(SystemTime::now())));
        // As long as can be said, not none at all.
        let headers =
            HeaderMap::from_iter([(AGE, HeaderValue::from_static("99999999999999999999"))]);
        let entry = Entry::new(&headers, b"", allowed, Duration::ZERO);
        assert!(entry.ttl(SystemTime::now()) < 0);
    }
}
