//! Reads files of a bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, ensure};

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// The file cannot be read, is larger, or is not a regular file: a pipe or a device may never end.
pub(crate) fn read_file(path: &Path, max: u64) -> Result<Vec<u8>> {
    let metadata = path.metadata()?;
    ensure!(metadata.is_file(), "is not a file");
    let too_large = || format!("is larger than {max} bytes, the limit for such a file");
    ensure!(metadata.len() <= max, too_large());
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len())?);
    // The file may grow while it is read.
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= max, too_large());
    Ok(bytes)
}
