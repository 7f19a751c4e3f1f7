//! The writer: a dedicated thread of lower priority that writes queued records. Records that it
//! cannot write are dropped and counted; it logs the first failure, and retries with exponential
//! backoff.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use super::feedback::Receipt;
use super::models::ModelInfo;
use super::queue::{Batch, Message, Settlement};
use super::retention::{self, Retention};
use super::schema::{self, SchemaError};
use super::store::{LogStore, WrittenBatch};
use super::times::micros;
use super::{LogState, Observer};
use crate::process::priority::lower_priority;

/// Interval between deletions of expired records.
const AGE_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after the first failure to write the file. It doubles with each further failure.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
/// Maximum pause after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

pub(super) struct LogWriter {
    pub(super) shared: Arc<LogState>,
    pub(super) path: PathBuf,
    pub(super) retention: Retention,
    pub(super) models: Vec<ModelInfo>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
}

impl LogWriter {
    /// Moves the damaged file aside. `error` describes the damage.
    fn move_aside(&self, error: &SchemaError) -> std::io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let aside = schema::move_aside(&self.path, now.as_secs())?;
        warn!(
            %error, path = %self.path.display(), moved_to = %aside.display(),
            "the prediction log is damaged: moved it aside, and started a new one"
        );
        Ok(())
    }
}

/// The writer's state.
struct Work {
    writer: LogWriter,
    store: Option<LogStore>,
    shrink: retention::RetentionState,
    next_age: Instant,
    /// After a failure: the time of the next attempt, and the pause after its failure.
    backoff: Option<(Instant, Duration)>,
}

impl LogWriter {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(self) {
        lower_priority();
        let shared = Arc::clone(&self.shared);
        let exists = self.path.exists();
        let next_age = Instant::now();
        let mut work =
            Work { writer: self, store: None, shrink: Default::default(), next_age, backoff: None };
        if exists {
            work.attempt(|work| work.open().map(drop));
        }
        work.writer.observers.iter().for_each(|observer| observer.resume(&work.writer.path));
        let mut more = false;
        loop {
            let timeout = if more { Duration::ZERO } else { work.timeout() };
            let Some(batch) = shared.queue.next(timeout) else { break };
            work.process(batch);
            more = work.retain() && !shared.queue.is_closed();
        }
    }
}

impl Work {
    /// Time until the next scheduled work: a retry, or a deletion of expired records.
    fn timeout(&self) -> Duration {
        let next = self.backoff.map_or(self.next_age, |(until, _)| until);
        next.saturating_duration_since(Instant::now())
    }

    /// The file, which is opened first if necessary.
    fn open(&mut self) -> Result<&mut LogStore, SchemaError> {
        if self.store.is_none() {
            let LogWriter { path, models, shared, .. } = &self.writer;
            let opened = LogStore::open(path, models).or_else(|error| {
                if !error.is_corruption() {
                    return Err(error);
                }
                self.writer.move_aside(&error)?;
                LogStore::open(path, models)
            });
            let (store, quality) = opened?;
            shared.set_quality(quality);
            self.store = Some(store);
        }
        self.store.as_mut().ok_or_else(|| SchemaError::Foreign("the file is not open".into()))
    }

    /// Runs `action`, unless a pause after a failure is in progress. A failure starts such a pause.
    fn attempt<T>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<T, SchemaError>,
    ) -> Option<T> {
        if self.backoff.is_some_and(|(until, _)| Instant::now() < until) {
            return None;
        }
        let result = action(self);
        let path = self.writer.path.display();
        match result {
            Ok(value) => {
                if self.backoff.take().is_some() {
                    info!(%path, "the prediction log can be written again");
                }
                self.writer.shared.set_problem(None);
                Some(value)
            }
            Err(error) => {
                let pause = self.backoff.map_or(MIN_BACKOFF, |(_, next)| next);
                if self.backoff.is_none() {
                    warn!(%path, %error, "the prediction log cannot be written: records are dropped");
                }
                let next = (pause * 2).min(MAX_BACKOFF);
                self.backoff = Some((Instant::now() + pause, next));
                self.writer.shared.set_problem(Some(format!("{path}: {error}")));
                // Opened again by the next attempt: it may be another file by then.
                let was_open = self.store.take().is_some();
                if was_open && error.is_corruption() {
                    let moved = self.writer.move_aside(&error);
                    moved.unwrap_or_else(
                        |error| warn!(%path, %error, "cannot move the damaged file aside"),
                    );
                }
                None
            }
        }
    }

    /// Passes a batch to the observers, writes it, and settles its accounting.
    fn process(&mut self, batch: Batch) {
        let shared = Arc::clone(&self.writer.shared);
        for message in &batch.messages {
            if let Message::Entry(entry, _) = message {
                self.writer.observers.iter().for_each(|observer| observer.observe(entry));
            }
        }
        if batch.messages.is_empty() {
            // The timeout of the queue: retry to open the file after a failure.
            if self.backoff.is_some() {
                self.attempt(|work| work.open().map(drop));
            }
            return;
        }
        let now = micros(SystemTime::now());
        let written = self.attempt(|work| work.open()?.write(&batch.messages, now));
        let settlement = match &written {
            None => Settlement { storage: batch.records, ..Settlement::default() },
            Some(written) => {
                shared.apply(&written.changes);
                let WrittenBatch { records, duplicates, .. } = written;
                Settlement { written: *records, duplicate: *duplicates, storage: 0 }
            }
        };
        shared.queue.settle(&batch, settlement);
        let mut receipts = written.map(|written| written.receipts.into_iter());
        let reason = || shared.problem().unwrap_or_else(|| "the log cannot be written".into());
        for message in batch.messages {
            let Message::Feedback(_, reply) = message else { continue };
            let receipt = match &mut receipts {
                None => Err(reason()),
                Some(receipts) => receipts.next().ok_or_else(reason),
            };
            if let Ok(Receipt { accepted, unknown, .. }) = &receipt {
                shared.feedback.stored(*accepted, *unknown);
            }
            // Fails if the client has disconnected; the feedback is stored nevertheless.
            let _ = reply.send(receipt);
        }
    }

    /// Deletes some expired or excess records. Returns whether more remain.
    fn retain(&mut self) -> bool {
        let by_age = Instant::now() >= self.next_age;
        if self.store.is_none() {
            if by_age {
                self.next_age = Instant::now() + AGE_INTERVAL;
            }
            return false;
        }
        let now = micros(SystemTime::now());
        let step = self.attempt(|work| {
            let retention = work.writer.retention;
            match &mut work.store {
                None => Ok(retention::RetentionStep::default()),
                Some(LogStore { connection, models, .. }) => {
                    work.shrink.step(connection, models, retention, now, by_age)
                }
            }
        });
        let Some(retention::RetentionStep { changes, more }) = step else { return false };
        self.writer.shared.apply(&changes);
        if by_age && !more {
            self.next_age = Instant::now() + AGE_INTERVAL;
        }
        more
    }
}
