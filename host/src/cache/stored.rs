//! The headers and the body of an answer that is kept: as small as they are, and in one piece of memory,
//! as there are many of them, and most are put away and taken out again without being asked for. A
//! [`HeaderMap`] has room for more, and a piece for each value.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Headers most answers have at most, of those that are kept.
const FEW: usize = 4;

/// Names with their values, in order, and a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Each, and where its value ends.
    names: SmallVec<[(HeaderName, u32); FEW]>,
    /// The values one after the other, and the body.
    bytes: Bytes,
}

impl Stored {
    /// Those of `headers` but `without` some.
    #[must_use]
    pub(super) fn of(headers: &HeaderMap, without: &[HeaderName], body: &[u8]) -> Self {
        let kept = || headers.iter().filter(|(name, _)| !without.contains(name));
        let length = kept().map(|(_, value)| value.len()).sum();
        Self::from_pairs(kept().map(|(name, value)| (name.clone(), value)), length, body)
    }

    /// `length` is that of all values.
    pub(super) fn from_pairs<V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (HeaderName, V)>,
        length: usize,
        body: &[u8],
    ) -> Self {
        // No room for more.
        let mut bytes = BytesMut::with_capacity(length + body.len());
        let name = |(name, value): (HeaderName, V)| {
            bytes.extend_from_slice(value.as_ref());
            (name, u32::try_from(bytes.len()).expect("no host takes heads of gigabytes"))
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

    /// The headers as an answer has them, with room for `more`.
    #[must_use]
    pub(super) fn to_map(&self, more: usize) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.names.len() + more);
        let mut start = 0;
        for (name, end) in &self.names {
            let end = *end as usize;
            let value = HeaderValue::from_maybe_shared(self.bytes.slice(start..end));
            map.append(name.clone(), value.expect("it was one before"));
            start = end;
        }
        map
    }

    /// What they take of memory, beside the few names that are [always there](FEW), about.
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
    fn they_come_back_as_they_were() {
        let value = |bytes: &'static [u8]| HeaderValue::from_bytes(bytes).unwrap();
        let mut map = HeaderMap::new();
        for (name, bytes) in [
            (CONTENT_TYPE, &b"text/plain"[..]),
            (VARY, b"a"),
            (CONNECTION, b"close"),
            (VARY, b""),
            (HeaderName::from_static("x-own"), b"\xff b"),
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
        // More of them than there is always room for.
        for n in 0..9 {
            map.append(format!("x-{n}").parse::<HeaderName>().unwrap(), value(b"1"));
        }
        let many = Stored::of(&map, &[], b"body");
        assert_eq!((many.to_map(0), &many.body()[..]), (map, &b"body"[..]));
        assert!(many.size() > stored.size() + 9 * size_of::<HeaderName>());
    }
}
