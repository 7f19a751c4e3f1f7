//! Writes several files, all or none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::process::atomic_file::{self, Existing, READABLE};

/// The changes so far, in order. They are undone on drop unless committed.
#[derive(Debug, Default)]
pub(super) struct FileTransaction {
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    /// A file or folder.
    Created(PathBuf),
    /// A file, and its contents before.
    Replaced(PathBuf, Vec<u8>),
}

impl FileTransaction {
    /// Creates `folder` and its missing parents.
    pub(super) fn create_folder(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .collect();
        for path in missing.into_iter().rev() {
            fs::create_dir(path).with_context(|| path.display().to_string())?;
            self.created(path);
        }
        Ok(())
    }

    /// Creates `folder` with `contents`, all or none. Fails if it exists.
    pub(super) fn create_folder_with(
        &mut self,
        folder: &Path,
        contents: &[(&str, &[u8])],
    ) -> Result<()> {
        let staged = self.stage(folder)?;
        for (name, bytes) in contents {
            let path = staged.path().join(name);
            atomic_file::write(&path, bytes, READABLE, Existing::Keep)
                .with_context(|| path.display().to_string())?;
        }
        self.adopt(staged, folder)
    }

    /// Creates a temporary folder next to `folder`; [`Self::adopt`] renames it.
    pub(super) fn stage(&mut self, folder: &Path) -> Result<TempDir> {
        let parent = folder.parent().unwrap_or(Path::new("."));
        self.create_folder(parent)?;
        let staged = tempfile::Builder::new().prefix(".add-").tempdir_in(parent);
        staged.with_context(|| parent.display().to_string())
    }

    /// Renames the `staged` folder to `folder`. Fails if that exists.
    pub(super) fn adopt(&mut self, staged: TempDir, folder: &Path) -> Result<()> {
        make_folder_readable(staged.path())?;
        // Fails if the folder exists and is not empty.
        fs::rename(staged.path(), folder).with_context(|| folder.display().to_string())?;
        // The folder was renamed: nothing is left to remove.
        drop(staged.keep());
        atomic_file::sync_folder_of(folder);
        let contents =
            WalkDir::new(folder).into_iter().map(|entry| Ok(Change::Created(entry?.into_path())));
        self.changes.extend(contents.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    /// Creates the file `path` and its missing parents. Fails if it exists.
    pub(super) fn create_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new("."));
        self.create_folder(parent)?;
        atomic_file::write(path, bytes, READABLE, Existing::Keep)
            .with_context(|| path.display().to_string())?;
        self.created(path);
        Ok(())
    }

    /// Creates or overwrites the file `path`.
    pub(super) fn write_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        if !path.exists() {
            return self.create_file(path, bytes);
        }
        let before = fs::read(path).with_context(|| path.display().to_string())?;
        atomic_file::write(path, bytes, READABLE, Existing::Replace)
            .with_context(|| path.display().to_string())?;
        self.changes.push(Change::Replaced(path.to_owned(), before));
        Ok(())
    }

    fn created(&mut self, path: &Path) {
        self.changes.push(Change::Created(path.to_owned()));
    }

    /// Replaces the contents of `path` by `text`. Fails if they are not `before` any more; `None`: creates
    /// the file.
    pub(super) fn replace(&mut self, path: &Path, before: Option<&str>, text: &str) -> Result<()> {
        let Some(before) = before else {
            return self.create_file(path, text.as_bytes());
        };
        let shown = || path.display().to_string();
        // A symbolic link is followed, not replaced.
        let path = path.canonicalize().with_context(shown)?;
        let mode = fs::metadata(&path).with_context(shown)?.permissions().mode();
        let now = fs::read_to_string(&path).with_context(shown)?;
        anyhow::ensure!(now == before, "{}: changed during the command; try again", path.display());
        atomic_file::write(&path, text.as_bytes(), mode, Existing::Replace).with_context(shown)?;
        self.changes.push(Change::Replaced(path, now.into_bytes()));
        Ok(())
    }

    /// Keeps the changes.
    pub(super) fn commit(mut self) {
        self.changes.clear();
    }
}

impl Drop for FileTransaction {
    fn drop(&mut self) {
        for change in self.changes.drain(..).rev() {
            // The error that caused this is reported already. A folder that is not empty stays.
            let _ = match change {
                Change::Created(path) if path.is_dir() => fs::remove_dir(&path),
                Change::Created(path) => fs::remove_file(&path),
                Change::Replaced(path, before) => {
                    let mode = fs::metadata(&path).map_or(READABLE, |m| m.permissions().mode());
                    atomic_file::write(&path, &before, mode, Existing::Replace)
                }
            };
        }
    }
}

/// Temporary folders are private, but the host may run as another user.
fn make_folder_readable(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uncommitted_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir(at("models")).unwrap();
        fs::write(at("models/other"), "").unwrap();
        fs::write(at("spin.toml"), "before").unwrap();
        fs::write(at("request.json"), "before").unwrap();
        let make = || {
            let mut files = FileTransaction::default();
            files.write_file(&at("request.json"), b"after").unwrap();
            files.create_folder_with(&at("models/wine/1"), &[("a", b"1"), ("b", b"2")]).unwrap();
            files.create_file(&at("components/x.wasm"), b"x").unwrap();
            files
        };
        let mut files = make();
        files.replace(&at("spin.toml"), Some("before"), "after").unwrap();
        drop(files);
        assert!(!at("models/wine").exists() && !at("components").exists());
        for file in ["spin.toml", "request.json"] {
            assert_eq!(fs::read_to_string(at(file)).unwrap(), "before");
        }
        assert!(at("models/other").exists());

        let mut files = make();
        assert!(files.create_folder_with(&at("models/wine/1"), &[("a", b"3")]).is_err(), "exists");
        assert!(files.create_file(&at("components/x.wasm"), b"y").is_err(), "exists");
        let error = files.replace(&at("spin.toml"), Some("another"), "after").unwrap_err();
        assert!(error.to_string().contains("changed during the command"), "{error}");
        files.replace(&at("spin.toml"), Some("before"), "after").unwrap();
        files.commit();
        assert_eq!(fs::read(at("models/wine/1/a")).unwrap(), b"1");
        assert_eq!(fs::read_dir(at("models/wine")).unwrap().count(), 1, "no staged folder is left");
        for file in ["spin.toml", "request.json"] {
            assert_eq!(fs::read_to_string(at(file)).unwrap(), "after");
        }
    }
}
