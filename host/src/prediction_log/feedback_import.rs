//! Stores feedback in the log's file without a host.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::feedback::{FeedbackItem, Receipt};
use super::host_lock::HostLock;
use super::queue::Message;
use super::schema::SchemaError;
use super::sinks::outbox;
use super::store::{Durability, LogStore};
use super::times::micros;

/// The file, opened for feedback.
#[derive(Debug)]
pub struct FeedbackImport {
    store: LogStore,
    folder: PathBuf,
}

/// Why feedback was not stored.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(
        "a host serves this log, and would not count the feedback: pass the address after \
         `Serving` in its output, --url http://HOST:PORT"
    )]
    Served,
    #[error(transparent)]
    Storage(#[from] SchemaError),
}

impl FeedbackImport {
    /// Opens the existing file at `path`.
    ///
    /// # Errors
    /// Fails if a host serves the log, or the file cannot be written.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let _lock = lock(&folder)?;
        // The sinks of the hosts receive the feedback, too.
        let sinks = outbox::names(path)?;
        let (store, _) = LogStore::open(path, &[], &sinks)?;
        Ok(Self { store, folder })
    }

    /// Stores `items` in one transaction. A host that starts meanwhile counts either all of them or
    /// none, after which this fails.
    ///
    /// # Errors
    /// Fails if a host serves the log by now, or the file cannot be written.
    pub fn store(&mut self, items: Vec<FeedbackItem>) -> Result<Receipt, ImportError> {
        let _lock = lock(&self.folder)?;
        // Nothing waits for the receipt but this function.
        let (reply, _) = oneshot::channel();
        let batch = [Message::Feedback(items, reply)];
        let mut written = self.store.write(&batch, micros(SystemTime::now()), Durability::Disk)?;
        Ok(written.receipts.pop().unwrap_or_default())
    }
}

fn lock(folder: &Path) -> Result<HostLock, ImportError> {
    let lock = HostLock::without_host(folder).map_err(SchemaError::from)?;
    lock.ok_or(ImportError::Served)
}
