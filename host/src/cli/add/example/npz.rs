//! Arrays written by `numpy.savez`: a ZIP archive of `.npy` files, named after the arrays.
//!
//! The format of a `.npy` file is specified in `numpy.lib.format`. Its header is one line that NumPy
//! always writes in the same form; crates for it depend on a parser generator and big integers.

use std::io::{Cursor, Read};

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use zip::ZipArchive;

use super::{Array, ElementCount, Elements};

/// Maximum number of arrays in a file.
const MAX_ARRAYS: usize = 1000;
/// Maximum size of all arrays, in bytes.
const MAX_BYTES: u64 = 256 << 20;
/// Maximum size of a header, in bytes: NumPy's own.
const MAX_HEADER: usize = 10_000;

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Array>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).context("not a ZIP archive")?;
    ensure!(archive.len() <= MAX_ARRAYS, "the file has more than {MAX_ARRAYS} arrays");
    let mut left = MAX_BYTES;
    let mut count = ElementCount::default();
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index)?;
        let name = file.name()?.into_owned();
        let Some(array) = name.strip_suffix(".npy") else {
            bail!("{name:?}: expected .npy files, as numpy.savez writes them")
        };
        let mut content = Vec::new();
        file.by_ref().take(left + 1).read_to_end(&mut content).with_context(|| name.clone())?;
        left =
            left.checked_sub(content.len() as u64).context("the arrays are larger than 256 MiB")?;
        arrays.push(read(array, &content, &mut count).with_context(|| name.clone())?);
    }
    Ok(arrays)
}

/// Parses a single `.npy` file.
#[cfg(any(test, fuzzing))]
pub(super) fn parse_array(name: &str, bytes: &[u8]) -> Result<Vec<Array>> {
    Ok(vec![read(name, bytes, &mut ElementCount::default())?])
}

fn read(name: &str, bytes: &[u8], count: &mut ElementCount) -> Result<Array> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").context("not a .npy file")?;
    let (version, rest) = rest.split_first_chunk::<2>().context("the file is truncated")?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(n, rest)| (u16::from_le_bytes(*n).into(), rest)),
        2 | 3 => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n), rest)),
        other => bail!("version {other} of the format is not supported; versions 1 to 3 are"),
    }
    .context("the file is truncated")?;
    ensure!(
        length as usize <= MAX_HEADER,
        "the header has {length} bytes; the maximum is {MAX_HEADER}"
    );
    let (header, data) = rest.split_at_checked(length as usize).context("the file is truncated")?;
    let Header { descr, fortran_order, shape } = Header::parse(header)
        .with_context(|| format!("the header is not valid: {:?}", shown(header)))?;
    let elements = count.add(&shape)?;
    let elements = decode(&descr, data, elements)?;
    let elements = if fortran_order { elements.transposed(&shape) } else { elements };
    Ok(Array { name: name.to_owned(), shape, datatype: None, elements })
}

