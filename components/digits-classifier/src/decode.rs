//! Decodes PNG files into grey pictures: every colour type and depth, interlaced or not.

use std::io::{Cursor, ErrorKind};

use model_sdk::Error;
use png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

/// Maximum number of dots, as of 2048x2048. A decoded dot takes up to 5 bytes.
const MAX_DOTS: u64 = 1 << 22;
/// Maximum size of a decoded row, and of all chunks of metadata, in bytes. The decoder keeps several rows, and a
/// picture of [`MAX_DOTS`] may be a few long ones.
const LIMITS: Limits = Limits { bytes: 1 << 20 };

/// A grey picture: 0 is black, 255 white. Transparent dots are white.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// The dots, row by row.
    pub(crate) dots: Vec<u8>,
}

/// Decodes a file. Chunks of text and colour profiles, and data after the last row, are skipped without
/// decompression.
///
/// # Errors
/// If it is not a PNG, or damaged: 400. If it is too large: 413.
pub(crate) fn decode(png: &[u8], mut options: DecodeOptions) -> Result<Picture, Error> {
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(png), options);
    decoder.set_limits(LIMITS);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let (width, height) = decoder.read_header_info().map_err(refused)?.size();
    if u64::from(width) * u64::from(height) > MAX_DOTS {
        return Err(Error::too_large(format!(
            "the image: expected at most {MAX_DOTS} pixels, got {width}x{height}"
        )));
    }
    let mut reader = decoder.read_info().map_err(refused)?;
    // The decoder panics on the rest of a colour.
    let palette = reader.info().palette.as_deref().unwrap_or_default();
    if !palette.len().is_multiple_of(3) {
        return Err(invalid("its palette is truncated"));
    }
    let size = reader.output_buffer_size().ok_or(DecodingError::LimitsExceeded).map_err(refused)?;
    let mut samples = vec![0; size];
    let colour = reader.next_frame(&mut samples).map_err(refused)?.color_type;
    // A file without its end is truncated, even if it has all rows.
    reader.finish().map_err(refused)?;

    let dots = match colour {
        ColorType::Grayscale => samples,
        ColorType::GrayscaleAlpha => {
            samples.as_chunks().0.iter().map(|&[grey, alpha]| over_white(grey, alpha)).collect()
        }
        ColorType::Rgb => samples.as_chunks().0.iter().map(|&rgb| luma(rgb)).collect(),
        ColorType::Rgba => {
            let rgba = samples.as_chunks().0.iter();
            rgba.map(|&[red, green, blue, alpha]| over_white(luma([red, green, blue]), alpha))
                .collect()
        }
        ColorType::Indexed => unreachable!("the decoder looks up the colours of palettes"),
    };
    Ok(Picture { width: width as usize, height: height as usize, dots })
}

/// The response to an error of the decoder.
fn refused(error: DecodingError) -> Error {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Error::invalid("the image: the PNG is truncated")
        }
        DecodingError::LimitsExceeded => Error::too_large(format!(
            "the image: expected rows and metadata of at most {} bytes",
            LIMITS.bytes
        )),
        error => invalid(error.to_string().trim_end_matches('.')),
    }
}

fn invalid(problem: &str) -> Error {
    Error::invalid(format!("the image: expected a PNG: {problem}"))
}

/// Luma by ITU-R BT.601.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let [red, green, blue] = [red, green, blue].map(u32::from);
    byte((299 * red + 587 * green + 114 * blue + 500) / 1000)
}

/// A dot on white paper.
fn over_white(grey: u8, alpha: u8) -> u8 {
    let (grey, alpha) = (u32::from(grey), u32::from(alpha));
    byte((grey * alpha + 255 * (255 - alpha) + 127) / 255)
}

/// A mean of bytes, which is a byte.
fn byte(mean: u32) -> u8 {
    u8::try_from(mean).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these chunks after the header, and no checksums.
    fn file(width: u32, colour: u8, chunks: &[(&str, &[u8])]) -> Vec<u8> {
        let mut header = [0; 13];
        header[..4].copy_from_slice(&width.to_be_bytes());
        (header[7], header[8], header[9]) = (1, 8, colour);
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        let (header, end) = (("IHDR", &header[..]), ("IEND", &[][..]));
        for (kind, data) in [&[header], chunks, &[end]].concat() {
            file.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            file.extend([kind.as_bytes(), data, &[0; 4]].concat());
        }
        file
    }

    fn decoded(file: &[u8]) -> Result<Vec<u8>, Error> {
        let mut unchecked = DecodeOptions::default();
        unchecked.set_ignore_checksums(true);
        decode(file, unchecked).map(|picture| picture.dots)
    }

    /// Deflates a row without compression.
    fn row(samples: &[u8]) -> Vec<u8> {
        let length = u16::try_from(1 + samples.len()).unwrap();
        let lengths = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
        [&[0x78, 1, 1], &lengths[..], &[0], samples, &[0; 4]].concat()
    }

    #[test]
    fn transparent_dots_are_white() {
        let grey = file(2, 0, &[("tRNS", &[0, 9]), ("IDAT", &row(&[9, 10]))]);
        assert_eq!(decoded(&grey).unwrap(), [255, 10]);
        let palette = ("PLTE", &[9, 9, 9, 10, 10, 10][..]);
        let palette = file(2, 3, &[palette, ("tRNS", &[0]), ("IDAT", &row(&[0, 1]))]);
        assert_eq!(decoded(&palette).unwrap(), [255, 10]);
    }

    /// The decoder panics on it.
    #[test]
    fn truncated_palette_is_refused() {
        for length in [4, 5, 7, 8] {
            let file = file(1, 3, &[("PLTE", &[9; 8][..length]), ("IDAT", &row(&[0]))]);
            let error = decoded(&file).unwrap_err();
            assert!(error.to_string().contains("its palette is truncated"), "{length}: {error}");
        }
    }

    #[test]
    fn row_over_the_limit_is_refused() {
        for (width, colour, part) in [
            (1 << 20, 0, "does not have enough data"),
            (1 << 20, 6, "expected rows and metadata of at most 1048576 bytes"),
            ((1 << 22) + 1, 0, "expected at most 4194304 pixels, got 4194305x1"),
        ] {
            let error = decoded(&file(width, colour, &[("IDAT", &row(&[0]))])).unwrap_err();
            assert!(error.to_string().contains(part), "{width}, {colour}: {error}");
        }
    }
}
