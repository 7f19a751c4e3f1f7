//! Vary rules: what a response depends on in addition to method, path and query. These are the request
//! headers named by `Vary`, and the body in the form of `spinfer-body-key` ([`BodyKey`]).
//!
//! Both are part of the key, so that one lookup finds the response; but only the response declares
//! them. So the rule of the latest response to each method and path is remembered, and predicts the
//! key of the next request:
//!
//! ```text
//! request ── predict ──> rule of the latest response to its path ── key ──> lookup
//!                                                                             │ miss
//! response ── of ──────> its own rule ── key ──> stored                       v
//!                             └── learn ──> the next requests are looked up by it
//! ```
//!
//! A wrong prediction is a miss and never a wrong response, since the rule itself is part of the key.

use std::array;
use std::sync::{Arc, OnceLock};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Uri};
use parking_lot::RwLock;
use quick_cache::sync::Cache;

use super::body_key::{self, BodyKey};
use super::control;
use super::key::{CacheKey, KeyPrefix};

/// Maximum number of paths that are remembered for a component and a method. Frequent paths are not
/// evicted by rare ones.
const MAX_PATHS: usize = 256;
/// Maximum length of a path that is remembered, in bytes.
const MAX_PATH_BYTES: usize = 256;
/// Maximum number of headers in the combined rule of a path.
const MAX_HEADERS: usize = 16;

/// What a response depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VaryRule {
    body: Option<BodyKey>,
    headers: Arc<[HeaderName]>,
}

/// The rule by which a request is looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct PredictedRule {
    pub(super) rule: VaryRule,
    /// Whether a response to this method and path declared it.
    pub(super) known: bool,
}

/// The rules that a component's responses declared.
#[derive(Debug, Default)]
pub(super) struct LearnedRules {
    /// For GET and for POST. Created for the first response: many components never have one.
    by_path: OnceLock<[Cache<Box<str>, VaryRule>; 2]>,
    /// The rule of the latest response to any path: the prediction for unknown paths.
    latest: RwLock<VaryRule>,
}

impl VaryRule {
    /// The rule of a response with these headers and this body key. The headers of the rule that was
    /// known for its path are added: some servers send `Vary: Origin`, for example, only in responses
    /// to requests with an `Origin`.
    pub(super) fn of(response: &HeaderMap, body: Option<BodyKey>, known: Option<&Self>) -> Self {
        let before = known.map_or(&[][..], |known| &known.headers);
        let is_known =
            |name: &str| before.iter().any(|before| name.eq_ignore_ascii_case(before.as_str()));
        if let Some(known) = known.filter(|_| control::vary_names(response).all(is_known)) {
            return Self { body, headers: Arc::clone(&known.headers) };
        }
        let mut headers = control::varies(response);
        if headers.len() + before.len() <= MAX_HEADERS {
            headers.extend(before.iter().cloned());
            headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            headers.dedup();
        }
        Self { body, headers: headers.into() }
    }

    /// The key of a request in a `generation`. For a body that is compared by its bytes, its type is
    /// part of the key.
    pub(super) fn key(
        &self,
        prefix: &KeyPrefix,
        generation: u64,
        head: &Parts,
        body: &[u8],
    ) -> CacheKey {
        const BODY_TYPE: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];
        let by = self.body.filter(|_| body_key::may_be_json(&head.headers));
        match by.and_then(|by| Some((by.name(), super::canonical::form(body, by)?))) {
            Some((by, form)) => prefix.key(generation, head, (by, &form), &*self.headers),
            None => {
                let body_type = if body.is_empty() { &[][..] } else { &BODY_TYPE };
                prefix.key(generation, head, ("", body), self.headers.iter().chain(body_type))
            }
        }
    }
}

impl LearnedRules {
    /// The rule to look up a request by.
    pub(super) fn predict(&self, method: &Method, uri: &Uri) -> PredictedRule {
        let by_path = self.by_path.get().and_then(|paths| paths[index(method)].get(uri.path()));
        match by_path {
            Some(rule) => PredictedRule { rule, known: true },
            None => PredictedRule { rule: self.read_latest(), known: false },
        }
    }

    /// Remembers the rule of a response, where the prediction was unknown or another one.
    pub(super) fn learn(&self, method: &Method, uri: &Uri, rule: &VaryRule) {
        if uri.path().len() <= MAX_PATH_BYTES {
            let by_path = || array::from_fn(|_| Cache::new(MAX_PATHS));
            let paths = &self.by_path.get_or_init(by_path)[index(method)];
            paths.insert(uri.path().into(), rule.clone());
        }
        if self.read_latest() != *rule {
            *self.latest.write() = rule.clone();
        }
    }

