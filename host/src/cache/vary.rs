//! What of a request an answer depends on, beside its method and its target: the headers that `Vary`
//! names, and of its body what `spinfer-body-key` says ([`BodyKey`]).
//!
//! All of it is in the key, so that one look-up finds the answer. It is known once there is an answer:
//! what the latest one said is remembered by method and path, and what comes next is looked up by that.
//! Where it turns out to have been wrong nothing is confused, as the key says by what it was made: the
//! answer is found by those who ask after that.

use std::array;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Uri};
use quick_cache::sync::Cache;

use super::body_key::{self, BodyKey};
use super::control;
use super::key::{Key, Origin};

/// Paths of a component that are remembered, of each method. Those asked for often are not pushed out
/// by others.
const MAX_PATHS: usize = 256;
/// Longer ones are not.
const MAX_PATH_BYTES: usize = 256;
/// Headers that answers to a path depend on, one or the other.
const MAX_HEADERS: usize = 16;

/// What an answer depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    body: Option<BodyKey>,
    headers: Arc<[HeaderName]>,
}

/// By what a request is looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Guess {
    pub(super) terms: Terms,
    /// An answer to this method and path said so.
    pub(super) known: bool,
}

/// What a component's answers said.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// To GET and to POST. Made for the first: most components that are idle never had one.
    by_path: OnceLock<[Cache<Box<str>, Terms>; 2]>,
    /// Whatever was asked for: what is likely of a path that is not known.
    latest: RwLock<Terms>,
}

impl Terms {
    /// What an answer says by its `Vary`, and said of the body. Of a path where answers were known to
    /// depend on `more`, this one may be kept by that too: some answers say `Vary: Origin`, as an
    /// example, only to requests that have one.
    pub(super) fn of(answer: &HeaderMap, body: Option<BodyKey>, more: Option<&Self>) -> Self {
        let before = more.map_or(&[][..], |more| &more.headers);
        let is_there =
            |name: &str| before.iter().any(|before| name.eq_ignore_ascii_case(before.as_str()));
        if let Some(more) = more.filter(|_| control::vary_names(answer).all(is_there)) {
            return Self { body, headers: Arc::clone(&more.headers) };
        }
        let mut headers = control::varies(answer);
        if headers.len() + before.len() <= MAX_HEADERS {
            headers.extend(before.iter().cloned());
            headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            headers.dedup();
        }
        Self { body, headers: headers.into() }
    }

    /// The key of a request; of every generation another. A body that is not compared by what it means
    /// is what its type says.
    pub(super) fn key(&self, origin: &Origin, generation: u64, head: &Parts, body: &[u8]) -> Key {
        const KIND: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];
        let by = self.body.filter(|_| body_key::may_be_json(&head.headers));
        match by.and_then(|by| Some((by.name(), super::canonical::form(body, by)?))) {
            Some((by, form)) => origin.key(generation, head, (by, &form), &*self.headers),
            None => {
                let kind = if body.is_empty() { &[][..] } else { &KIND };
                origin.key(generation, head, ("", body), self.headers.iter().chain(kind))
            }
        }
    }
}

impl Learned {
    /// By what a request is looked up.
    pub(super) fn guess(&self, method: &Method, uri: &Uri) -> Guess {
        let by_path = self.by_path.get().and_then(|paths| paths[index(method)].get(uri.path()));
        match by_path {
            Some(terms) => Guess { terms, known: true },
            None => Guess { terms: self.read_latest(), known: false },
        }
    }

    /// What an answer said that was looked up by another guess.
    pub(super) fn learn(&self, method: &Method, uri: &Uri, terms: &Terms) {
        if uri.path().len() <= MAX_PATH_BYTES {
            let by_path = || array::from_fn(|_| Cache::new(MAX_PATHS));
            let paths = &self.by_path.get_or_init(by_path)[index(method)];
            paths.insert(uri.path().into(), terms.clone());
        }
        if self.read_latest() != *terms {
            *self.latest.write().unwrap_or_else(PoisonError::into_inner) = terms.clone();
        }
    }

