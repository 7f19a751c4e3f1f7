//! Files of a bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, ensure};

/// The bytes of a file, `most` of them. Fails on what is no file: a pipe or a device may never end.
pub(crate) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>> {
    let metadata = path.metadata()?;
    ensure!(metadata.is_file(), "is not a file");
    let too_long = || format!("is longer than {most} bytes, the most that is read of such a file");
    ensure!(metadata.len() <= most, too_long());
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len())?);
    // It may grow meanwhile.
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= most, too_long());
    Ok(bytes)
}
