//! The lock by which processes agree on which of them may change the log's feedback. Each host
//! keeps the aggregates of the file in memory, so it must see every change. The system releases the
//! lock of a process that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Name of the lock's file in the application's state folder.
pub(super) const FILE: &str = "predictions.lock";
/// Timeout for another process that changes feedback. It holds the lock for one transaction.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct HostLock {
    _file: File,
}

impl HostLock {
    /// The lock of a host that serves the log in `folder`, with any number of other hosts. Waits for
    /// the end of a transaction that changes feedback.
    pub(super) fn of_host(folder: &Path) -> io::Result<Self> {
        let file = open(folder)?;
        file.lock_shared()?;
        Ok(Self { _file: file })
    }

    /// The lock for one change of feedback without a host; `None` if a host serves the log.
    pub(super) fn without_host(folder: &Path) -> io::Result<Option<Self>> {
        let file = open(folder)?;
        let end = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            }
        }
    }
}

fn open(folder: &Path) -> io::Result<File> {
    std::fs::create_dir_all(folder)?;
    File::options().create(true).truncate(false).write(true).open(folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_is_changed_without_a_host_only() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = [(); 2].map(|()| HostLock::of_host(folder.path()).unwrap());
        assert!(HostLock::without_host(folder.path()).unwrap().is_none());
        drop(hosts);
        let change = HostLock::without_host(folder.path()).unwrap();
        assert!(change.is_some());
        // A host that starts waits for the change.
        std::thread::scope(|scope| {
            let host = scope.spawn(|| HostLock::of_host(folder.path()).unwrap());
            drop(change);
            host.join().unwrap();
        });
    }
}
