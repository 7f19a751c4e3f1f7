//! `Cache-Control`: what an answer allows and what a request asks for (RFC 9111, 5.2; RFC 5861, 3).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, PRAGMA, RANGE, SET_COOKIE, VARY};

use crate::prediction_log::PREDICTION_ID;

/// How the names of Spin's headers begin.
const SPIN: &str = "spin-";

/// Longer is this long: what RFC 9111 (1.2.2) gives for a number that overflows.
const LONGEST: u64 = 1 << 31;

/// For how long an answer may be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// From when it was made.
    pub fresh: Duration,
    /// After that, while a newer one is made: `stale-while-revalidate`.
    pub stale: Duration,
}

/// What `answer` allows a shared cache; `None` if it is not to be kept. An answer to a request
/// that is `authorized` needs an explicit word that it is for others too (RFC 9111, 3.5).
#[must_use]
pub fn allowed(answer: &HeaderMap, authorized: bool) -> Option<Allowed> {
    // What cannot be read may forbid it.
    let readable = answer.get_all(CACHE_CONTROL).iter().all(|value| value.to_str().is_ok());
    // It may depend on more than is in the request: on anything, or on what the host says of it.
    let on_anything =
        vary_names(answer).any(|name| name == "*" || !is_token(name) || is_of_spin(name));
    if answer.contains_key(SET_COOKIE) || !readable || on_anything {
        return None;
    }
    let (mut max_age, mut shared_age, mut stale) = (None, None, None);
    let (mut public, mut revalidate) = (false, false);
    for (name, value) in directives(answer) {
        let is = |word: &str| name.eq_ignore_ascii_case(word);
        if is("no-store") || is("no-cache") || is("private") {
            return None;
        } else if is("max-age") {
            least(&mut max_age, value);
        } else if is("s-maxage") {
            least(&mut shared_age, value);
        } else if is("stale-while-revalidate") {
            least(&mut stale, value);
        } else if is("must-revalidate") {
            (public, revalidate) = (true, true);
        } else if is("proxy-revalidate") {
            revalidate = true;
        } else if is("public") {
            public = true;
        }
    }
    if authorized && !public && shared_age.is_none() {
        return None;
    }
    let fresh = shared_age.or(max_age).filter(|fresh| !fresh.is_zero())?;
    // Stale it may not be given then, whatever else is said (RFC 9111, 4.2.4).
    let stale = stale.filter(|_| !revalidate).unwrap_or_default();
    Some(Allowed { fresh, stale })
}

/// The headers of the request that an answer depends on, in an order that is always the same.
#[must_use]
pub fn varies(answer: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = vary_names(answer).filter_map(|n| n.parse().ok()).collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

/// The same, as they are written. What cannot be read stands for anything.
pub fn vary_names(answer: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = answer.get_all(VARY).iter().map(|value| value.to_str().unwrap_or("*"));
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// Whether it is a header that the host adds for the component, if it asks for it.
fn is_of_spin(name: &str) -> bool {
    name.eq_ignore_ascii_case(PREDICTION_ID.as_str())
        || name.get(..SPIN.len()).is_some_and(|start| start.eq_ignore_ascii_case(SPIN))
}

/// What the name of a header is made of (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What a request asks of caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `no-store`, or for a part only: it has nothing to do with the cache.
    pub bypass: bool,
    /// `no-cache`: a new answer.
    pub renewed: bool,
    /// No new answer.
    pub only_if_cached: bool,
    /// How old an answer may be.
    pub max_age: Option<Duration>,
    /// For how long it has to be good still.
    pub min_fresh: Option<Duration>,
    /// There are credentials.
    pub authorized: bool,
}

#[must_use]
pub fn asked(request: &HeaderMap) -> Asked {
    let mut asked = Asked {
        bypass: request.contains_key(RANGE),
        authorized: request.contains_key(AUTHORIZATION),
        ..Asked::default()
    };
    if !request.contains_key(CACHE_CONTROL) {
        asked.renewed = request.get_all(PRAGMA).iter().any(|value| value == "no-cache");
        return asked;
    }
    for (name, value) in directives(request) {
        match &*name.to_ascii_lowercase() {
            "no-store" => asked.bypass = true,
            "no-cache" => asked.renewed = true,
            "only-if-cached" => asked.only_if_cached = true,
            "max-age" => least(&mut asked.max_age, value),
            "min-fresh" => asked.min_fresh = Some(seconds(value)),
            _ => {}
        }
    }
    asked
}

/// The directives of all `Cache-Control` headers, and the value of each, without quotes.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|mut text| {
        std::iter::from_fn(move || {
            if text.is_empty() {
                return None;
            }
            let end = end(text);
            let directive = &text[..end];
            text = text[end..].strip_prefix(',').unwrap_or_default();
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            Some((name.trim(), value.trim().trim_matches('"')))
        })
    })
}

