//! Converts a PNG to the features of scikit-learn's digits: 8x8 pixels, each the amount of ink in its part of
//! the picture, from 0 to 16. In the dataset a part has 4x4 dots, and the ink is their number.

use model_sdk::Error;
use png::DecodeOptions;

use crate::decode::{Picture, decode};

/// Width and height of the features, in pixels.
const SIDE: usize = 8;
/// Number of features.
pub(crate) const PIXELS: u32 = 64;
/// Value of a pixel that is all ink.
const MAX_INK: f64 = 16.0;

/// The features of a file.
///
/// # Errors
/// If the file is not a PNG that [`decode`] supports.
pub(crate) fn pixels(png: &[u8]) -> Result<[f32; PIXELS as usize], Error> {
    Ok(decode(png, DecodeOptions::default())?.pixels())
}

impl Picture {
    /// The ink in each part of the picture, row by row. It may be dark on light or light on dark: the border is
    /// taken to be paper.
    pub(crate) fn pixels(mut self) -> [f32; PIXELS as usize] {
        if self.has_light_border() {
            for dot in &mut self.dots {
                *dot = u8::MAX - *dot;
            }
        }
        self.shrink()
    }

    /// Whether the outermost dots are light on average.
    fn has_light_border(&self) -> bool {
        let rows = self.dots.chunks_exact(self.width);
        let (mut sum, mut count) = (0, 0);
        for (y, row) in rows.enumerate() {
            let whole = y == 0 || y == self.height - 1;
            let border = if whole { row } else { &[row[0], row[self.width - 1]][..] };
            sum += border.iter().map(|&dot| u64::from(dot)).sum::<u64>();
            count += border.len() as u64;
        }
        2 * sum > 255 * count
    }

    /// The mean ink of each part. A dot on the line between two parts counts for both, in proportion. Computed in
    /// integers, and therefore exact.
    #[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest")]
    fn shrink(&self) -> [f32; PIXELS as usize] {
        let Self { width, height, .. } = *self;
        let mut sums = [0_u64; PIXELS as usize];
        for (y, row) in self.dots.chunks_exact(width).enumerate() {
            let mut of_row = [0_u64; SIDE];
            for (x, &dot) in row.iter().enumerate() {
                for (part, overlap) in parts(x, width) {
                    of_row[part] += u64::from(dot) * overlap;
                }
            }
            for (part, overlap) in parts(y, height) {
                for (sum, of_row) in sums[part * SIDE..].iter_mut().zip(of_row) {
                    *sum += of_row * overlap;
                }
            }
        }
        let all_ink = 255.0 * (width * height) as f64;
        sums.map(|sum| (sum as f64 * MAX_INK / all_ink) as f32)
    }
}

/// The parts that the dot at `position` of `length` overlaps, with the overlap in eighths of a dot. A part is
/// `length` eighths wide.
fn parts(position: usize, length: usize) -> impl Iterator<Item = (usize, u64)> {
    let (start, end) = (position * SIDE, (position + 1) * SIDE);
    (start / length..=(end - 1) / length).map(move |part| {
        let overlap = end.min((part + 1) * length) - start.max(part * length);
        (part, overlap as u64)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing;

    fn image(name: &str) -> Vec<u8> {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/images");
        std::fs::read(images.join(format!("{name}.png"))).unwrap()
    }

    fn grey(width: usize, dots: &[u8]) -> Picture {
        Picture { width, height: dots.len() / width, dots: dots.to_vec() }
    }

    #[test]
    fn pixel_is_the_mean_of_its_part() {
        let mut picture = vec![0; 32 * 32];
        // Five of the sixteen dots of the part in row 1, column 2.
        for (x, y) in [(8, 4), (9, 4), (10, 5), (11, 7), (8, 7)] {
            picture[y * 32 + x] = 255;
        }
        let mut expected = [0.0; 64];
        expected[8 + 2] = 5.0;
        assert_eq!(grey(32, &picture).shrink(), expected);
        // Twelve dots over eight parts: 1.5 each.
        let picture = grey(12, &[0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 51]);
        let row = [16.0 / 3.0, 16.0 / 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.2 / 1.5];
        for (got, expected) in picture.shrink().iter().zip(row.iter().cycle()) {
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
        assert_eq!(grey(1, &[255]).shrink(), [16.0; 64]);
    }

    #[test]
    fn border_is_paper() {
        assert!(grey(3, &[255, 255, 255, 255, 0, 255, 255, 255, 255]).has_light_border());
        assert!(!grey(3, &[0, 0, 0, 0, 255, 0, 0, 0, 0]).has_light_border());
        let (dark_on_light, light_on_dark) = ([255, 255, 0, 255], [0, 0, 255, 0]);
        assert!(grey(4, &dark_on_light).has_light_border());
        assert!(!grey(4, &light_on_dark).has_light_border());
    }

    /// Except for the rounding to 256 shades.
    #[test]
    fn picture_of_the_dataset_is_unchanged() {
        let pixels = pixels(&image("grey-8x8")).unwrap();
        assert!(pixels.iter().all(|pixel| (pixel - pixel.round()).abs() < 0.04), "{pixels:?}");
        assert_eq!(pixels[..8].iter().map(|pixel| pixel.round()).sum::<f32>(), 28.0);
    }

    proptest! {
        #[test]
        fn pixels_are_between_paper_and_ink(
            width in 1_usize..40,
            dots in prop::collection::vec(any::<u8>(), 40..400),
        ) {
            let rows = dots.len() / width * width;
            let picture = grey(width, &dots[..rows]);
            let parts = picture.shrink();
            prop_assert!(parts.iter().all(|part| (0.0..=16.0).contains(part)));
            // The mean of the ink is unchanged.
            let mean = |sum: f64, count: usize| sum / count as f64;
            let ink = mean(dots[..rows].iter().map(|&dot| f64::from(dot)).sum(), rows) / 255.0 * 16.0;
            let of_parts = mean(parts.iter().map(|&part| f64::from(part)).sum(), 64);
            prop_assert!((ink - of_parts).abs() < 1e-4, "{} {}", ink, of_parts);
        }

        #[test]
        fn no_file_panics(
            name in prop::sample::select(vec!["grey-8x8", "rgba-48x48", "palette-200x200", "interlaced-37x29"]),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            length in any::<prop::sample::Index>(),
        ) {
            let mut file = image(name);
            for (at, byte) in damage {
                let at = at.index(file.len());
                file[at] = byte;
            }
            fuzzing::png(&file);
            fuzzing::png(&file[..length.index(file.len())]);
        }
    }
}
