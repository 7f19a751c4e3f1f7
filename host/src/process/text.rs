//! Untrusted text in messages.

/// The first bytes of a text from a guest, for a message: the whole may have any length.
pub(crate) fn shortened(name: &str) -> &str {
    const MAX_BYTES: usize = 100;
    if name.len() <= MAX_BYTES { name } else { &name[..name.floor_char_boundary(MAX_BYTES)] }
}
