//! What an answer depends on, as 128 bits.
//!
//! SHA-256, as it is collision-resistant whoever chooses the bodies, the same on every node and for
//! every version of this host, and done by the processor itself on today's servers. Of its 256 bits
//! 128 are kept: among n answers two are confused with a probability of at most n^2 / 2^129, which
//! is 10^-15 for 10^12 answers.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::HeaderName;
use http::header::HOST;
use http::request::Parts;
use sha2::{Digest, Sha256};

/// A request to a component, as far as its answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 16]);

impl Hash for Key {
    /// It is a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (halves, _) = self.0.as_chunks();
        state.write_u64(u64::from_le_bytes(halves[0]));
    }
}

/// What the answers of a component depend on beside the request: its code, its models, what it was
/// given to read.
#[derive(Clone, Debug)]
pub struct Origin(Sha256);

impl Origin {
    /// `parts`, in order; each is told from the next.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        parts.into_iter().for_each(|part| put(&mut hash, part));
        Self(hash)
    }

    /// The key of a request whose answer depends on its headers of these `names`, and of which `body`
    /// counts, as what `form` says; of every generation another.
    #[must_use]
    pub fn key<'a>(
        &self,
        generation: u64,
        head: &Parts,
        (form, body): (&str, &[u8]),
        names: impl IntoIterator<Item = &'a HeaderName>,
    ) -> Key {
        let mut hash = self.0.clone();
        put(&mut hash, &generation.to_le_bytes());
        put(&mut hash, head.method.as_str().as_bytes());
        put(&mut hash, head.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
        put(&mut hash, form.as_bytes());
        put(&mut hash, body);
        for name in names {
            put(&mut hash, name.as_str().as_bytes());
            // HTTP/2 has it elsewhere.
            if let Some(host) = head.uri.authority().filter(|_| *name == HOST) {
                put(&mut hash, host.as_str().as_bytes());
            }
            let values = head.headers.get_all(name);
            put(&mut hash, &values.iter().count().to_le_bytes());
            values.iter().for_each(|value| put(&mut hash, value.as_bytes()));
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Key(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Key {
    #[must_use]
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
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

    fn key(parts: &[&[u8]], method: &str, path: &str, body: &[u8]) -> Key {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        Origin::new(parts.iter().copied()).key(0, &request.into_parts().0, ("", body), &[])
    }

    #[test]
    fn whatever_differs_makes_another_key() {
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
        let of = |generation| Origin::new([]).key(generation, &head, ("", b""), &[]);
        assert_ne!(of(0), of(1));
    }

    #[test]
    fn headers_that_are_named_count() {
        let [accept, own] = ["accept", "x-a"].map(HeaderName::from_static);
        let by = |names: &[HeaderName], headers: &[(&str, &str)]| {
            let mut request = Request::get("/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            Origin::new([]).key(0, &request.body(()).unwrap().into_parts().0, ("", b""), names)
        };
        let names = [accept.clone(), own];
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
    fn the_host_counts_wherever_it_stands() {
        let of = |uri| {
            let head = Request::get(uri).body(()).unwrap().into_parts().0;
            Origin::new([]).key(0, &head, ("", b""), &[HOST])
        };
        assert_ne!(of("http://a.example/x"), of("http://b.example/x"));
    }
}
