//! The prediction log: one record for each served prediction.
//!
//! [`PredictionLog::append`] puts predictions into a bounded [`queue`] and never blocks. A
//! dedicated thread, the `writer`, writes them in batches into a SQLite file ([`schema`]) in the
//! application's state folder, stores [`feedback`], and deletes old records (`retention`). By default
//! the log never fails a request: what cannot be stored is dropped and counted. A component can ask
//! for more ([`LogMode`]): its requests then wait, in [`PredictionLog::submit`]. At
//! every instant, accepted = written + dropped + pending. [`sinks`] deliver what is written to other
//! systems. [`reader`], [`stats`] and [`export`] read the file, in this process or another.
//!
//! ```text
//! guest   append(predictions)      validated; fields are dropped, hashed, rounded (redaction)
//! door    RequestPredictions       collects what one request appends, until its response
//! cache   Appended                 is cached with the response it was appended for
//! record  Recorder                 samples, and adds the host's part (RequestContext)
//!         PredictionLog::append    never blocks; dropped and counted if the queue is full
//!         PredictionLog::submit    waits for space or the disk; the request fails without
//! ```

pub mod names;
pub mod record;
pub mod settings;

mod appended;
mod hash_key;
mod recorder;
mod redaction;
mod rounding;
mod sampling;
pub(crate) mod validate;

mod awaited;
pub mod queue;
pub mod unlogged;

mod json;
pub mod models;
mod recovery;
mod retention;
pub mod schema;
mod store;
mod writer;

pub mod feedback;
pub mod feedback_import;
mod host_lock;
pub mod quality;
mod scalar;
pub mod times;
pub mod unit_totals;

mod epochs;
pub mod export;
pub mod reader;
pub mod sinks;
pub mod stats;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::{info, warn};

pub use appended::{Appended, RequestPredictions};
pub use awaited::AwaitedCounts;
pub use hash_key::HashKey;
pub use recorder::{Logged, PREDICTION_ID, Recorder, header_value, mark};
pub use redaction::Redaction;
pub use sampling::{Sample, Sampling};
pub(crate) use validate::{MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, size, validate};

use crate::metrics::histogram::Histogram;
use crate::metrics::table::DURATIONS;
use awaited::EXITED;
use feedback::{FeedbackItem, Receipt};
use models::ModelInfo;
use quality::{Quality, QualityChange, QualityGroup, Results};
use queue::{Accounting, RecordQueue};
use record::LogEntry;
pub use retention::Retention;
use settings::LogMode;
use sinks::{SinkSettings, SinkStats, Sinks};
use writer::LogWriter;

/// The operator's settings: `[prediction_log]` in the runtime config.
#[derive(Clone, Debug)]
pub struct PredictionLogSettings {
    /// Whether predictions are logged at all.
    pub enabled: bool,
    pub retention: Retention,
    /// Maximum number of queued records.
    pub queue: u64,
    /// The strongest mode of a component, which the manifest sets.
    pub mode: LogMode,
    /// Whether requests with the header `spinfer-log: always` are logged outside the sample.
    pub on_request: bool,
    /// What receives the log in addition to its file.
    pub sinks: Vec<SinkSettings>,
    /// Digest of each experiment that the application has, by name.
    pub runs: BTreeMap<String, String>,
}

impl Default for PredictionLogSettings {
    fn default() -> Self {
        let (retention, mode) = (Retention::default(), LogMode::default());
        let (sinks, runs) = (Vec::new(), BTreeMap::new());
        Self { enabled: true, retention, queue: 65_536, mode, sinks, on_request: true, runs }
    }
}

/// Time limit of deliveries to sinks at shutdown. The rest is delivered after the next start.
const SINK_LIMIT: Duration = Duration::from_secs(5);
/// Maximum size of the queued records, in bytes.
const QUEUE_BYTES: usize = 16 << 20;

/// Observes every entry that the writer takes from the queue, on the writer's thread, once it is
/// written or certain not to be.
pub trait Observer: Send + Sync {
    /// Called for every entry.
    fn observe(&self, entry: &LogEntry);

