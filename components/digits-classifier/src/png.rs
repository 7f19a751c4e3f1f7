//! Decodes PNG files into grey pictures: every colour type and depth, not interlaced. Checksums of chunks are
//! ignored, since that of the compressed data is checked; so are transparent colours of pictures without a
//! palette. Chunks of text and colour profiles are skipped without decompression.
//! <https://www.w3.org/TR/png-3/>

use miniz_oxide::inflate::{TINFLStatus, decompress_slice_iter_to_slice};
use model_sdk::Error;

/// Maximum number of dots, as of 2048x2048. A decoded dot takes up to 8 bytes.
const MAX_DOTS: u64 = 1 << 22;
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A grey picture: 0 is black, 255 white. Transparent dots are white.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// The dots, row by row.
    pub(crate) dots: Vec<u8>,
}

/// The chunk `IHDR`.
struct Header {
    width: usize,
    height: usize,
    /// Bits per sample: 1, 2, 4, 8 or 16.
    depth: usize,
    colour: Colour,
}

/// The colour type.
#[derive(Clone, Copy)]
enum Colour {
    Grey,
    Rgb,
    Palette,
    GreyAlpha,
    RgbAlpha,
}

/// Decodes a file.
///
/// # Errors
/// If it is not a PNG, damaged or interlaced: 400. If it is too large: 413.
pub(crate) fn decode(png: &[u8]) -> Result<Picture, Error> {
    let rest = png.strip_prefix(SIGNATURE).ok_or_else(|| invalid("the signature is missing"))?;
    let chunks = chunks(rest)?;
    let header = match chunks.first() {
        Some((b"IHDR", header)) => Header::read(header)?,
        _ => return Err(invalid("the header is missing")),
    };
    let of = |kind: &[u8; 4]| chunks.iter().find(|chunk| chunk.0 == kind).map(|chunk| chunk.1);
    let palette = of(b"PLTE").unwrap_or_default();
    let alphas = of(b"tRNS").unwrap_or_default();
    let data = chunks.iter().filter(|chunk| chunk.0 == b"IDAT").map(|chunk| chunk.1);

    let mut rows = vec![0; header.height * (1 + header.row_bytes())];
    match decompress_slice_iter_to_slice(&mut rows, data, true, false) {
        Ok(length) if length == rows.len() => {}
        Ok(_) => return Err(invalid("it has fewer rows than its header declares")),
        Err(TINFLStatus::HasMoreOutput) => {
            return Err(invalid("it has more rows than its header declares"));
        }
        Err(_) => return Err(invalid("its compressed data is damaged")),
    }
    header.unfilter(&mut rows)?;

    let mut dots = Vec::with_capacity(header.width * header.height);
    for row in rows.chunks_exact(1 + header.row_bytes()) {
        header.read_row(&row[1..], palette, alphas, &mut dots)?;
    }
    Ok(Picture { width: header.width, height: header.height, dots })
}

/// The kind and data of a chunk.
type Chunk<'a> = (&'a [u8; 4], &'a [u8]);

/// The chunks up to `IEND`.
fn chunks(mut rest: &[u8]) -> Result<Vec<Chunk<'_>>, Error> {
    let mut chunks = Vec::new();
    loop {
        let (kind, data, left) =
            chunk(rest).ok_or_else(|| Error::invalid("the image: the PNG is truncated"))?;
        if kind == b"IEND" {
            return Ok(chunks);
        }
        chunks.push((kind, data));
        rest = left;
    }
}

/// The kind and data of the first chunk, and the bytes after it. A chunk is length, kind, data, checksum.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let (kind, bytes) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (data, bytes) = bytes.split_at_checked(length)?;
    let (_, rest) = bytes.split_first_chunk::<4>()?;
    Some((kind, data, rest))
}

