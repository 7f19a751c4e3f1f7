//! The headers of an answer that is kept: as small as they are, and in two pieces of memory, as there
//! are many of them. A [`HeaderMap`] has room for more, and a piece for each value.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Names with their values, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headers {
    /// Each, and where its value ends.
    names: Box<[(HeaderName, u32)]>,
    /// One after the other.
    values: Bytes,
}

impl Headers {
    /// Those of `headers` but `without` some.
    #[must_use]
    pub(super) fn of(headers: &HeaderMap, without: &[HeaderName]) -> Self {
        let kept = || headers.iter().filter(|(name, _)| !without.contains(name));
        Self::from_pairs(kept().map(|(name, value)| (name.clone(), value)))
    }

    pub(super) fn from_pairs<V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (HeaderName, V)>,
    ) -> Self {
        let mut values = BytesMut::new();
        let name = |(name, value): (HeaderName, V)| {
            values.extend_from_slice(value.as_ref());
            (name, u32::try_from(values.len()).expect("no host takes heads of gigabytes"))
        };
        let names: Vec<_> = pairs.into_iter().map(name).collect();
        // No room for more.
        Self { names: names.into_boxed_slice(), values: Bytes::copy_from_slice(&values) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        let mut start = 0;
        self.names.iter().map(move |(name, end)| {
            let end = *end as usize;
            let value = &self.values[start..end];
            start = end;
            (name, value)
        })
    }

    /// As an answer has them, with room for `more`.
    #[must_use]
    pub(super) fn to_map(&self, more: usize) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.names.len() + more);
        let mut start = 0;
        for (name, end) in &self.names {
            let end = *end as usize;
            let value = HeaderValue::from_maybe_shared(self.values.slice(start..end));
            map.append(name.clone(), value.expect("it was one before"));
            start = end;
        }
        map
    }

    /// What they take of memory, about.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.names) + self.values.len()
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
        let headers = Headers::of(&map, &[CONNECTION]);
        map.remove(CONNECTION);
        assert_eq!(headers.to_map(0), map);
        let pairs = headers.iter().map(|(name, value)| (name.clone(), value.to_vec()));
        assert_eq!(Headers::from_pairs(pairs), headers);
        assert_eq!(Headers::of(&HeaderMap::new(), &[]).to_map(3), HeaderMap::new());
        assert!(headers.size() < 300, "{}", headers.size());
    }
}
