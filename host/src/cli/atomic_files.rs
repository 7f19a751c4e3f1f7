//! Files that are written together or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::{NamedTempFile, TempDir};
use walkdir::WalkDir;

/// What was made so far, in order. Unless it is kept, it is removed again.
#[derive(Debug, Default)]
pub(super) struct Made {
    paths: Vec<PathBuf>,
}

impl Made {
    /// Makes `folder` and those above it that are missing.
    pub(super) fn folder(&mut self, folder: &Path) -> Result<()> {
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

    /// Makes `folder` with `contents`: all of it, or nothing. Fails if it is there.
    pub(super) fn folder_with(&mut self, folder: &Path, contents: &[(&str, &[u8])]) -> Result<()> {
        let staged = self.stage(folder)?;
        for (name, bytes) in contents {
            let path = staged.path().join(name);
            write_new(&path, bytes).with_context(|| path.display().to_string())?;
        }
        self.adopt(staged, folder)
    }

    /// Makes a folder beside `folder`, for what it is to hold: [`Made::adopt`] gives it the name.
    pub(super) fn stage(&mut self, folder: &Path) -> Result<TempDir> {
        let above = folder.parent().unwrap_or(Path::new("."));
        self.folder(above)?;
        let staged = tempfile::Builder::new().prefix(".add-").tempdir_in(above);
        staged.with_context(|| above.display().to_string())
    }

    /// Gives what is `staged` the name `folder`. Fails if it is there.
    pub(super) fn adopt(&mut self, staged: TempDir, folder: &Path) -> Result<()> {
        readable(staged.path())?;
        // Fails if the folder is there and not empty.
        fs::rename(staged.path(), folder).with_context(|| folder.display().to_string())?;
        // It has another name now.
        drop(staged.keep());
        let contents = WalkDir::new(folder).into_iter().map(|entry| Ok(entry?.into_path()));
        self.paths.extend(contents.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    /// Makes the file `path`, which is not there, and the folders above it.
    pub(super) fn file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let above = path.parent().unwrap_or(Path::new("."));
        self.folder(above)?;
        write_new(path, bytes).with_context(|| path.display().to_string())?;
        self.paths.push(path.to_owned());
        Ok(())
    }

    /// Makes the file `path`, in the place of one that may be there.
    pub(super) fn any_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        if !path.exists() {
            return self.file(path, bytes);
        }
        let above = path.parent().unwrap_or(Path::new("."));
        let mut staged = NamedTempFile::new_in(above)?;
        staged.write_all(bytes)?;
        readable_file(staged.as_file())?;
        staged.persist(path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Puts `text` in the place of what `path` holds, which has to be `before` still; `None`: no file.
    pub(super) fn replace(&mut self, path: &Path, before: Option<&str>, text: &str) -> Result<()> {
        let Some(before) = before else {
            return self.file(path, text.as_bytes());
        };
        let path = path.canonicalize()?;
        let above = path.parent().unwrap_or(Path::new("."));
        let mut staged = NamedTempFile::new_in(above)?;
        staged.write_all(text.as_bytes())?;
        staged.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
        staged.as_file().sync_all()?;
        let now = fs::read_to_string(&path)?;
        anyhow::ensure!(now == before, "{}: changed meanwhile; try again", path.display());
        staged.persist(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Leaves what was made.
    pub(super) fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.paths.drain(..).rev() {
            // Why is being said already. A folder that others use meanwhile is not empty, and stays.
            let _ = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Temporary folders are private; what is served may be read by another user.
fn readable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// Temporary files are private, too.
pub(super) fn readable_file(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir(at("models")).unwrap();
        fs::write(at("models/other"), "").unwrap();
        fs::write(at("spin.toml"), "before").unwrap();
        let make = || {
            let mut made = Made::default();
            made.folder_with(&at("models/wine/1"), &[("a", b"1"), ("b", b"2")]).unwrap();
            made.file(&at("components/x.wasm"), b"x").unwrap();
            made
        };
        drop(make());
        assert!(!at("models/wine").exists() && !at("components").exists());
        assert!(at("models/other").exists());

        let mut made = make();
        assert!(made.folder_with(&at("models/wine/1"), &[("a", b"3")]).is_err(), "it is there");
        assert!(made.file(&at("components/x.wasm"), b"y").is_err(), "it is there");
        let error = made.replace(&at("spin.toml"), Some("another"), "after").unwrap_err();
        assert!(error.to_string().contains("changed meanwhile"), "{error}");
        made.replace(&at("spin.toml"), Some("before"), "after").unwrap();
        made.keep();
        assert_eq!(fs::read(at("models/wine/1/a")).unwrap(), b"1");
        assert_eq!(fs::read_dir(at("models/wine")).unwrap().count(), 1, "nothing staged is left");
        assert_eq!(fs::read_to_string(at("spin.toml")).unwrap(), "after");
    }
}
