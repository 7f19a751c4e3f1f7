//! Files that are written whole or not at all: to a temporary file in the same folder, which is renamed. A
//! full disk or a crash never leaves a truncated file under its name.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Permissions of a file that every user may read: the host may run as another user.
pub(crate) const READABLE: u32 = 0o644;

/// What becomes of a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    /// It is an error.
    Keep,
}

/// Writes `contents` to the file `path` with the permissions `mode`. When this returns, the file is on the
/// disk.
///
/// # Errors
/// The file cannot be written, or exists and is kept. Nothing is left of it.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32, existing: Existing) -> io::Result<()> {
    let mut staged = stage(path, mode)?;
    staged.write_all(contents)?;
    finish(staged, path, existing)
}

/// Creates a temporary file, which [`finish`] renames to `path`.
pub(crate) fn stage(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let staged = tempfile::Builder::new().prefix(".spinfer-").tempfile_in(folder(path))?;
    // Unlike those of a new file, they do not depend on the umask.
    staged.as_file().set_permissions(Permissions::from_mode(mode))?;
    Ok(staged)
}

/// Renames a complete file to `path`.
pub(crate) fn finish(staged: NamedTempFile, path: &Path, existing: Existing) -> io::Result<()> {
    staged.as_file().sync_all()?;
    match existing {
        Existing::Replace => staged.persist(path)?,
        Existing::Keep => staged.persist_noclobber(path)?,
    };
    sync_folder_of(path);
    Ok(())
}

/// Writes the name `path` to the disk, on file systems that can do that.
pub(crate) fn sync_folder_of(path: &Path) {
    let _ = File::open(folder(path)).and_then(|folder| folder.sync_all());
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_or_kept_with_no_other_file_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"one", 0o600, Existing::Keep).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = write(&path, b"two", READABLE, Existing::Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"two", READABLE, Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, READABLE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        write(&folder, b"", READABLE, Existing::Replace).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file");
    }

    #[test]
    fn a_path_without_a_folder_is_in_the_current_one() {
        assert_eq!(folder(Path::new("spin.toml")), Path::new("."));
        assert_eq!(folder(Path::new("a/spin.toml")), Path::new("a"));
    }
}