    /// Called once, on the same thread, before the first entry. The file at `log`, if it exists,
    /// contains the records of previous runs.
    fn resume(&self, log: &Path);

    /// Called once, on the same thread, after the last entry.
    fn close(&self) {}
}

/// The prediction log of one application.
pub struct PredictionLog {
    shared: Arc<LogState>,
    path: PathBuf,
    sinks: Sinks,
    /// Disconnected once the writer has exited.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl fmt::Debug for PredictionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictionLog").field("path", &self.path).finish_non_exhaustive()
    }
}

/// State shared with the writer.
struct LogState {
    queue: RecordQueue,
    quality: Mutex<Quality>,
    /// Why the file cannot be written; `None` if it can.
    problem: Mutex<Option<String>>,
    feedback: FeedbackCounts,
    awaited: AwaitedCounts,
    commits: Commits,
}

/// What the writer has committed since the start.
#[derive(Debug)]
pub struct Commits {
    /// Durations of transactions with records or feedback, the wait for the disk included.
    pub durations: Histogram,
    /// Number of those that were written through to the disk (fsync).
    pub synced: AtomicU64,
}

/// Counts of feedback items since the start.
#[derive(Debug, Default)]
pub struct FeedbackCounts {
    matched: AtomicU64,
    unknown: AtomicU64,
    rejected: AtomicU64,
    replaced: AtomicU64,
    unchanged: AtomicU64,
}

impl FeedbackCounts {
    fn stored(&self, receipt: &Receipt) {
        let Receipt { accepted, unknown, replaced, unchanged, rejected: _ } = receipt;
        for (count, items) in [
            (&self.matched, accepted - unknown),
            (&self.unknown, *unknown),
            (&self.replaced, *replaced),
            (&self.unchanged, *unchanged),
        ] {
            count.fetch_add(items as u64, Ordering::Relaxed);
        }
    }

