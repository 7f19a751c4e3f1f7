//! Sinks of the prediction log: other systems that receive each record and all feedback.
//!
//! ```text
//! writer      one transaction: records, feedback, and an entry in the outbox for each
//! Dispatcher  a thread per sink: reads the outbox from the sink's position, delivers in order,
//!             retries for as long as it takes, and moves the position
//! Sink        redis (stream), file and stdout (JSON lines), cloudevents (HTTP)
//! ```
//!
//! The outbox and the positions are in the log's file, so a sink that is down or slow, a restart and
//! a crash are one case: the position waits. Delivery is at least once. What retention deletes before
//! a sink has received it is counted as lost for that sink. A sink that is not configured any more is
//! deleted once it has nothing left to receive.

pub mod settings;
pub mod sink_files;
pub mod stream;

mod cloudevents;
mod dispatcher;
mod json_lines;
pub(super) mod outbox;
mod progress;
mod redis;
mod v2_payload;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use super::feedback::Truth;
use super::json;
use super::reader::StoredRecord;
use super::times::format;
use crate::http::client_tls;
use dispatcher::Dispatcher;
use progress::SinkProgress;
pub use progress::SinkStats;
pub use settings::SinkSettings;
use settings::SinkTarget;

/// What a sink receives.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most events are records")]
pub enum SinkEvent {
    /// A record, without feedback.
    Record(StoredRecord),
    Feedback(FeedbackEvent),
}

/// Feedback for a record, in its state at the time of the delivery: a later one replaces it.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackEvent {
    pub id: Uuid,
    pub row: i64,
    pub truth: Truth,
    /// Time of the observation, in microseconds of Unix time.
    pub time: i64,
}

impl SinkEvent {
    /// Name of what it is: `record`, or the kind of the feedback.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Record(_) => outbox::RECORD,
            Self::Feedback(feedback) => feedback.truth.kind(),
        }
    }

    /// The id and the row of the record that it is or belongs to.
    #[must_use]
    pub fn key(&self) -> (Uuid, i64) {
        match self {
            Self::Record(StoredRecord { id, row, .. })
            | Self::Feedback(FeedbackEvent { id, row, .. }) => (*id, *row),
        }
    }

    /// Approximate size, in bytes.
    fn size(&self) -> usize {
        const REST: usize = 256;
        match self {
            Self::Record(record) => {
                let StoredRecord { inputs, outputs, attributes, omitted, .. } = record;
                let omitted = omitted.as_ref().map_or(0, String::len);
                REST + inputs.len() + outputs.len() + attributes.len() + omitted
            }
            Self::Feedback(_) => REST,
        }
    }

    /// Appends it as a line of JSON. A record is as in `spinfer log`, feedback as in
    /// `POST /v2/feedback`.
    pub fn write_line(&self, into: &mut Vec<u8>) {
        match self {
            Self::Record(record) => record.write_json(into),
            Self::Feedback(feedback) => feedback.write_json(into),
        }
        into.push(b'\n');
    }
}

impl FeedbackEvent {
    /// Appends it as an item of `POST /v2/feedback`.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        let Self { id, row, truth, time } = self;
        let truth_value = match truth {
            Truth::Label(label) => serde_json::Value::from(label.as_str()),
            Truth::Value(number) | Truth::Reward(number) => (*number).into(),
        };
        let item = serde_json::json!({
            "prediction_id": id.to_string(),
            "row": row,
            truth.kind(): truth_value,
            "time": format(*time),
        });
        json::write(&item, into);
    }
}

/// An entry of the outbox, with what it refers to.
#[derive(Clone, Debug)]
struct OutboxEntry {
    /// Number of the entry, which orders all entries of the file.
    seq: i64,
    event: SinkEvent,
}

/// Why a sink has not received an entry.
#[derive(Debug)]
enum SinkError {
    /// The sink is down, slow or full: the same entries are delivered again later.
    Retry(String),
    /// The sink refuses this many entries, and would always: they are skipped.
    Refused { entries: usize, reason: String },
}

/// Something that receives the log.
trait Sink: Send {
    /// Delivers `entries` in their order, and counts in `delivered` those that the sink has accepted.
    /// May return after a part of them. `producer` identifies this sink of this log.
    ///
    /// # Errors
    /// Fails at the first entry that the sink has not accepted; the error specifies whether
    /// to retry it.
    fn deliver<'a>(
        &'a mut self,
        producer: &'a str,
        entries: &'a [OutboxEntry],
        delivered: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// The sinks of one log.
#[derive(Debug)]
pub(super) struct Sinks {
    shared: Arc<SinksState>,
    /// Disconnected once the dispatcher of the sink has exited.
    running: Mutex<Vec<(String, mpsc::Receiver<()>)>>,
}

/// State that the dispatchers share with the writer and with each other.
pub(super) struct SinksState {
    /// Path of the log's file.
    path: PathBuf,
    names: Vec<String>,
    progress: Vec<SinkProgress>,
    /// Number of the newest entry that this process has committed.
    committed: watch::Sender<i64>,
    /// Set when the log is closed: the time at which dispatchers exit.
    closing: watch::Sender<Option<Instant>>,
    /// Entries that each sink is delivering. Locked while a batch is read, so that none is deleted in
    /// between.
    in_flight: Mutex<Vec<Option<RangeInclusive<i64>>>>,
    /// The lock of the file of this name, which only one process holds: it delivers.
    lock: Mutex<Option<File>>,
}

impl fmt::Debug for SinksState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinksState").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Name of the file whose lock the delivering process holds, in the state folder.
const LOCK_FILE: &str = "predictions.sinks.lock";

impl SinksState {
    fn new(path: &Path, settings: &[SinkSettings]) -> Self {
        let names: Vec<_> = settings.iter().map(|sink| sink.name.clone()).collect();
        Self {
            path: path.to_owned(),
            progress: settings.iter().map(SinkProgress::new).collect(),
            committed: watch::Sender::new(0),
            closing: watch::Sender::new(None),
            in_flight: Mutex::new(vec![None; names.len()]),
            lock: Mutex::default(),
            names,
        }
    }

