//! `Cache-Control` of responses and requests (RFC 9111, 5.2; RFC 5861, 3).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, PRAGMA, RANGE, SET_COOKIE, VARY};

use crate::prediction_log::PREDICTION_ID;

/// Prefix of the names of Spin's headers.
const SPIN: &str = "spin-";

/// Maximum lifetime, in seconds: the value of RFC 9111 (1.2.2) for numbers that overflow.
const MAX_SECONDS: u64 = 1 << 31;

/// How long a response may be served from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Time from its creation during which it is fresh.
    pub fresh: Duration,
    /// Time after that during which it is served while it is refreshed: `stale-while-revalidate`.
    pub stale: Duration,
}

/// What `response` allows a shared cache; `None` if it must not be stored. The response to an
/// `authorized` request is stored only if a directive explicitly allows that (RFC 9111, 3.5).
#[must_use]
pub fn response_directives(response: &HeaderMap, authorized: bool) -> Option<ResponseDirectives> {
    // A value that is not text may forbid it.
    let readable = response.get_all(CACHE_CONTROL).iter().all(|value| value.to_str().is_ok());
    // It depends on something that is not in the request, or only in headers that the host adds.
    let varies_on_anything =
        vary_names(response).any(|name| name == "*" || !is_token(name) || is_added_by_host(name));
    if response.contains_key(SET_COOKIE) || !readable || varies_on_anything {
        return None;
    }
    let (mut max_age, mut shared_age, mut stale) = (None, None, None);
    let (mut public, mut revalidate) = (false, false);
    for (name, value) in directives(response) {
        let is = |word: &str| name.eq_ignore_ascii_case(word);
        if is("no-store") || is("no-cache") || is("private") {
            return None;
        } else if is("max-age") {
            set_min(&mut max_age, value);
        } else if is("s-maxage") {
            set_min(&mut shared_age, value);
        } else if is("stale-while-revalidate") {
            set_min(&mut stale, value);
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
    // These forbid serving it stale, whatever other directives allow (RFC 9111, 4.2.4).
    let stale = stale.filter(|_| !revalidate).unwrap_or_default();
    Some(ResponseDirectives { fresh, stale })
}

/// The request headers that a response depends on, sorted.
#[must_use]
pub fn varies(response: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = vary_names(response).filter_map(|n| n.parse().ok()).collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

/// The names in `Vary` as written; a value that is not text counts as `*`.
pub fn vary_names(response: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = response.get_all(VARY).iter().map(|value| value.to_str().unwrap_or("*"));
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// Whether it names a header that the host adds to the request for the component.
fn is_added_by_host(name: &str) -> bool {
    name.eq_ignore_ascii_case(PREDICTION_ID.as_str())
        || name.get(..SPIN.len()).is_some_and(|start| start.eq_ignore_ascii_case(SPIN))
}

/// Whether a header can have this name (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The directives of a request to caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-store`, or a range request: the cache is bypassed.
    pub bypass: bool,
    /// The response has to be new.
    pub no_cache: bool,
    /// The response has to be a cached one.
    pub only_if_cached: bool,
    /// Maximum age of the response.
    pub max_age: Option<Duration>,
    /// Minimum time for which the response has to remain fresh.
    pub min_fresh: Option<Duration>,
    /// The request has credentials.
    pub authorized: bool,
}

/// The directives in the headers of a request.
#[must_use]
pub fn request_directives(request: &HeaderMap) -> RequestDirectives {
    let mut found = RequestDirectives {
        bypass: request.contains_key(RANGE),
        authorized: request.contains_key(AUTHORIZATION),
        ..RequestDirectives::default()
    };
    if !request.contains_key(CACHE_CONTROL) {
        found.no_cache = request.get_all(PRAGMA).iter().any(|value| value == "no-cache");
        return found;
    }
    for (name, value) in directives(request) {
        match &*name.to_ascii_lowercase() {
            "no-store" => found.bypass = true,
            "no-cache" => found.no_cache = true,
            "only-if-cached" => found.only_if_cached = true,
            "max-age" => set_min(&mut found.max_age, value),
            "min-fresh" => found.min_fresh = Some(seconds(value)),
            _ => {}
        }
    }
    found
}

/// The directives of all `Cache-Control` headers with their values, without quotes.
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

/// The end of the first directive of `text`: a comma outside quotes.
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

/// Of a directive that is repeated, the shortest time counts.
fn set_min(into: &mut Option<Duration>, value: &str) {
    let value = seconds(value);
    *into = Some(into.map_or(value, |before| before.min(value)));
}

/// Parses seconds. An invalid number is 0: the response is not fresh (RFC 9111, 4.2.1).
pub(super) fn seconds(value: &str) -> Duration {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.parse().unwrap_or(if digits { MAX_SECONDS } else { 0 });
    Duration::from_secs(if digits { seconds.min(MAX_SECONDS) } else { 0 })
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

    fn secs(fresh: u64, stale: u64) -> Option<ResponseDirectives> {
        Some(ResponseDirectives {
            fresh: Duration::from_secs(fresh),
            stale: Duration::from_secs(stale),
        })
    }

    #[test]
    fn response_directives_give_the_lifetime() {
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
            assert_eq!(
                response_directives(&headers(&[("cache-control", value)]), false),
                expected,
                "{value}"
            );
        }
        let two = headers(&[("cache-control", "max-age=60"), ("cache-control", "no-store")]);
        assert_eq!(response_directives(&two, false), None);
        for other in [
            ("set-cookie", "a=b"),
            ("vary", "*"),
            ("vary", "a, *"),
            ("vary", "a b"),
            ("vary", "a, Spin-Client-Addr"),
        ] {
            assert_eq!(
                response_directives(&headers(&[("cache-control", "max-age=60"), other]), false),
                None
            );
        }
        let varied = headers(&[("cache-control", "max-age=60"), ("vary", "Accept,, x-a")]);
        assert_eq!(response_directives(&varied, false), secs(60, 0));
    }

    #[test]
    fn authorized_responses_are_stored_only_if_explicitly_allowed() {
        for (value, stored) in [
            ("max-age=60", false),
            ("max-age=60, public", true),
            ("max-age=60, must-revalidate", true),
            ("s-maxage=60", true),
        ] {
            let response = headers(&[("cache-control", value)]);
            assert_eq!(response_directives(&response, true).is_some(), stored, "{value}");
        }
    }

    #[test]
    fn request_directives_are_parsed() {
        let of = |name, value| request_directives(&headers(&[(name, value)]));
        let nothing = RequestDirectives::default();
        assert_eq!(of("accept", "*/*"), nothing);
        assert_eq!(
            of("cache-control", "no-cache"),
            RequestDirectives { no_cache: true, ..nothing }
        );
        assert_eq!(of("pragma", "no-cache"), RequestDirectives { no_cache: true, ..nothing });
        assert_eq!(of("cache-control", "no-store"), RequestDirectives { bypass: true, ..nothing });
        assert_eq!(of("range", "bytes=0-1"), RequestDirectives { bypass: true, ..nothing });
        assert_eq!(of("authorization", "x"), RequestDirectives { authorized: true, ..nothing });
        assert_eq!(
            of("cache-control", "only-if-cached, max-age=5, min-fresh=3"),
            RequestDirectives {
                only_if_cached: true,
                max_age: Some(Duration::from_secs(5)),
                min_fresh: Some(Duration::from_secs(3)),
                ..nothing
            }
        );
        // `Pragma` of HTTP/1.0 counts only without `Cache-Control`.
        let both = headers(&[("cache-control", "max-age=1"), ("pragma", "no-cache")]);
        assert!(!request_directives(&both).no_cache);
    }

    proptest! {
        #[test]
        fn no_header_panics(value in "[ -~]{0,60}", words in r#"((max-age|private|a)?[=,"\\ 0-9]{0,4}){0,12}"#) {
            for value in [value, words] {
                let headers = headers(&[("cache-control", &value)]);
                let _ = (response_directives(&headers, true), request_directives(&headers));
            }
        }
    }
}
