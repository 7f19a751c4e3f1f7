//! The fuzz target of this component: the pictures it is sent. `make fuzz` runs it for long, the test
//! below for a moment.

use crate::picture::pixels;

/// A file that may be a PNG: pixels as the model takes them, or refused.
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
