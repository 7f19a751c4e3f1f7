//! Copies of a component's files, in a folder that is removed with the process.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tracing::debug;

use super::Files;
use crate::inference::Mounts;

/// Folder of the copies in the state directory.
const COPIES: &str = "files";
/// Maximum number of attempts to create a folder that another process removes at the same moment.
const MAX_ATTEMPTS: usize = 10;

/// A folder for the copies of this process, removed on drop. A folder that a killed process left
/// behind is removed when the next one is created.
#[derive(Debug)]
pub struct CopiedFiles {
    folder: TempDir,
    /// Locked while the process lives.
    _lock: File,
}

impl CopiedFiles {
    /// Copies what `files` need into `state_dir`; nothing is created if none of them needs a copy.
    ///
    /// # Errors
    /// The folder cannot be created, or a file cannot be copied.
    pub fn create<'f>(
        state_dir: &Path,
        files: impl IntoIterator<Item = &'f Files>,
    ) -> Result<(Vec<Mounts>, Option<Self>)> {
        let files: Vec<_> = files.into_iter().collect();
        if files.iter().all(|files| files.copies.is_empty()) {
            return Ok((files.into_iter().map(|files| files.folders.clone()).collect(), None));
        }
        let root = state_dir.join(COPIES);
        let copies = Self::open(&root)
            .with_context(|| format!("{}: cannot copy files here (--state-dir)", root.display()))?;
        let mounts = files
            .iter()
            .enumerate()
            .map(|(index, files)| mount(files, &copies.folder.path().join(index.to_string())));
        Ok((mounts.collect::<Result<_>>()?, Some(copies)))
    }

    fn open(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root)?;
        for old in root.read_dir()?.flatten() {
            // A live process holds the lock.
            if File::open(old.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
                debug!(folder = %old.path().display(), "left-over copies removed");
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        for _ in 0..MAX_ATTEMPTS {
            let folder = TempDir::new_in(root)?;
            // Until it is locked, another process may take it for a left-over one.
            let lock = File::open(folder.path()).ok().filter(|lock| lock.try_lock().is_ok());
            if let Some(lock) = lock
                && folder.path().exists()
            {
                return Ok(Self { folder, _lock: lock });
            }
        }
        bail!("other processes removed the new folder {MAX_ATTEMPTS} times; try again")
    }
}

/// Makes the copies in `folder`. Returns the mounts of `files`.
fn mount(files: &Files, folder: &Path) -> Result<Mounts> {
    let mut mounts = files.folders.clone();
    for (index, (destination, copies)) in files.copies.iter().enumerate() {
        let root = folder.join(index.to_string());
        std::fs::create_dir_all(&root)?;
        for (path, source) in copies {
            copy(&source.real, &root.join(path))
                .with_context(|| format!("cannot copy {}", source.real.display()))?;
        }
        mounts.add(destination.clone(), root);
    }
    Ok(mounts)
}

/// Copies a file, and creates the folders of its target.
fn copy(source: &Path, target: &Path) -> io::Result<u64> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(source, target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::manifest::ComponentEntry;

    #[test]
    fn left_over_copies_are_removed_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.txt"), "b").unwrap();
        let state = tempfile::tempdir().unwrap();
        let component: ComponentEntry = toml::from_str("source = 'x'\nfiles = ['b.txt']").unwrap();
        let files = Files::resolve(&component, dir.path()).unwrap();
        let left = state.path().join(COPIES).join("left");
        std::fs::create_dir_all(&left).unwrap();
        let (mounts, first) = CopiedFiles::create(state.path(), [&files]).unwrap();
        let (_, second) = CopiedFiles::create(state.path(), [&files]).unwrap();
        assert!(!left.exists());
        let copy = mounts[0].iter().next().unwrap().1.join("b.txt");
        assert!(copy.is_file());
        drop(first);
        assert!(!copy.exists());
        drop(second);
        assert_eq!(state.path().join(COPIES).read_dir().unwrap().count(), 0);
    }
}