/// Where the first directive of `text` ends: at a comma that is not within quotes.
fn end(text: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b',' if !quoted => return index,
            _ => {}
        }
    }
    text.len()
}

/// The shortest counts of those given more than once.
fn least(into: &mut Option<Duration>, value: &str) {
    let value = seconds(value);
    *into = Some(into.map_or(value, |before| before.min(value)));
}

/// What is no number of seconds is none: an answer with it is not fresh (RFC 9111, 4.2.1).
pub(super) fn seconds(value: &str) -> Duration {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.parse().unwrap_or(if digits { LONGEST } else { 0 });
    Duration::from_secs(if digits { seconds.min(LONGEST) } else { 0 })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        all.iter().map(header).collect()
    }

    fn secs(fresh: u64, stale: u64) -> Option<Allowed> {
        Some(Allowed { fresh: Duration::from_secs(fresh), stale: Duration::from_secs(stale) })
    }

    #[test]
    fn an_answer_says_for_how_long() {
        for (value, expected) in [
            ("max-age=60", secs(60, 0)),
            ("Max-Age = \"60\" , public", secs(60, 0)),
            ("max-age=60, stale-while-revalidate=30", secs(60, 30)),
            ("max-age=60, s-maxage=10", secs(10, 0)),
            ("s-maxage=10, max-age=60", secs(10, 0)),
            ("max-age=60, max-age=5", secs(5, 0)),
            ("max-age=99999999999999999999", secs(1 << 31, 0)),
            ("ext=\"a, no-store\", max-age=60", secs(60, 0)),
            ("ext=\"a\\\", no-store\", max-age=60", secs(60, 0)),
            ("", None),
            ("public", None),
            ("max-age=0", None),
            ("max-age=-1", None),
            ("max-age=1.5", None),
            ("max-age", None),
            ("max-age=60, s-maxage=0", None),
            ("max-age=60, no-store", None),
            ("max-age=60, NO-CACHE", None),
            ("max-age=60, private", None),
            ("max-age=60, private=\"x-a, x-b\"", None),
        ] {
            assert_eq!(allowed(&headers(&[("cache-control", value)]), false), expected, "{value}");
        }
        let two = headers(&[("cache-control", "max-age=60"), ("cache-control", "no-store")]);
        assert_eq!(allowed(&two, false), None);
        for other in [
            ("set-cookie", "a=b"),
            ("vary", "*"),
            ("vary", "a, *"),
            ("vary", "a b"),
            ("vary", "a, Spin-Client-Addr"),
        ] {
            assert_eq!(allowed(&headers(&[("cache-control", "max-age=60"), other]), false), None);
        }
        let varied = headers(&[("cache-control", "max-age=60"), ("vary", "Accept,, x-a")]);
        assert_eq!(allowed(&varied, false), secs(60, 0));
    }

    #[test]
    fn answers_for_someone_are_kept_if_they_are_for_all() {
        for (value, kept) in [
            ("max-age=60", false),
            ("max-age=60, public", true),
            ("max-age=60, must-revalidate", true),
            ("s-maxage=60", true),
        ] {
            let answer = headers(&[("cache-control", value)]);
            assert_eq!(allowed(&answer, true).is_some(), kept, "{value}");
        }
    }

    #[test]
    fn a_request_says_what_it_wants() {
        let of = |name, value| asked(&headers(&[(name, value)]));
        let nothing = Asked::default();
        assert_eq!(of("accept", "*/*"), nothing);
        assert_eq!(of("cache-control", "no-cache"), Asked { renewed: true, ..nothing });
        assert_eq!(of("pragma", "no-cache"), Asked { renewed: true, ..nothing });
        assert_eq!(of("cache-control", "no-store"), Asked { bypass: true, ..nothing });
        assert_eq!(of("range", "bytes=0-1"), Asked { bypass: true, ..nothing });
        assert_eq!(of("authorization", "x"), Asked { authorized: true, ..nothing });
        assert_eq!(
            of("cache-control", "only-if-cached, max-age=5, min-fresh=3"),
            Asked {
                only_if_cached: true,
                max_age: Some(Duration::from_secs(5)),
                min_fresh: Some(Duration::from_secs(3)),
                ..nothing
            }
        );
        // HTTP/1.0's word counts only where there is no other.
        let both = headers(&[("cache-control", "max-age=1"), ("pragma", "no-cache")]);
        assert!(!asked(&both).renewed);
    }

    proptest! {
        #[test]
        fn no_header_panics(value in "[ -~]{0,60}", words in r#"((max-age|private|a)?[=,"\\ 0-9]{0,4}){0,12}"#) {
            for value in [value, words] {
                let headers = headers(&[("cache-control", &value)]);
                let _ = (allowed(&headers, true), asked(&headers));
            }
        }
    }
}
