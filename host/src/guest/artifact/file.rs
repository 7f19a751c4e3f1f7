//! An artifact file, and whether it can be trusted.
//!
//! An artifact is native code: a user with write access to it can do everything this process can. The
//! folder and the file must therefore belong to this user or to root, and no other user may write to
//! them.
//! The file ends with a SHA-256 of the rest, so that a truncated or damaged one is detected.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::Engine as Wasmtime;
use wasmtime::component::Component;

/// Size of the seal at the end of an artifact, in bytes: the SHA-256 of what precedes it.
const SEAL: usize = 32;
/// Minimum time between two marks that an artifact is used: a mark changes the file, which other
/// processes then check again.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Write permission of the group and of others.
pub(super) const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Identifies one state of a file: changes if the file is replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Time of the last change, in seconds and nanoseconds: it cannot be set back.
    changed: (i64, i64),
}

/// Writes an artifact: to a temporary file that is renamed, so that it is never seen half-written.
pub(super) fn write(path: &Path, code: &[u8]) -> Result<()> {
    let folder = path.parent().context("the path of an artifact has a folder")?;
    // Readable by every user with access to the folder: an image may be built by one user and run by
    // another.
    let readable = Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
    file.write_all(code)?;
    file.write_all(&Sha256::digest(code))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Checks owner, permissions and seal.
pub(super) fn check(path: &Path) -> Result<Identity> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "it is not a file");
    check_owner(&metadata)?;
    // Fails in a folder of root's, where it does not matter.
    let _ = mark_used(&file);
    let identity = Identity::of(&file.metadata()?);
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len())?);
    file.read_to_end(&mut bytes)?;
    let (code, seal) = bytes.split_last_chunk::<SEAL>().context("it is truncated")?;
    ensure!(*seal == <[u8; SEAL]>::from(Sha256::digest(code)), "it is damaged");
    Ok(identity)
}

/// Marks the artifact as used, so that it is not removed. At most once per [`DAY`], as this changes
/// the file's identity.
fn mark_used(file: &File) -> io::Result<()> {
    let used = SystemTime::now().duration_since(file.metadata()?.modified()?);
    if used.is_ok_and(|used| used > DAY) { file.set_modified(SystemTime::now()) } else { Ok(()) }
}

/// Checks that a file belongs to this user or to root, and that no other user can write it.
///
/// # Errors
/// It belongs to another user, or others can write it.
pub(crate) fn check_owner(metadata: &Metadata) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let owner = metadata.uid();
    ensure!(owner == user || owner == 0, "it belongs to user {owner}, not to {user}; use another");
    let mode = metadata.mode() & 0o777;
    ensure!(mode & WRITABLE_BY_OTHERS == 0, "other users can write it (mode {mode:o}): chmod go-w");
    Ok(())
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Checks the artifact if it changed since it was `checked`.
pub(super) fn check_unless_unchanged(path: &Path, checked: &Mutex<Option<Identity>>) -> Result<()> {
    let mut checked = checked.lock();
    // A process may run for months. A failure to mark the file shows below, or does not matter.
    let _ = File::open(path).and_then(|file| mark_used(&file));
    if checked.is_none_or(|checked| path.metadata().ok().map(|m| Identity::of(&m)) != Some(checked))
    {
        *checked = Some(check(path)?);
    }
    Ok(())
}

/// Maps the code of an artifact that was checked.
pub(super) fn map(engine: &Wasmtime, path: &Path) -> Result<Component> {
    #[expect(unsafe_code, reason = "compiled code is run as is")]
    // SAFETY: the file is what `write` wrote (by its seal) for this wasmtime and these settings (by
    // its name). Only this user or root can have replaced it.
    let component = unsafe { Component::deserialize_file(engine, path) };
    component.map_err(Into::into)
}

/// The component of code that is not in a file.
pub(super) fn in_memory(engine: &Wasmtime, code: &[u8]) -> Result<Component> {
    #[expect(unsafe_code, reason = "compiled code is run as is")]
    // SAFETY: `code` was compiled by this engine in this process.
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(Into::into)
}
