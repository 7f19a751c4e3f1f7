//! Foreign text in messages.

/// A guest's own words in a message: it may have given any number of them.
pub(crate) fn shortened(name: &str) -> &str {
    const MAX_BYTES: usize = 100;
    if name.len() <= MAX_BYTES { name } else { &name[..name.floor_char_boundary(MAX_BYTES)] }
}
