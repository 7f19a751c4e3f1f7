//! What of a request's body an answer depends on: on its bytes, unless the component says otherwise.
//!
//! As `Vary` says it of headers and `No-Vary-Search` (draft-ietf-httpbis-no-vary-search) of the query, a
//! header of the answer says it of the body: `spinfer-body-key: json`, of bodies that are equal as JSON;
//! `spinfer-body-key: tensors`, where arrays under `data` may be nested as `shape` says, too, as in the
//! Open Inference Protocol. A cache may do so: in HTTP's QUERY method, whose answers are kept by content
//! as well, it is said of all caches (draft-ietf-httpbis-safe-method-w-body, 2.7).
//!
//! The header is between component and host: clients do not see it.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};

const HEADER: HeaderName = HeaderName::from_static("spinfer-body-key");
/// With it the body is not JSON alone: tensors stand behind it, which may look like white space.
const BINARY_TENSORS: HeaderName = HeaderName::from_static("inference-header-content-length");

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
    /// As the header has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Tensors => "tensors",
        }
    }

    /// What an answer says, which is taken from it.
    pub(super) fn take(answer: &mut HeaderMap) -> Option<Self> {
        match answer.remove(HEADER)?.as_bytes() {
            b"json" => Some(Self::Json),
            b"tensors" => Some(Self::Tensors),
            _ => None,
        }
    }
}

/// Whether a body may be JSON and nothing beside it. A form is what `curl` says of a body unless it is
/// told what it is.
pub(super) fn may_be_json(headers: &HeaderMap) -> bool {
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
    use http::HeaderValue;

    use super::*;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        of.iter().map(header).collect()
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
    fn some_bodies_are_json_and_nothing_beside_it() {
        for json in [
            &[][..],
            &[("content-type", "application/json")],
            &[("content-type", "Application/JSON ; charset=utf-8")],
            &[("content-type", "application/vnd.a+json")],
            &[("content-type", "application/x-www-form-urlencoded")],
        ] {
            assert!(may_be_json(&headers(json)), "{json:?}");
        }
        for other in [
            ("content-type", "image/png"),
            ("content-type", "text/plain"),
            ("content-type", "json"),
            ("content-type", ""),
            ("content-encoding", "gzip"),
            ("inference-header-content-length", "7"),
        ] {
            assert!(!may_be_json(&headers(&[other])), "{other:?}");
        }
    }
}
