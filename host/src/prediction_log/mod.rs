//! The prediction log: one record for each prediction that was served.
//!
//! [`PredictionLog::append`] puts predictions into a bounded [`queue`] and never blocks; a thread of
//! its own, the [`writer`], writes them into a SQLite file ([`schema`]) in the application's state
//! folder, a batch at a time, together with the [`feedback`] that came meanwhile, and deletes what is
//! too old ([`retention`]). Nothing here can fail a request: what cannot be stored is dropped and
//! counted, and accepted = written + dropped + pending at every instant. [`reader`], [`stats`] and
//! [`export`] read the file, in this process or another.

//!
//! ```text
//! guest   append(predictions)      checked (validate), without what the operator drops, with hashes
//!                                  for what the operator hashes (redaction)
//! door    RequestPredictions       what one request has appended, until its response is there
//! cache   Appended                 stays with the response it was appended for
//! record  Recorder                 sampled; the host's part is added (RequestContext)
//!         PredictionLog::append    never blocks; dropped and counted if the queue is full
//! ```

pub mod record;
pub mod settings;

mod appended;
mod hash_key;
mod recorder;
mod redaction;
pub(crate) mod validate;

pub mod queue;

mod json;
pub mod models;
mod retention;
pub mod schema;
mod store;
mod writer;

pub mod feedback;
pub mod quality;
mod scalar;
pub mod times;

pub mod export;
pub mod reader;
pub mod stats;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tracing::{info, warn};

pub use appended::{Appended, RequestPredictions};
pub use hash_key::HashKey;
pub use recorder::{Logged, PREDICTION_ID, Recorder, header_value};
pub use redaction::Redaction;
pub(crate) use validate::{MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, size, validate};

use feedback::{Item, Receipt};
use models::ModelInfo;
use quality::{Change, Group, Quality, Results};
use queue::{Accounting, Queue};
use record::Entry;
pub use retention::Retention;
use writer::Writer;

/// What the operator sets: `[prediction_log]` in the runtime config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Otherwise nothing is logged.
    pub enabled: bool,
    pub retention: Retention,
    /// Records that wait to be written, at most.
    pub queue: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, retention: Retention::default(), queue: 65_536 }
    }
}

/// Bytes of the records that wait to be written, at most.
const QUEUE_BYTES: usize = 16 << 20;

/// Sees every entry that the writer takes from the queue, whether it can be written or not. Called on
/// the writer's thread, before the entry is written.
pub trait Observer: Send + Sync {
    fn observe(&self, entry: &Entry);

    /// Called once, on the same thread, before the first entry: what was written before the start may
    /// be read from the file at `log`, if there is one.
    fn resume(&self, log: &Path);
}

/// The prediction log of one application.
pub struct PredictionLog {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Disconnected once the writer has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl fmt::Debug for PredictionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictionLog").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the writer and the others have in common.
struct Shared {
    queue: Queue,
    quality: Mutex<Quality>,
    /// Why the file cannot be written, if it cannot.
    problem: Mutex<Option<String>>,
    feedback: FeedbackCounts,
}

/// Feedback since the start.
#[derive(Debug, Default)]
pub struct FeedbackCounts {
    matched: AtomicU64,
    unknown: AtomicU64,
    rejected: AtomicU64,
}

impl FeedbackCounts {
    fn stored(&self, accepted: usize, unknown: usize) {
        self.matched.fetch_add((accepted - unknown) as u64, Ordering::Relaxed);
        self.unknown.fetch_add(unknown as u64, Ordering::Relaxed);
    }

