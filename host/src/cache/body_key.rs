//! What of a request's body an answer depends on: on its bytes, unless the component says otherwise.
//!
//! As `Vary` says it of headers and `No-Vary-Search` (draft-ietf-httpbis-no-vary-search) of the query, a
//! header of the answer says it of the body: `spinfer-body-key: json`, of bodies that are equal as JSON;
//! `spinfer-body-key: tensors`, where arrays under `data` may be nested as `shape` says, too, as in the
//! Open Inference Protocol. A cache may do so: in HTTP's QUERY method, whose answers are kept by content
//! as well, it is said of all caches (draft-ietf-httpbis-safe-method-w-body, 2.7).
//!
//! It holds for the path, and is known from the first answer on. The header is between component and
//! host: clients do not see it.

use std::sync::OnceLock;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use http::request::Parts;
use quick_cache::sync::Cache;

use super::canonical;
use super::key::{Key, Origin};

const HEADER: HeaderName = HeaderName::from_static("spinfer-body-key");
/// With it the body is not JSON alone: tensors stand behind it, which may look like white space.
const BINARY_TENSORS: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Paths of a component that are remembered. Those asked for often are not pushed out by others.
const PATHS_MOST: usize = 256;
/// Longer ones are not.
const PATH_BYTES_MOST: usize = 256;

/// Types of bodies that are JSON, or are likely to be.
const TYPES: [&[u8]; 2] = [b"application/json", b"application/x-www-form-urlencoded"];
const JSON_SUFFIX: &[u8] = b"+json";

/// What bodies are compared by where it is not their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKey {
    Json,
    Tensors,
}

impl BodyKey {
    /// What an answer says, which is taken from it.
    pub(super) fn take(answer: &mut HeaderMap) -> Option<Self> {
        match answer.remove(HEADER)?.as_bytes() {
            b"json" => Some(Self::Json),
            b"tensors" => Some(Self::Tensors),
            _ => None,
        }
    }
}

/// What a component's answers said of bodies, by path.
#[derive(Debug, Default)]
pub(super) struct BodyKeys {
    /// Made for the first: most components that are idle never had one.
    by_path: OnceLock<Cache<Box<str>, BodyKey>>,
}

impl BodyKeys {
    pub(super) fn of(&self, path: &str) -> Option<BodyKey> {
        self.by_path.get()?.get(path)
    }

    /// What the latest answer said of `path`.
    pub(super) fn learn(&self, path: &str, by: Option<BodyKey>) {
        if let Some(by) = by.filter(|_| path.len() <= PATH_BYTES_MOST) {
            self.by_path.get_or_init(|| Cache::new(PATHS_MOST)).insert(path.into(), by);
        } else if let Some(by_path) = self.by_path.get() {
            by_path.remove(path);
        }
    }
}

/// The key of a request whose body is compared by what `by` says, if it is JSON.
pub(super) fn key(
    origin: &Origin,
    generation: u64,
    head: &Parts,
    body: &[u8],
    by: Option<BodyKey>,
) -> Key {
    let by = by.filter(|_| may_be_json(&head.headers));
    let form = by.and_then(|by| canonical::form(body, by));
    origin.key(generation, head, form.as_deref().unwrap_or(body))
}

/// Whether a body may be JSON and nothing beside it. A form is what `curl` says of a body unless it is
/// told what it is.
fn may_be_json(headers: &HeaderMap) -> bool {
    if headers.contains_key(BINARY_TENSORS) || headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let kind = kind.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let suffix = &kind[kind.len().saturating_sub(JSON_SUFFIX.len())..];
    suffix.eq_ignore_ascii_case(JSON_SUFFIX)
        || TYPES.iter().any(|json| kind.eq_ignore_ascii_case(json))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let request = Request::post("/predict").body(()).unwrap();
        let mut head = request.into_parts().0;
        for (name, value) in headers {
            head.headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        head
    }

    #[test]
    fn what_an_answer_says_is_taken_from_it() {
        for (value, by) in [
            ("json", Some(BodyKey::Json)),
            ("tensors", Some(BodyKey::Tensors)),
            ("JSON", None),
            ("json, tensors", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_static(value))]);
            assert_eq!(BodyKey::take(&mut headers), by, "{value}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn the_latest_answer_counts_for_its_path() {
        let keys = BodyKeys::default();
        keys.learn("/a", None);
        assert_eq!(keys.of("/a"), None);
        keys.learn("/a", Some(BodyKey::Json));
        keys.learn("/b", Some(BodyKey::Tensors));
        assert_eq!((keys.of("/a"), keys.of("/b")), (Some(BodyKey::Json), Some(BodyKey::Tensors)));
        keys.learn("/a", Some(BodyKey::Tensors));
        assert_eq!(keys.of("/a"), Some(BodyKey::Tensors));
        keys.learn("/a", None);
        assert_eq!((keys.of("/a"), keys.of("/b")), (None, Some(BodyKey::Tensors)));
        let long = "/".repeat(PATH_BYTES_MOST + 1);
        keys.learn(&long, Some(BodyKey::Json));
        assert_eq!(keys.of(&long), None);
        (0..10_000).for_each(|path| keys.learn(&path.to_string(), Some(BodyKey::Json)));
        assert!(keys.by_path.get().unwrap().len() <= PATHS_MOST);
    }

    #[test]
    fn bodies_are_compared_by_what_they_mean_only_if_they_are_json() {
        let origin = Origin::new([]);
        let same = |headers: &[(&str, &str)], by| {
            let head = head(headers);
            let key = |body: &[u8]| key(&origin, 0, &head, body, by);
            key(b"{\"a\": 1.0}") == key(b"{\"a\":1}\n")
        };
        let json = Some(BodyKey::Json);
        for headers in [
            &[][..],
            &[("content-type", "application/json")],
            &[("content-type", "Application/JSON ; charset=utf-8")],
            &[("content-type", "application/vnd.a+json")],
            &[("content-type", "application/x-www-form-urlencoded")],
        ] {
            assert!(same(headers, json), "{headers:?}");
            assert!(!same(headers, None), "{headers:?}");
        }
        for headers in [
            ("content-type", "image/png"),
            ("content-type", "text/plain"),
            ("content-type", "json"),
            ("content-type", ""),
            ("content-encoding", "gzip"),
            ("inference-header-content-length", "7"),
        ] {
            assert!(!same(&[headers], json), "{headers:?}");
        }
        let one = key(&origin, 0, &head(&[]), b"{\"a\":1}", json);
        assert_ne!(one, key(&origin, 0, &head(&[]), b"{\"a\":2}", json));
        // What is no JSON is compared by its bytes.
        assert_ne!(one, key(&origin, 0, &head(&[]), b"{\"a\":1", json));
    }
}
