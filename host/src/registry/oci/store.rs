//! Cache of fetched components by digest, in the state directory that all applications of a user share.
//! A file is verified at each use: if it is damaged or another user could write it, it is fetched again.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;
use tracing::{debug, warn};

use super::digest::Digest;
use crate::guest::artifact::MAX_COMPONENT;
use crate::process::read_file::read_file;
use crate::process::trust::{check_folder, check_owner};

/// Folder in the state directory.
pub const FOLDER: &str = "fetched";
const EXTENSION: &str = "wasm";
/// Age since the last use after which a component is removed.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Interval at which the time of the last use is updated.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Permissions of a file, restricted by the `mode` of the folder.
const FILE_MODE: u32 = 0o644;

/// The cache folder, and its permissions.
#[derive(Debug)]
pub struct ComponentStore {
    folder: PathBuf,
    mode: u32,
}

impl ComponentStore {
    /// Opens the cache in the state directory `state`, creating it with the permissions `mode`.
    ///
    /// # Errors
    /// If the folder cannot be created, or other users may write to it.
    pub fn open(state: &Path, mode: u32) -> Result<Self> {
        let folder = state.join(FOLDER);
        let open = || {
            DirBuilder::new().recursive(true).mode(mode).create(&folder)?;
            let folder = folder.canonicalize()?;
            let metadata = folder.metadata()?;
            ensure!(metadata.is_dir(), "is not a folder");
            check_folder(&folder)?;
            Ok(Self { folder, mode })
        };
        open().with_context(|| {
            format!(
                "{}: cannot store fetched components; choose another folder with --state-dir",
                folder.display()
            )
        })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex()).with_extension(EXTENSION)
    }

    /// The component with this digest, if it is cached and intact.
    #[must_use]
    pub fn get(&self, digest: Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        if !path.exists() {
            return None;
        }
        match check(&path, digest) {
            Ok(()) => Some(path),
            Err(why) => {
                let why = format!("{why:#}");
                warn!(file = %path.display(), why, "cached component not used; fetching it again");
                None
            }
        }
    }

    /// Creates a temporary file for a download.
    pub fn stage(&self) -> Result<NamedTempFile> {
        let permissions = Permissions::from_mode(FILE_MODE & (self.mode | 0o600));
        let staged = tempfile::Builder::new().permissions(permissions).tempfile_in(&self.folder);
        staged.with_context(|| {
            format!(
                "{}: cannot store fetched components; choose another folder with --state-dir",
                self.folder.display()
            )
        })
    }

    /// Adds a file with this digest to the cache.
    pub fn put(&self, staged: NamedTempFile, digest: Digest) -> Result<PathBuf> {
        let path = self.path(digest);
        staged.as_file().sync_all().with_context(|| path.display().to_string())?;
        staged.persist(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Removes components that were not used for `MAX_AGE`.
    pub fn remove_expired(&self) {
        let Ok(files) = fs::read_dir(&self.folder) else { return };
        for path in files.flatten().map(|file| file.path()) {
            let used = path.metadata().and_then(|metadata| metadata.modified());
            let age = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
            if age.is_some_and(|age| age > MAX_AGE) && fs::remove_file(&path).is_ok() {
                debug!(file = %path.display(), "cached component removed");
            }
        }
    }
}

fn check(path: &Path, digest: Digest) -> Result<()> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check_owner(&metadata)?;
    let actual = Digest::of(&read_file(path, MAX_COMPONENT)?);
    ensure!(actual == digest, "the file is damaged: its digest is {actual}");
    let used = SystemTime::now().duration_since(metadata.modified()?);
    if used.is_ok_and(|used| used > DAY) {
        // In an image, where the file belongs to root, this fails and the file is never removed.
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::guest::artifact::{PRIVATE, READABLE};

    fn put(store: &ComponentStore, content: &[u8]) -> (Digest, PathBuf) {
        let mut staged = store.stage().unwrap();
        staged.write_all(content).unwrap();
        let digest = Digest::of(content);
        (digest, store.put(staged, digest).unwrap())
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn intact_component_is_found_by_its_digest() {
        let state = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(state.path(), PRIVATE).unwrap();
        let (digest, path) = put(&store, b"content");
        assert_eq!(store.get(digest), Some(path.clone()));
        assert_eq!(store.get(Digest::of(b"other")), None);
        assert_eq!((mode(&store.folder), mode(&path)), (0o700, 0o600));
        fs::write(&path, b"changed").unwrap();
        assert_eq!(store.get(digest), None, "damaged");
        let (digest, path) = put(&store, b"content");
        assert!(store.get(digest).is_some(), "fetched again");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(store.get(digest), None, "other users may write the file");
    }

    #[test]
    fn files_in_a_readable_folder_are_readable() {
        let state = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(state.path(), READABLE).unwrap();
        let (_, path) = put(&store, b"content");
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn unused_components_expire_after_a_month() {
        let state = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(state.path(), PRIVATE).unwrap();
        let old = SystemTime::now() - MAX_AGE - DAY;
        let (used, path) = put(&store, b"used");
        File::open(&path).unwrap().set_modified(old).unwrap();
        let (_, unused) = put(&store, b"unused");
        File::open(&unused).unwrap().set_modified(old).unwrap();
        assert!(store.get(used).is_some());
        store.remove_expired();
        assert!(path.exists() && !unused.exists());
    }

    #[test]
    fn folder_writable_by_others_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let problem = format!("{:#}", ComponentStore::open(state.path(), PRIVATE).unwrap_err());
        assert!(problem.contains("other users can write it"), "{problem}");
    }
}