    /// The configured names.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Wakes the dispatchers: the writer has committed entries up to `seq`.
    pub(super) fn committed(&self, seq: i64) {
        self.committed.send_replace(seq);
    }

    /// Whether this process delivers: it has the lock, or takes it.
    fn owns_delivery(&self) -> io::Result<bool> {
        let mut lock = self.lock.lock();
        if lock.is_some() {
            return Ok(true);
        }
        *lock = try_lock_delivery(&self.path)?;
        Ok(lock.is_some())
    }
}

/// The lock of the process that delivers the log whose file is at `path`; `None` if another one has
/// it. The system releases the lock of a process that ends.
fn try_lock_delivery(path: &Path) -> io::Result<Option<File>> {
    let path = path.with_file_name(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Sinks {
    /// Starts a dispatcher for each sink of the log whose file is at `path`.
    ///
    /// # Errors
    /// Fails if a thread cannot be started, or the roots of TLS cannot be read.
    pub(super) fn start(path: &Path, settings: Vec<SinkSettings>) -> Result<Self> {
        let sinks = settings.iter().map(|SinkSettings { name, target }| {
            open(target.clone()).with_context(|| format!("prediction log: sink `{name}`"))
        });
        let sinks = sinks.collect::<Result<Vec<_>>>()?;
        Self::start_each(path, settings, sinks)
    }

    /// Starts a dispatcher for each of `sinks`, which have these `settings`.
    fn start_each(
        path: &Path,
        settings: Vec<SinkSettings>,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Self> {
        let shared = Arc::new(SinksState::new(path, &settings));
        let mut running = Vec::new();
        for (index, (SinkSettings { name, .. }, sink)) in
            settings.into_iter().zip(sinks).enumerate()
        {
            let (alive, ended) = mpsc::channel();
            let dispatcher = Dispatcher::new(Arc::clone(&shared), index, sink);
            std::thread::Builder::new()
                .name(format!("sink-{name}"))
                .spawn(move || {
                    let _alive = alive;
                    dispatcher.run();
                })
                .with_context(|| format!("cannot start the thread of the sink `{name}`"))?;
            running.push((name, ended));
        }
        Ok(Self { shared, running: Mutex::new(running) })
    }

    pub(super) fn state(&self) -> &Arc<SinksState> {
        &self.shared
    }

    /// Counts and problems of each sink.
    pub(super) fn stats(&self) -> Vec<SinkStats> {
        let committed = *self.shared.committed.borrow();
        self.shared.progress.iter().map(|sink| sink.stats(committed)).collect()
    }

    /// Delivers what is pending, for up to `limit`. The rest stays in the outbox.
    pub(super) fn shut_down(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.shared.closing.send_replace(Some(deadline));
        // A dispatcher checks the deadline itself, unless a write blocks.
        const SLACK: Duration = Duration::from_millis(500);
        for (name, ended) in self.running.lock().drain(..) {
            let remaining = (deadline + SLACK).saturating_duration_since(Instant::now());
            let blocked = ended.recv_timeout(remaining) == Err(RecvTimeoutError::Timeout);
            let stats = self.stats().into_iter().find(|stats| stats.name == name);
            let Some(SinkStats { delivered, pending, .. }) = stats else { continue };
            if blocked || pending > 0 {
                warn!(sink = %name, delivered, pending, "sink closed: the rest is delivered after the next start");
            } else if delivered > 0 {
                info!(sink = %name, delivered, "sink closed");
            }
        }
    }
}

/// Makes the dispatchers exit.
impl Drop for Sinks {
    fn drop(&mut self) {
        let now = Instant::now();
        self.shared.closing.send_if_modified(|closing| closing.replace(now).is_none());
    }
}

fn open(target: SinkTarget) -> Result<Box<dyn Sink>> {
    Ok(match target {
        SinkTarget::Redis(settings) => {
            Box::new(redis::StreamSink::new(settings, client_tls::client()?))
        }
        SinkTarget::File(settings) => Box::new(json_lines::FileSink::new(settings)),
        SinkTarget::Stdout => Box::new(json_lines::StdoutSink),
        SinkTarget::CloudEvents(settings) => Box::new(cloudevents::CollectorSink::new(settings)?),
    })
}

#[cfg(test)]
mod tests;
