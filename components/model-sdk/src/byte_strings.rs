//! The data of BYTES tensors: each element is its length, a little-endian `u32`, followed by its bytes.

/// The elements of [`split_bytes`].
#[derive(Clone, Debug)]
pub(crate) struct SplitBytes<'a>(&'a [u8]);

/// Splits the data of a BYTES tensor into elements. A truncated element is `None`.
pub(crate) fn split_bytes(data: &[u8]) -> SplitBytes<'_> {
    SplitBytes(data)
}

impl<'a> Iterator for SplitBytes<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self(rest) = self;
        if rest.is_empty() {
            return None;
        }
        let element = rest.split_first_chunk().and_then(|(&length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)
        });
        let (element, left) = element.unzip();
        *rest = left.unwrap_or_default();
        Some(element)
    }
}

/// Appends an element to the data of a BYTES tensor.
pub(crate) fn push_bytes(element: &[u8], data: &mut Vec<u8>) {
    let length = u32::try_from(element.len()).expect("addresses in WebAssembly are 32 bits");
    data.extend(length.to_le_bytes());
    data.extend_from_slice(element);
}
