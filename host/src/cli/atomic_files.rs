//! Writes several files, all or none.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::{NamedTempFile, TempDir};
use walkdir::WalkDir;

/// Files and folders created so far, in order. They are removed on drop unless committed.
#[derive(Debug, Default)]
pub(super) struct FileTransaction {
    paths: Vec<PathBuf>,
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
            self.paths.push(path.to_owned());
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
            write_new(&path, bytes).with_context(|| path.display().to_string())?;
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
        let contents = WalkDir::new(folder).into_iter().map(|entry| Ok(entry?.into_path()));
        self.paths.extend(contents.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    /// Creates the file `path` and its missing parents. Fails if it exists.
    pub(super) fn create_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new("."));
        self.create_folder(parent)?;
        write_new(path, bytes).with_context(|| path.display().to_string())?;
        self.paths.push(path.to_owned());
        Ok(())
    }

    /// Creates or overwrites the file `path`.
    pub(super) fn write_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        if !path.exists() {
            return self.create_file(path, bytes);
        }
        let parent = path.parent().unwrap_or(Path::new("."));
        let mut staged = NamedTempFile::new_in(parent)?;
        staged.write_all(bytes)?;
        make_file_readable(staged.as_file())?;
        staged.persist(path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Replaces the contents of `path` by `text`. Fails if they are not `before` any more; `None`: creates
    /// the file.
    pub(super) fn replace(&mut self, path: &Path, before: Option<&str>, text: &str) -> Result<()> {
        let Some(before) = before else {
            return self.create_file(path, text.as_bytes());
        };
        let path = path.canonicalize()?;
        let parent = path.parent().unwrap_or(Path::new("."));
        let mut staged = NamedTempFile::new_in(parent)?;
        staged.write_all(text.as_bytes())?;
        staged.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
        staged.as_file().sync_all()?;
        let now = fs::read_to_string(&path)?;
        anyhow::ensure!(now == before, "{}: changed during the command; try again", path.display());
        staged.persist(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Keeps the created files and folders.
    pub(super) fn commit(mut self) {
        self.paths.clear();
    }
}

impl Drop for FileTransaction {
    fn drop(&mut self) {
        for path in self.paths.drain(..).rev() {
            // The error that caused this is reported already. A folder that is not empty stays.
            let _ = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Temporary folders are private, but the host may run as another user.
fn make_folder_readable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// Temporary files are private, but the host may run as another user.
pub(super) fn make_file_readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
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
        let make = || {
            let mut files = FileTransaction::default();
            files.create_folder_with(&at("models/wine/1"), &[("a", b"1"), ("b", b"2")]).unwrap();
            files.create_file(&at("components/x.wasm"), b"x").unwrap();
            files
        };
        drop(make());
        assert!(!at("models/wine").exists() && !at("components").exists());
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
        assert_eq!(fs::read_to_string(at("spin.toml")).unwrap(), "after");
    }
}
