//! How request bodies are compared: by their bytes, unless the component declares otherwise.
//!
//! `Vary` declares which headers a response depends on, `No-Vary-Search`
//! (draft-ietf-httpbis-no-vary-search) which parts of the query. The response header `spinfer-body-key`
//! declares it for the body:
//!
//! - `json`: bodies that are equal as JSON get the same response.
//! - `tensors`: in addition, arrays under `data` may be flat or nested according to `shape`, as in the
//!   Open Inference Protocol.
//!
//! HTTP's QUERY method, whose responses are cached by content too, permits caches to normalize bodies
//! in the same way (draft-ietf-httpbis-safe-method-w-body, 2.7).
//!
//! The host removes the header: clients never receive it.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};

const HEADER: HeaderName = HeaderName::from_static("spinfer-body-key");
/// The body is JSON followed by binary tensors, which may look like white space.
const BINARY_TENSORS: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Content types of bodies that are JSON, or are likely to be: `curl` declares a form by default.
const TYPES: [&[u8]; 2] = [b"application/json", b"application/x-www-form-urlencoded"];
const JSON_SUFFIX: &[u8] = b"+json";

/// The canonical form by which bodies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKey {
    Json,
    Tensors,
}

impl BodyKey {
    /// The value of the header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Tensors => "tensors",
        }
    }

    /// Removes the header from a response, and returns its value.
    pub(super) fn take(response: &mut HeaderMap) -> Option<Self> {
        match response.remove(HEADER)?.as_bytes() {
            b"json" => Some(Self::Json),
            b"tensors" => Some(Self::Tensors),
            _ => None,
        }
    }
}

/// Whether the headers of a request allow its body to be JSON only.
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
    fn header_is_removed_from_the_response() {
        for (value, key) in [
            ("json", Some(BodyKey::Json)),
            ("tensors", Some(BodyKey::Tensors)),
            ("JSON", None),
            ("json, tensors", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_static(value))]);
            assert_eq!(BodyKey::take(&mut headers), key, "{value}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn json_bodies_are_recognised_by_their_headers() {
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
