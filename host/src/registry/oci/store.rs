//! Components that were fetched, each under its digest: a part of the state directory, which all
//! applications of a user share. A file is checked whenever it is used, so that one that is damaged, or is
//! another's, is fetched again.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;
use tracing::{debug, warn};

use super::digest::Digest;
use crate::guest::artifact::{MAX_COMPONENT, check_owner};
use crate::process::read_file::read_file;

/// Its folder in the state directory.
pub const FOLDER: &str = "fetched";
const EXTENSION: &str = "wasm";
/// A component that no application has used for this long is removed.
const KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often the use of a file is written down.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What the owner may do with a file; others as much as `mode` of the folder lets them.
const FILE: u32 = 0o644;

/// The folder, and who may look into it.
#[derive(Debug)]
pub struct ComponentStore {
    folder: PathBuf,
    mode: u32,
}

impl ComponentStore {
    /// Opens it in the state directory `state`; creates it with the permissions `mode`.
    pub fn open(state: &Path, mode: u32) -> Result<Self> {
        let folder = state.join(FOLDER);
        let open = || {
            DirBuilder::new().recursive(true).mode(mode).create(&folder)?;
            let folder = folder.canonicalize()?;
            let metadata = folder.metadata()?;
            ensure!(metadata.is_dir(), "is not a folder");
            check_owner(&metadata)?;
            Ok(Self { folder, mode })
        };
        open().with_context(|| {
            format!("{}: cannot keep fetched components here (--state-dir)", folder.display())
        })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex()).with_extension(EXTENSION)
    }

    /// The component with this digest, if it is there and whole.
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

    /// A file to be filled.
    pub fn stage(&self) -> Result<NamedTempFile> {
        let permissions = Permissions::from_mode(FILE & (self.mode | 0o600));
        let staged = tempfile::Builder::new().permissions(permissions).tempfile_in(&self.folder);
        staged.with_context(|| {
            format!("{}: cannot keep fetched components here (--state-dir)", self.folder.display())
        })
    }

    /// Puts a file that has this digest in its place.
    pub fn put(&self, staged: NamedTempFile, digest: Digest) -> Result<PathBuf> {
        let path = self.path(digest);
        staged.as_file().sync_all().with_context(|| path.display().to_string())?;
        staged.persist(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Removes what no application has used for a month.
    pub fn remove_old(&self) {
        let Ok(files) = fs::read_dir(&self.folder) else { return };
        for path in files.flatten().map(|file| file.path()) {
            let used = path.metadata().and_then(|metadata| metadata.modified());
            let age = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
            if age.is_some_and(|age| age > KEEP) && fs::remove_file(&path).is_ok() {
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
    ensure!(actual == digest, "it is damaged: its digest is {actual}");
    let used = SystemTime::now().duration_since(metadata.modified()?);
    if used.is_ok_and(|used| used > DAY) {
        // In an image it belongs to root, and is never removed.
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
    fn a_component_is_found_by_its_digest_while_it_is_whole() {
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
        assert_eq!(store.get(digest), None, "others may have written it");
    }

    #[test]
    fn in_a_folder_that_others_may_read_they_may_read_files() {
        let state = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(state.path(), READABLE).unwrap();
        let (_, path) = put(&store, b"content");
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn what_was_not_used_for_a_month_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(state.path(), PRIVATE).unwrap();
        let old = SystemTime::now() - KEEP - DAY;
        let (used, path) = put(&store, b"used");
        File::open(&path).unwrap().set_modified(old).unwrap();
        let (_, unused) = put(&store, b"unused");
        File::open(&unused).unwrap().set_modified(old).unwrap();
        assert!(store.get(used).is_some());
        store.remove_old();
        assert!(path.exists() && !unused.exists());
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let problem = format!("{:#}", ComponentStore::open(state.path(), PRIVATE).unwrap_err());
        assert!(problem.contains("others may write it"), "{problem}");
    }
}