    fn read_latest(&self) -> Terms {
        self.latest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn index(method: &Method) -> usize {
    usize::from(*method == Method::POST)
}

#[cfg(test)]
mod tests {
    use http::header::VARY;
    use http::{HeaderValue, Request};

    use super::*;

    const JSON: Option<BodyKey> = Some(BodyKey::Json);

    fn terms(body: Option<BodyKey>, vary: &'static str) -> Terms {
        let answer = HeaderMap::from_iter([(VARY, HeaderValue::from_static(vary))]);
        Terms::of(&answer, body, None)
    }

    fn key(terms: &Terms, kind: &str, body: &[u8]) -> Key {
        let request = Request::post("/").header("content-type", kind).body(()).unwrap();
        terms.key(&Origin::new([]), 0, &request.into_parts().0, body)
    }

    #[test]
    fn names_are_the_same_in_any_order_and_case() {
        let accept = terms(None, "accept, X-A");
        assert_eq!(accept, terms(None, "x-a,ACCEPT, accept,"));
        assert_ne!(accept, terms(None, "accept"));
        assert_ne!(accept, terms(JSON, "accept, x-a"));
    }

    #[test]
    fn an_answer_may_depend_on_less_than_those_before() {
        let before = terms(JSON, "accept, x-a");
        let then = |vary, by| {
            let answer = HeaderMap::from_iter([(VARY, HeaderValue::from_static(vary))]);
            Terms::of(&answer, by, Some(&before))
        };
        for vary in ["accept, x-a", "X-A, accept", "accept", ""] {
            assert_eq!(then(vary, JSON), before, "{vary}");
            assert_eq!(then(vary, None), terms(None, "accept, x-a"), "{vary}");
        }
        assert_eq!(then("accept, x-b", JSON), terms(JSON, "accept, x-a, x-b"));
        // Not without end.
        let many = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o";
        assert_eq!(then(many, JSON), terms(JSON, many));
    }

    #[test]
    fn bodies_that_are_json_are_compared_by_what_they_mean() {
        let (one, same) = (&b"{\"a\": 1.0}"[..], b"{\"a\":1}\n");
        for (by, kind, equal) in [
            (JSON, "application/json", true),
            (JSON, "text/plain", false),
            (None, "application/json", false),
        ] {
            let terms = terms(by, "");
            assert_eq!(key(&terms, kind, one) == key(&terms, kind, same), equal, "{by:?} {kind}");
        }
        let json = |body: &[u8]| key(&terms(JSON, ""), "application/json", body);
        assert_ne!(json(b"{\"a\":1}"), json(b"{\"a\":2}"));
        // What is no JSON is compared by its bytes, and they by what they are said to be.
        assert_ne!(json(b"{\"a\":1}"), json(b"{\"a\":1"));
        let text = |kind| key(&terms(JSON, ""), kind, b"1,2");
        assert_ne!(text("text/csv"), text("text/plain"));
        // Their own form is not taken for the bytes.
        let form = crate::cache::canonical::form(b"{\"a\":1}", BodyKey::Json).unwrap();
        let all = [None, JSON, Some(BodyKey::Tensors)];
        let [bytes, by_json, by_tensors] =
            all.map(|by| key(&terms(by, ""), "application/json", &form));
        assert!(bytes != by_json && by_json != by_tensors && by_tensors != bytes);
    }

    #[test]
    fn the_latest_answer_counts_for_its_path_and_for_those_that_are_not_known() {
        let (learned, [a, b]) = (Learned::default(), ["/a", "/b"].map(Uri::from_static));
        let of = |method, uri| {
            let Guess { terms, known } = learned.guess(&method, uri);
            (terms, known)
        };
        assert_eq!(of(Method::POST, &a), (Terms::default(), false));
        learned.learn(&Method::POST, &a, &terms(JSON, "x-a"));
        assert_eq!(of(Method::POST, &a), (terms(JSON, "x-a"), true));
        assert_eq!(of(Method::GET, &a), (terms(JSON, "x-a"), false));
        learned.learn(&Method::GET, &a, &Terms::default());
        learned.learn(&Method::POST, &b, &terms(None, "x-b"));
        assert_eq!(of(Method::GET, &a), (Terms::default(), true));
        assert_eq!(of(Method::POST, &a), (terms(JSON, "x-a"), true));
        assert_eq!(of(Method::GET, &b), (terms(None, "x-b"), false));
        learned.learn(&Method::POST, &a, &Terms::default());
        assert_eq!(of(Method::POST, &a), (Terms::default(), true));

        let long = "/".repeat(MAX_PATH_BYTES + 1).parse().unwrap();
        learned.learn(&Method::GET, &long, &terms(JSON, ""));
        assert_eq!(of(Method::GET, &long), (terms(JSON, ""), false));
        for path in 0..10_000 {
            learned.learn(&Method::GET, &format!("/{path}").parse().unwrap(), &Terms::default());
        }
        assert!(learned.by_path.get().unwrap()[0].len() <= MAX_PATHS);
    }
}
