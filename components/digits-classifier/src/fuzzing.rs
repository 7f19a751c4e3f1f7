//! The fuzz target of this component: the pictures that clients send. `make fuzz` runs it for minutes, the test
//! below briefly.

use png::DecodeOptions;

use crate::decode::{Picture, decode};
use crate::picture::pixels;

/// A file that may be a PNG: either the pixels of the model, or an error. Also without checksums, which few
/// mutations pass.
pub(crate) fn png(data: &[u8]) {
    let mut unchecked = DecodeOptions::default();
    unchecked.set_ignore_checksums(true);
    let decoded = [pixels(data), decode(data, unchecked).map(Picture::pixels)];
    for pixels in decoded.into_iter().flatten() {
        assert!(pixels.iter().all(|pixel| (0.0..=16.0).contains(pixel)), "{pixels:?}");
    }
}

#[cfg(test)]
mod tests {
    use spinfer_mutations::run_briefly;

    #[test]
    fn png() {
        run_briefly("png", super::png);
    }
}
