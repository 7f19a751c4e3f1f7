//! The headers and the body of a cached response in one allocation of their exact size. There are many
//! of them, and most are stored and evicted without ever being requested. A [`HeaderMap`] would have
//! spare capacity and an allocation for each value.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Number of stored headers without a separate allocation: most responses have no more.
const INLINE_NAMES: usize = 4;

/// Headers in order, and a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Each name, and the end of its value in `bytes`.
    names: SmallVec<[(HeaderName, u32); INLINE_NAMES]>,
    /// The values, followed by the body.
    bytes: Bytes,
}

impl Stored {
    /// All `headers` except those in `without`, and `body`.
    #[must_use]
    pub(super) fn of(headers: &HeaderMap, without: &[HeaderName], body: &[u8]) -> Self {
        let stored = || headers.iter().filter(|(name, _)| !without.contains(name));
        let length = stored().map(|(_, value)| value.len()).sum();
        Self::from_pairs(stored().map(|(name, value)| (name.clone(), value)), length, body)
    }

    /// `length` is the total length of the values, in bytes.
    pub(super) fn from_pairs<V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (HeaderName, V)>,
        length: usize,
        body: &[u8],
    ) -> Self {
        let mut bytes = BytesMut::with_capacity(length + body.len());
        let name = |(name, value): (HeaderName, V)| {
            bytes.extend_from_slice(value.as_ref());
            (name, u32::try_from(bytes.len()).expect("heads are limited to much less than 4 GiB"))
        };
        let names = pairs.into_iter().map(name).collect();
        bytes.extend_from_slice(body);
        Self { names, bytes: bytes.freeze() }
    }

    /// The same headers, and another body.
    #[must_use]
    pub(super) fn with_body(self, body: &[u8]) -> Self {
        let values = &self.bytes[..self.values()];
        let bytes = Bytes::from([values, body].concat());
        Self { bytes, ..self }
    }

    /// Where the last value ends.
    fn values(&self) -> usize {
        self.names.last().map_or(0, |(_, end)| *end as usize)
    }

    #[must_use]
    pub(super) fn body(&self) -> Bytes {
        self.bytes.slice(self.values()..)
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        let mut start = 0;
        self.names.iter().map(move |(name, end)| {
            let end = *end as usize;
            let value = &self.bytes[start..end];
            start = end;
            (name, value)
        })
    }

    /// The headers, with capacity for `more`.
    #[must_use]
    pub(super) fn to_map(&self, more: usize) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.names.len() + more);
        let mut start = 0;
        for (name, end) in &self.names {
            let end = *end as usize;
            let value = HeaderValue::from_maybe_shared(self.bytes.slice(start..end));
            map.append(name.clone(), value.expect("it was a valid value when it was stored"));
            start = end;
        }
        map
    }

    /// Approximate memory, in bytes, without the names that are [inline](INLINE_NAMES).
    #[must_use]
    pub(super) fn size(&self) -> usize {
        let names = if self.names.spilled() { size_of_val(&*self.names) } else { 0 };
        names + self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONNECTION, CONTENT_TYPE, VARY};

    use super::*;

    #[test]
    fn headers_and_body_round_trip() {
        let value = |bytes: &'static [u8]| HeaderValue::from_bytes(bytes).unwrap();
        let mut map = HeaderMap::new();
        for (name, bytes) in [
            (CONTENT_TYPE, &b"text/plain"[..]),
            (VARY, b"a"),
            (CONNECTION, b"close"),
            (VARY, b""),
            (HeaderName::from_static("x-custom"), b"\xff b"),
        ] {
            map.append(name, value(bytes));
        }
        let stored = Stored::of(&map, &[CONNECTION], b"body");
        map.remove(CONNECTION);
        assert_eq!((stored.to_map(0), &stored.body()[..]), (map.clone(), &b"body"[..]));
        let pairs = stored.headers().map(|(name, value)| (name.clone(), value.to_vec()));
        assert_eq!(Stored::from_pairs(pairs, 0, b"body"), stored);
        assert!(stored.size() < 100, "{}", stored.size());
        for body in [&b""[..], b"another"] {
            let another = stored.clone().with_body(body);
            assert_eq!((another.to_map(0), &another.body()[..]), (map.clone(), body));
        }
        for body in [&b""[..], b"body"] {
            let bare = Stored::of(&HeaderMap::new(), &[], b"").with_body(body);
            assert_eq!((bare.to_map(3), &bare.body()[..]), (HeaderMap::new(), body));
        }
        // More names than are inline.
        for n in 0..9 {
            map.append(format!("x-{n}").parse::<HeaderName>().unwrap(), value(b"1"));
        }
        let many = Stored::of(&map, &[], b"body");
        assert_eq!((many.to_map(0), &many.body()[..]), (map, &b"body"[..]));
        assert!(many.size() > stored.size() + 9 * size_of::<HeaderName>());
    }
}
