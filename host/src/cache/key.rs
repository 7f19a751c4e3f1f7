//! Cache keys: everything that a response may depend on, as 128 bits.
//!
//! ```text
//! SHA-256 of
//!     component   id, code, models, environment,         KeyPrefix
//!                 variables, fields not logged
//!     generation  of its purge scopes                    generation.rs
//!     request     method, path and query, body           body_key.rs, canonical/
//!                 headers named by Vary                  vary.rs
//! truncated to 128 bits
//! ```
//!
//! SHA-256 resists collisions even where clients choose the bodies, is the same on every node and in
//! every version of this host, and is computed by instructions of today's processors. With 128 of its
//! 256 bits, two of n responses have the same key with a probability of at most n^2 / 2^129, which is
//! 10^-15 for 10^12 responses.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::HeaderName;
use http::header::HOST;
use http::request::Parts;
use sha2::{Digest, Sha256};

/// The key of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheKey([u8; 16]);

impl Hash for CacheKey {
    /// The key is a hash already: its first 64 bits.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (halves, _) = self.0.as_chunks();
        state.write_u64(u64::from_le_bytes(halves[0]));
    }
}

/// The part of a key that is the same for all requests to a component: its id, code, models,
/// environment and variables, and the fields of its predictions that are not logged.
#[derive(Clone, Debug)]
pub struct KeyPrefix(Sha256);

impl KeyPrefix {
    /// The prefix of `parts`, in order. Each is hashed with its length.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        parts.into_iter().for_each(|part| put(&mut hash, part));
        Self(hash)
    }

    /// The key of a request in a `generation`. `form` names the canonical form that `body` is in, and
    /// is empty for the bytes as received. `names` are the headers that the response depends on.
    #[must_use]
    pub fn key<'a>(
        &self,
        generation: u64,
        head: &Parts,
        (form, body): (&str, &[u8]),
        names: impl IntoIterator<Item = &'a HeaderName>,
    ) -> CacheKey {
        let mut hash = self.0.clone();
        put(&mut hash, &generation.to_le_bytes());
        put(&mut hash, head.method.as_str().as_bytes());
        put(&mut hash, head.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
        put(&mut hash, form.as_bytes());
        put(&mut hash, body);
        for name in names {
            put(&mut hash, name.as_str().as_bytes());
            // HTTP/2 sends it as `:authority`.
            if let Some(host) = head.uri.authority().filter(|_| *name == HOST) {
                put(&mut hash, host.as_str().as_bytes());
            }
            let values = head.headers.get_all(name);
            put(&mut hash, &values.iter().count().to_le_bytes());
            values.iter().for_each(|value| put(&mut hash, value.as_bytes()));
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        CacheKey(key)
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl CacheKey {
    #[must_use]
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The 64 bits that its [hash](Hash) does not contain.
    pub(super) fn last_bits(&self) -> u64 {
        let (halves, _) = self.0.as_chunks();
        u64::from_le_bytes(halves[1])
    }
}

fn put(hash: &mut Sha256, part: &[u8]) {
    hash.update(part.len().to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn key(parts: &[&[u8]], method: &str, path: &str, body: &[u8]) -> CacheKey {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        KeyPrefix::new(parts.iter().copied()).key(0, &request.into_parts().0, ("", body), &[])
    }

    #[test]
    fn every_part_of_a_request_changes_the_key() {
        let keys = [
            key(&[b"ab", b"c"], "POST", "/a?b", b"body"),
            key(&[b"a", b"bc"], "POST", "/a?b", b"body"),
            key(&[b"ab"], "POST", "/a?b", b"body"),
            key(&[b"ab", b"c"], "GET", "/a?b", b"body"),
            key(&[b"ab", b"c"], "POST", "/a?c", b"body"),
            key(&[b"ab", b"c"], "POST", "/a", b"?bbody"),
            key(&[b"ab", b"c"], "POST", "/a?b", b"bodY"),
            key(&[b"ab", b"c"], "POST", "/a?b", b""),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_eq!(keys[0], key(&[b"ab", b"c"], "POST", "http://host/a?b", b"body"));
        let head = Request::new(()).into_parts().0;
        let of = |generation| KeyPrefix::new([]).key(generation, &head, ("", b""), &[]);
        assert_ne!(of(0), of(1));
    }

    #[test]
    fn named_headers_are_part_of_the_key() {
        let [accept, custom] = ["accept", "x-a"].map(HeaderName::from_static);
        let by = |names: &[HeaderName], headers: &[(&str, &str)]| {
            let mut request = Request::get("/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            KeyPrefix::new([]).key(0, &request.body(()).unwrap().into_parts().0, ("", b""), names)
        };
        let names = [accept.clone(), custom];
        let of = |headers| by(&names, headers);
        let keys = [
            by(&[], &[]),
            by(&[accept], &[]),
            of(&[]),
            of(&[("accept", "")]),
            of(&[("accept", "a")]),
            of(&[("accept", "a"), ("accept", "b")]),
            of(&[("accept", "a"), ("x-a", "b")]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_eq!(keys[4], of(&[("accept", "a"), ("other", "c")]));
    }

    #[test]
    fn host_is_read_from_the_authority_too() {
        let of = |uri| {
            let head = Request::get(uri).body(()).unwrap().into_parts().0;
            KeyPrefix::new([]).key(0, &head, ("", b""), &[HOST])
        };
        assert_ne!(of("http://a.example/x"), of("http://b.example/x"));
    }
}