impl Header {
    /// Decodes the header, and checks it.
    fn read(data: &[u8]) -> Result<Self, Error> {
        let Ok([w0, w1, w2, w3, h0, h1, h2, h3, depth, colour, compression, filter, interlace]) =
            <[u8; 13]>::try_from(data)
        else {
            return Err(invalid("its header does not have 13 bytes"));
        };
        let width = u32::from_be_bytes([w0, w1, w2, w3]);
        let height = u32::from_be_bytes([h0, h1, h2, h3]);
        if u64::from(width) * u64::from(height) > MAX_DOTS {
            return Err(Error::too_large(format!(
                "the image: expected at most {MAX_DOTS} pixels, got {width}x{height}"
            )));
        }
        let colour = match (colour, depth) {
            (0, 1 | 2 | 4 | 8 | 16) => Colour::Grey,
            (2, 8 | 16) => Colour::Rgb,
            (3, 1 | 2 | 4 | 8) => Colour::Palette,
            (4, 8 | 16) => Colour::GreyAlpha,
            (6, 8 | 16) => Colour::RgbAlpha,
            _ => return Err(invalid("its colour type does not allow its depth")),
        };
        match (width, height, compression, filter, interlace) {
            (1.., 1.., 0, 0, 0) => {}
            (1.., 1.., 0, 0, 1) => {
                return Err(Error::invalid(
                    "the image: an interlaced PNG is not supported; save it without interlacing",
                ));
            }
            _ => return Err(invalid("its header has unknown methods or an empty size")),
        }
        let (width, height) = (width as usize, height as usize);
        Ok(Self { width, height, depth: depth.into(), colour })
    }

    /// Number of samples per dot.
    fn samples(&self) -> usize {
        match self.colour {
            Colour::Grey | Colour::Palette => 1,
            Colour::GreyAlpha => 2,
            Colour::Rgb => 3,
            Colour::RgbAlpha => 4,
        }
    }

    /// Length of a row, in bytes, without its filter.
    fn row_bytes(&self) -> usize {
        (self.width * self.samples() * self.depth).div_ceil(8)
    }

    /// Reverses the filter of each row, which is its first byte.
    fn unfilter(&self, rows: &mut [u8]) -> Result<(), Error> {
        let length = 1 + self.row_bytes();
        let step = (self.samples() * self.depth).div_ceil(8);
        let mut above = vec![0; length];
        for row in rows.chunks_exact_mut(length) {
            let filter = row[0];
            for at in 1..length {
                let left = if at > step { row[at - step] } else { 0 };
                let corner = if at > step { above[at - step] } else { 0 };
                let expected = match filter {
                    0 => 0,
                    1 => left,
                    2 => above[at],
                    3 => left.midpoint(above[at]),
                    4 => paeth(left, above[at], corner),
                    _ => return Err(invalid("a row has an unknown filter")),
                };
                row[at] = row[at].wrapping_add(expected);
            }
            above.copy_from_slice(row);
        }
        Ok(())
    }

    /// Appends the dots of a row.
    fn read_row(
        &self,
        row: &[u8],
        palette: &[u8],
        alphas: &[u8],
        dots: &mut Vec<u8>,
    ) -> Result<(), Error> {
        for dot in 0..self.width {
            let sample = |index| self.sample(row, dot * self.samples() + index);
            // A sample of up to 8 bits, scaled to 255.
            let shade = |index| match self.depth {
                1 => sample(index) * 255,
                2 => sample(index) * 85,
                4 => sample(index) * 17,
                _ => sample(index),
            };
            dots.push(match self.colour {
                Colour::Grey => shade(0),
                Colour::Rgb => luma([shade(0), shade(1), shade(2)]),
                Colour::GreyAlpha => over_white(shade(0), shade(1)),
                Colour::RgbAlpha => over_white(luma([shade(0), shade(1), shade(2)]), shade(3)),
                Colour::Palette => {
                    let index = usize::from(sample(0));
                    let Some(&rgb) = palette.as_chunks().0.get(index) else {
                        return Err(invalid("a colour is not in its palette"));
                    };
                    over_white(luma(rgb), alphas.get(index).copied().unwrap_or(u8::MAX))
                }
            });
        }
        Ok(())
    }

    /// A sample without scaling. Of 16 bits, the upper 8.
    fn sample(&self, row: &[u8], index: usize) -> u8 {
        match self.depth {
            16 => row[2 * index],
            8 => row[index],
            depth => {
                let bit = index * depth;
                let below = 8 - depth - bit % 8;
                (row[bit / 8] >> below) & ((1 << depth) - 1)
            }
        }
    }
}

/// The Paeth predictor: of the three, the one nearest to `left + above - corner`.
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let plane = i16::from(left) + i16::from(above) - i16::from(corner);
    let mut nearest = left;
    for other in [above, corner] {
        if (plane - i16::from(other)).abs() < (plane - i16::from(nearest)).abs() {
            nearest = other;
        }
    }
    nearest
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