    fn read_latest(&self) -> VaryRule {
        self.latest.read().clone()
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

    fn rule(body: Option<BodyKey>, vary: &'static str) -> VaryRule {
        let response = HeaderMap::from_iter([(VARY, HeaderValue::from_static(vary))]);
        VaryRule::of(&response, body, None)
    }

    fn key(rule: &VaryRule, content_type: &str, body: &[u8]) -> CacheKey {
        let request = Request::post("/").header("content-type", content_type).body(()).unwrap();
        rule.key(&KeyPrefix::new([]), 0, &request.into_parts().0, body)
    }

    #[test]
    fn header_names_are_equal_in_any_order_and_case() {
        let accept = rule(None, "accept, X-A");
        assert_eq!(accept, rule(None, "x-a,ACCEPT, accept,"));
        assert_ne!(accept, rule(None, "accept"));
        assert_ne!(accept, rule(JSON, "accept, x-a"));
    }

    #[test]
    fn headers_known_for_a_path_are_added_to_its_rule() {
        let before = rule(JSON, "accept, x-a");
        let then = |vary, by| {
            let response = HeaderMap::from_iter([(VARY, HeaderValue::from_static(vary))]);
            VaryRule::of(&response, by, Some(&before))
        };
        for vary in ["accept, x-a", "X-A, accept", "accept", ""] {
            assert_eq!(then(vary, JSON), before, "{vary}");
            assert_eq!(then(vary, None), rule(None, "accept, x-a"), "{vary}");
        }
        assert_eq!(then("accept, x-b", JSON), rule(JSON, "accept, x-a, x-b"));
        // Up to the maximum.
        let many = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o";
        assert_eq!(then(many, JSON), rule(JSON, many));
    }

    #[test]
    fn json_bodies_are_compared_by_their_meaning() {
        let (one, same) = (&b"{\"a\": 1.0}"[..], b"{\"a\":1}\n");
        for (by, content_type, equal) in [
            (JSON, "application/json", true),
            (JSON, "text/plain", false),
            (None, "application/json", false),
        ] {
            let rule = rule(by, "");
            let [one, same] = [one, same].map(|body| key(&rule, content_type, body));
            assert_eq!(one == same, equal, "{by:?} {content_type}");
        }
        let json = |body: &[u8]| key(&rule(JSON, ""), "application/json", body);
        assert_ne!(json(b"{\"a\":1}"), json(b"{\"a\":2}"));
        // A body that is not JSON is compared by its bytes and its content type.
        assert_ne!(json(b"{\"a\":1}"), json(b"{\"a\":1"));
        let text = |content_type| key(&rule(JSON, ""), content_type, b"1,2");
        assert_ne!(text("text/csv"), text("text/plain"));
        // A canonical form differs from equal bytes.
        let form = crate::cache::canonical::form(b"{\"a\":1}", BodyKey::Json).unwrap();
        let all = [None, JSON, Some(BodyKey::Tensors)];
        let [bytes, by_json, by_tensors] =
            all.map(|by| key(&rule(by, ""), "application/json", &form));
        assert!(bytes != by_json && by_json != by_tensors && by_tensors != bytes);
    }

    #[test]
    fn latest_rule_predicts_its_path_and_unknown_paths() {
        let (learned, [a, b]) = (LearnedRules::default(), ["/a", "/b"].map(Uri::from_static));
        let of = |method, uri| {
            let PredictedRule { rule, known } = learned.predict(&method, uri);
            (rule, known)
        };
        assert_eq!(of(Method::POST, &a), (VaryRule::default(), false));
        learned.learn(&Method::POST, &a, &rule(JSON, "x-a"));
        assert_eq!(of(Method::POST, &a), (rule(JSON, "x-a"), true));
        assert_eq!(of(Method::GET, &a), (rule(JSON, "x-a"), false));
        learned.learn(&Method::GET, &a, &VaryRule::default());
        learned.learn(&Method::POST, &b, &rule(None, "x-b"));
        assert_eq!(of(Method::GET, &a), (VaryRule::default(), true));
        assert_eq!(of(Method::POST, &a), (rule(JSON, "x-a"), true));
        assert_eq!(of(Method::GET, &b), (rule(None, "x-b"), false));
        learned.learn(&Method::POST, &a, &VaryRule::default());
        assert_eq!(of(Method::POST, &a), (VaryRule::default(), true));

        let long = "/".repeat(MAX_PATH_BYTES + 1).parse().unwrap();
        learned.learn(&Method::GET, &long, &rule(JSON, ""));
        assert_eq!(of(Method::GET, &long), (rule(JSON, ""), false));
        for path in 0..10_000 {
            learned.learn(&Method::GET, &format!("/{path}").parse().unwrap(), &VaryRule::default());
        }
        assert!(learned.by_path.get().unwrap()[0].len() <= MAX_PATHS);
    }
}
