//! An artifact file, and whether it can be trusted.
//!
//! An artifact is native code: the folder and the file must belong to this user or to root, and no other
//! user may write to them ([`crate::process::trust`]).
//! The file ends with a SHA-256 of the rest, so that a truncated or damaged one is detected.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::Engine as Wasmtime;
use wasmtime::component::Component;

use crate::process::atomic_file::{self, Existing, READABLE};
use crate::process::trust::check_owner;

/// Size of the seal at the end of an artifact, in bytes: the SHA-256 of what precedes it.
const SEAL: usize = 32;
/// Minimum time between two marks that an artifact is used: a mark changes the file, which other
/// processes then check again.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
    // Readable by every user with access to the folder: an image may be built by one user and run by
    // another.
    let mut staged = atomic_file::stage(path, READABLE)?;
    staged.write_all(code)?;
    staged.write_all(&Sha256::digest(code))?;
    Ok(atomic_file::finish(staged, path, Existing::Replace)?)
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
