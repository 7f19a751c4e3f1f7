//! The fuzz target of this component: the pictures that clients send. `make fuzz` runs it for minutes, the test
//! below briefly.

use crate::picture::pixels;

/// A file that may be a PNG: either the pixels of the model, or an error.
pub(crate) fn png(data: &[u8]) {
    if let Ok(pixels) = pixels(data) {
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