    /// Counts items that were refused.
    pub fn rejected(&self, items: usize) {
        self.rejected.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// The counts, by result: stored and its record is in the log (`matched`), stored without a
    /// record (`unknown`), refused (`rejected`).
    #[must_use]
    pub fn get(&self) -> [(&'static str, u64); 3] {
        let Self { matched, unknown, rejected } = self;
        [("matched", matched), ("unknown", unknown), ("rejected", rejected)]
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Why feedback was not stored.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    #[error("too much feedback waits to be stored; try again")]
    Busy,
    #[error("feedback cannot be stored: {0}")]
    Storage(String),
}

impl PredictionLog {
    /// The log whose file is, or will be, in `folder`. `models` are those that are mounted;
    /// `observers` see every entry. Whether the file can be written is found out by the writer: it
    /// does not keep an application from starting.
    pub fn open(
        folder: &Path,
        settings: Settings,
        models: Vec<ModelInfo>,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Result<Arc<Self>> {
        let path = folder.join(schema::FILE);
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.queue, QUEUE_BYTES),
            quality: Mutex::default(),
            problem: Mutex::default(),
            feedback: FeedbackCounts::default(),
        });
        let (running, ended) = mpsc::channel();
        let writer = Writer {
            shared: Arc::clone(&shared),
            path: path.clone(),
            retention: settings.retention,
            models,
            observers,
        };
        std::thread::Builder::new()
            .name("prediction-log".into())
            .spawn(move || {
                let _running = running;
                writer.run();
            })
            .context("no thread for the prediction log")?;
        Ok(Arc::new(Self { shared, path, ended: Mutex::new(ended) }))
    }

    /// Queues the records of `entry`; whether they were. Otherwise they are dropped, and counted. It
    /// never blocks.
    pub fn append(&self, entry: Entry) -> bool {
        self.shared.queue.append(entry)
    }

    /// Stores feedback, after the records that were appended before it; done when it is committed.
    pub async fn feedback(&self, items: Vec<Item>) -> Result<Receipt, FeedbackError> {
        let (reply, receipt) = oneshot::channel();
        if self.shared.queue.feedback(items, reply).is_err() {
            return Err(FeedbackError::Busy);
        }
        let gone = |_| FeedbackError::Storage("the log's thread has ended".into());
        let receipt = receipt.await.map_err(gone)?.map_err(FeedbackError::Storage)?;
        self.shared.feedback.rejected(receipt.rejected.len());
        Ok(receipt)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file and of its write-ahead log.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        file_size(&self.path)
    }

    /// What became of the records since the start.
    #[must_use]
    pub fn accounting(&self) -> Accounting {
        self.shared.queue.accounting()
    }

    /// What became of feedback since the start.
    #[must_use]
    pub fn feedback_counts(&self) -> &FeedbackCounts {
        &self.shared.feedback
    }

    /// Why the file cannot be written at present, if it cannot.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.shared.problem()
    }

    /// Quality of the predictions in the log, by group.
    #[must_use]
    pub fn quality(&self) -> Vec<(Group, Results)> {
        self.shared.quality.lock().unwrap_or_else(PoisonError::into_inner).results()
    }

    /// Refuses records from now on and waits, up to `limit`, until those that were accepted are
    /// written: what became of them all.
    pub fn shut_down(&self, limit: Duration) -> Accounting {
        self.shared.queue.close();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout);
        let accounting = self.accounting();
        let Accounting { accepted, written, dropped, pending } = accounting;
        let dropped = dropped.total();
        if !in_time {
            warn!(pending, after = ?limit, "prediction records were not written in time");
        } else if accepted > 0 {
            info!(accepted, written, dropped, pending, "the prediction log is closed");
        }
        accounting
    }
}

/// The writer ends when it has written what there is.
impl Drop for PredictionLog {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Shared {
    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn set_quality(&self, quality: Quality) {
        *self.quality.lock().unwrap_or_else(PoisonError::into_inner) = quality;
    }

    fn apply(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut quality = self.quality.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().for_each(|change| quality.apply(change));
    }
}

/// Bytes of the file at `path` and of its write-ahead log.
#[must_use]
pub fn file_size(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    size(path) + size(Path::new(&wal))
}

#[cfg(test)]
mod tests;