    /// Counts rejected items.
    pub fn rejected(&self, items: usize) {
        self.rejected.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// The counts by result: stored with a record in the log (`matched`), stored without a record
    /// (`unknown`), or `rejected`.
    #[must_use]
    pub fn get(&self) -> [(&'static str, u64); 3] {
        let Self { matched, unknown, rejected, .. } = self;
        [("matched", matched), ("unknown", unknown), ("rejected", rejected)]
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// The counts of stored items for which the log had feedback, by their effect: `replaced` it, or
    /// left it `unchanged`.
    #[must_use]
    pub fn repeated(&self) -> [(&'static str, u64); 2] {
        [("replaced", &self.replaced), ("unchanged", &self.unchanged)]
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Why feedback was not stored.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    #[error("too much feedback is queued; try again")]
    Busy,
    #[error("cannot store feedback: {0}")]
    Storage(String),
}

impl PredictionLog {
    /// Opens the log whose file is in `folder`, and starts its writer. `models` are the mounted
    /// ones; `observers` observe every entry. A file that cannot be written is reported by
    /// [`Self::problem`], and does not prevent the application from starting.
    ///
    /// # Errors
    /// Fails if a thread cannot be started, or the roots of TLS cannot be read for a sink.
    pub fn open(
        folder: &Path,
        settings: PredictionLogSettings,
        models: Vec<ModelInfo>,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Result<Arc<Self>> {
        let path = folder.join(schema::FILE);
        let shared = Arc::new(LogState {
            queue: RecordQueue::new(settings.queue, QUEUE_BYTES),
            quality: Mutex::default(),
            problem: Mutex::default(),
            feedback: FeedbackCounts::default(),
            awaited: AwaitedCounts::default(),
            commits: Commits { durations: Histogram::new(&DURATIONS), synced: AtomicU64::new(0) },
        });
        let sinks = Sinks::start(&path, settings.sinks)?;
        let (running, ended) = mpsc::channel();
        let writer = LogWriter {
            shared: Arc::clone(&shared),
            path: path.clone(),
            retention: settings.retention,
            mode: settings.mode,
            models,
            observers,
            sinks: Arc::clone(sinks.state()),
            runs: settings.runs,
        };
        std::thread::Builder::new()
            .name("prediction-log".into())
            .spawn(move || {
                let _running = running;
                writer.run();
            })
            .context("cannot start the thread of the prediction log")?;
        Ok(Arc::new(Self { shared, path, sinks, ended: Mutex::new(ended) }))
    }

    /// Queues the records of `entry`. Returns false if they were dropped, and counted, instead.
    /// Never blocks.
    pub fn append(&self, entry: LogEntry) -> bool {
        self.shared.queue.append(entry)
    }

    /// Stores feedback after the records that were appended before it. Returns once it is
    /// committed.
    ///
    /// # Errors
    /// Fails if too much feedback is queued, or the file cannot be written.
    pub async fn feedback(&self, items: Vec<FeedbackItem>) -> Result<Receipt, FeedbackError> {
        let (reply, receipt) = oneshot::channel();
        if self.shared.queue.feedback(items, reply).is_err() {
            return Err(FeedbackError::Busy);
        }
        let exited = |_| FeedbackError::Storage(EXITED.into());
        let receipt = receipt.await.map_err(exited)?.map_err(FeedbackError::Storage)?;
        self.shared.feedback.rejected(receipt.rejected.len());
        Ok(receipt)
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file and its write-ahead log, in bytes.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        file_size(&self.path)
    }

    /// The accounting of records since the start.
    #[must_use]
    pub fn accounting(&self) -> Accounting {
        self.shared.queue.accounting()
    }

    /// Counts of feedback items since the start.
    #[must_use]
    pub fn feedback_counts(&self) -> &FeedbackCounts {
        &self.shared.feedback
    }

    /// Counts of requests that wait for the log, or waited in vain.
    #[must_use]
    pub fn awaited_counts(&self) -> &AwaitedCounts {
        &self.shared.awaited
    }

    /// What was committed since the start.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        &self.shared.commits
    }

    /// Why the file cannot be written, and what that means for requests; `None` if it can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.shared.problem()
    }

    /// Counts and problems of each sink.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkStats> {
        self.sinks.stats()
    }

    /// Quality of the predictions in the log, by group.
    #[must_use]
    pub fn quality(&self) -> Vec<(QualityGroup, Results)> {
        self.shared.quality.lock().results()
    }

    /// Refuses further records and waits, up to `limit`, until the accepted ones are written. Then
    /// delivers to the sinks what they have not received, for up to 5 s. Returns the
    /// accounting of all.
    pub fn shut_down(&self, limit: Duration) -> Accounting {
        // The writer gives up what it cannot write a little earlier, and counts it as dropped.
        self.shared.queue.close(Instant::now() + limit - limit / 8);
        let ended = self.ended.lock();
        let in_time = ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout);
        let accounting = self.accounting();
        let Accounting { accepted, written, dropped, pending } = accounting;
        let dropped = dropped.total();
        if !in_time {
            warn!(pending, after = ?limit, "timeout while writing pending prediction records");
        } else if accepted > 0 {
            info!(accepted, written, dropped, pending, "prediction log closed");
        }
        self.sinks.shut_down(SINK_LIMIT);
        accounting
    }
}

/// Makes the writer exit once it has written the queued records.
impl Drop for PredictionLog {
    fn drop(&mut self) {
        self.shared.queue.close(Instant::now());
    }
}

impl LogState {
    fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    fn set_quality(&self, quality: Quality) {
        *self.quality.lock() = quality;
    }

    fn apply(&self, changes: &[QualityChange]) {
        if changes.is_empty() {
            return;
        }
        let mut quality = self.quality.lock();
        changes.iter().for_each(|change| quality.apply(change));
    }
}

/// Size of the file at `path` and its write-ahead log, in bytes.
#[must_use]
pub fn file_size(path: &Path) -> u64 {
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    size(path) + size(&schema::wal(path))
}

#[cfg(test)]
mod tests;