fn shown(header: &[u8]) -> String {
    String::from_utf8_lossy(header).chars().take(100).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// The type: byte order, kind, size.
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`
    fn parse(header: &[u8]) -> Option<Self> {
        let text = str::from_utf8(header).ok()?;
        let text = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let after = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}':"))?;
            Some(rest.trim_start())
        };
        // A structured type, which is a list, is not supported.
        let descr = after("descr")?.strip_prefix('\'')?.split_once('\'')?.0.to_owned();
        let order = after("fortran_order")?;
        let fortran_order = order.starts_with("True");
        if !fortran_order && !order.starts_with("False") {
            return None;
        }
        let sizes = after("shape")?.strip_prefix('(')?.split_once(')')?.0;
        let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
        // Python 2 wrote long integers as `3L`.
        let shape = sizes.map(|size| size.trim_end_matches('L').parse().ok());
        Some(Self { descr, fortran_order, shape: shape.collect::<Option<_>>()? })
    }
}

fn decode(descr: &str, data: &[u8], count: usize) -> Result<Elements> {
    let order = descr.chars().next().filter(|order| "<>|=".contains(*order));
    let order = order.with_context(|| format!("the type {descr:?} has no byte order"))?;
    let code = &descr[1..];
    let kind = code.chars().next().unwrap_or_default();
    ensure!(
        kind != 'O',
        "the array holds Python objects; save it with a dtype, such as str or float32"
    );
    let size: Option<usize> = code.get(1..).and_then(|size| size.parse().ok());
    let size = size.with_context(|| format!("the type {descr:?} is not supported"))?;
    let width = if kind == 'U' { size.checked_mul(4) } else { Some(size) };
    let length = width.and_then(|width| width.checked_mul(count));
    ensure!(
        length == Some(data.len()),
        "{} bytes of data do not fill {count} elements of the type {descr:?}",
        data.len()
    );
    let width = width.unwrap_or_default();
    if width == 0 {
        // Empty strings.
        ensure!(matches!(kind, 'S' | 'U'), "the type {descr:?} is not supported");
        return Ok(Elements::Strings(vec![Vec::new(); count]));
    }
    let big_endian = order == '>';
    // Each element as a little-endian number of 8 bytes.
    let items = data.chunks_exact(width).map(|item| {
        let mut bytes = [0; 8];
        for (index, byte) in item.iter().take(8).enumerate() {
            bytes[if big_endian { width.min(8) - 1 - index } else { index }] = *byte;
        }
        u64::from_le_bytes(bytes)
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the element has that width"
    )]
    Ok(match (kind, size) {
        ('f', 2) => Elements::Floats(items.map(|x| f16::from_bits(x as u16).into()).collect()),
        ('f', 4) => Elements::Floats(items.map(|x| f32::from_bits(x as u32).into()).collect()),
        ('f', 8) => Elements::Floats(items.map(f64::from_bits).collect()),
        // NumPy has no bfloat16; that of the package `ml_dtypes` is written as V2.
        ('V', 2) => Elements::Floats(items.map(|x| bf16::from_bits(x as u16).into()).collect()),
        ('b', 1) => Elements::Bools(items.map(|x| x != 0).collect()),
        ('u', 1 | 2 | 4 | 8) => Elements::Integers(items.map(i128::from).collect()),
        ('i', 1) => Elements::Integers(items.map(|x| i128::from(x as i8)).collect()),
        ('i', 2) => Elements::Integers(items.map(|x| i128::from(x as i16)).collect()),
        ('i', 4) => Elements::Integers(items.map(|x| i128::from(x as i32)).collect()),
        ('i', 8) => Elements::Integers(items.map(|x| i128::from(x as i64)).collect()),
        ('S', _) => Elements::Strings(data.chunks_exact(width).map(|s| trimmed(s, 1)).collect()),
        ('U', _) => {
            let strings = data.chunks_exact(width).map(|string| text(string, big_endian));
            Elements::Strings(strings.collect::<Result<_>>()?)
        }
        _ => bail!(
            "the type {descr:?} is not supported; save the array as float16/32/64, bool, int8 to \
             int64, uint8 to uint64, or strings"
        ),
    })
}

/// `string` without its padding of zeros.
fn trimmed(string: &[u8], width: usize) -> Vec<u8> {
    let used = string.chunks(width).rposition(|unit| unit.iter().any(|&byte| byte != 0));
    string[..used.map_or(0, |last| (last + 1) * width)].to_vec()
}

/// A string of code points of 4 bytes, as UTF-8.
fn text(string: &[u8], big_endian: bool) -> Result<Vec<u8>> {
    let string = trimmed(string, 4);
    let (points, _) = string.as_chunks();
    let point = |&point| {
        let number = if big_endian { u32::from_be_bytes(point) } else { u32::from_le_bytes(point) };
        char::from_u32(number).context("a string is not Unicode")
    };
    Ok(points.iter().map(point).collect::<Result<String>>()?.into_bytes())
}

impl Elements {
    /// Elements in column-major (Fortran) order, reordered to row-major order.
    fn transposed(self, shape: &[usize]) -> Self {
        match self {
            Self::Floats(elements) => Self::Floats(transposed(&elements, shape)),
            Self::Integers(elements) => Self::Integers(transposed(&elements, shape)),
            Self::Bools(elements) => Self::Bools(transposed(&elements, shape)),
            Self::Strings(elements) => Self::Strings(transposed(&elements, shape)),
        }
    }
}

fn transposed<T: Clone>(elements: &[T], shape: &[usize]) -> Vec<T> {
    let from = |index: usize| {
        let (mut rest, mut stride, mut from) = (index, elements.len(), 0);
        for &size in shape.iter().rev() {
            stride /= size;
            from += rest % size * stride;
            rest /= size;
        }
        from
    };
    (0..elements.len()).map(|index| elements[from(index)].clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// Written by NumPy: one array of each type, compressed.
    const TYPES: &[u8] = include_bytes!("../../../../../tests/models/add/example-types.npz");

    pub(super) fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
    }

    fn npz(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            archive.start_file(*name, SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn numpy_arrays_of_every_type_are_read() {
        let arrays = parse(TYPES).unwrap();
        assert_eq!(arrays.len(), 19);
        for array in arrays {
            let expected = match array.name.as_str() {
                "float16" | "float32" | "float64" | "big" => Elements::Floats(vec![0.5, -2.0]),
                "bool" => Elements::Bools(vec![true, false]),
                "text" | "text_big" => {
                    Elements::Strings(["né", ""].map(|s| s.as_bytes().to_vec()).to_vec())
                }
                "bytes" => Elements::Strings(vec![b"ab".to_vec(), b"c".to_vec()]),
                "fortran" => Elements::Integers((0..6).collect()),
                "scalar" => Elements::Integers(vec![7]),
                unsigned if unsigned.starts_with('u') => Elements::Integers(vec![1, 200]),
                _ => Elements::Integers(vec![1, -2]),
            };
            assert_eq!(array.elements, expected, "{}", array.name);
            let shape: &[usize] = match array.name.as_str() {
                "fortran" => &[2, 3],
                "scalar" => &[],
                _ => &[2],
            };
            assert_eq!(array.shape, shape, "{}", array.name);
        }
    }

    #[test]
    fn invalid_arrays_are_refused() {
        for (bytes, part) in [
            (npy("|O", "False", "(1,)", b"\0"), "Python objects"),
            (npy("<c8", "False", "(1,)", &[0; 8]), "is not supported"),
            (npy("<f4", "False", "(2,)", &[0; 4]), "do not fill 2 elements"),
            (npy("<f4", "False", "(99999999999,)", &[]), "more than 16777216 elements"),
            (npy("<U1", "False", "(1,)", &[0, 0xd8, 0, 0]), "not Unicode"),
            (npy("<f4", "Maybe", "(1,)", &[0; 4]), "the header"),
            (npy("<f4", "False", "(1", &[0; 4]), "the header"),
            (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "the header has 65535 bytes"),
            (b"\x93NUMPY\x09\x00".to_vec(), "version 9 of the format"),
            (b"PK".to_vec(), "not a .npy file"),
        ] {
            let error = format!("{:#}", parse_array("x", &bytes).unwrap_err());
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = format!("{:#}", parse(b"PK").unwrap_err());
        assert!(error.contains("not a ZIP archive"), "{error}");
        let error = format!("{:#}", parse(&npz(&[("x.txt", b"")])).unwrap_err());
        assert!(error.contains("expected .npy files"), "{error}");
    }

    #[test]
    fn archive_that_expands_over_the_limit_is_refused() {
        let zeros = npy("|u1", "False", "(17000000,)", &vec![0; 17_000_000]);
        let error = format!("{:#}", parse(&npz(&[("x.npy", &zeros)])).unwrap_err());
        assert!(error.contains("more than 16777216 elements"), "{error}");
    }

    proptest! {
        #[test]
        fn corrupted_arrays_do_not_panic(at: prop::sample::Index, with: u8, cut: bool) {
            let mut bytes = npy("<f4", "True", "(2, 3)", &[1; 24]);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = with }
            super::super::fuzz(&bytes);
        }

        #[test]
        fn corrupted_archives_do_not_panic(at: prop::sample::Index, with: u8) {
            let mut bytes = TYPES.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = with;
            super::super::fuzz(&bytes);
        }
    }
}
