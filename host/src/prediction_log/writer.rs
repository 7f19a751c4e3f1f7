//! The writer: a dedicated thread that writes queued records. Of a batch that cannot be written, it
//! keeps the records that their components want kept, and drops and counts the others. It logs the
//! first failure, and retries with exponential backoff.

use std::collections::BTreeMap;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info, warn};

use super::host_lock::HostLock;
use super::models::ModelInfo;
use super::queue::{Admission, Batch, Guarantee, Message, Settlement};
use super::recovery;
use super::retention::{self, Retention, RetentionClock};
use super::schema::SchemaError;
use super::settings::LogMode;
use super::sinks::SinksState;
use super::store::{Durability, LogStore, WrittenBatch, units};
use super::times::micros;
use super::{Commits, LogState, Observer};
use crate::process::priority::lower_priority;

/// Interval between deletions of expired records.
const AGE_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after the first failure to write the file. It doubles with each further failure.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
/// Maximum pause after a failure: requests that would wait for the disk are refused in the meantime.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

pub(super) struct LogWriter {
    pub(super) shared: Arc<LogState>,
    pub(super) path: PathBuf,
    pub(super) retention: Retention,
    pub(super) mode: LogMode,
    pub(super) models: Vec<ModelInfo>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) sinks: Arc<SinksState>,
    pub(super) runs: BTreeMap<String, String>,
}

/// The writer's state.
struct Work {
    writer: LogWriter,
    store: Option<LogStore>,
    /// Whether the file was checked for damage.
    checked: bool,
    /// Entries that could not be written, and are kept until they can. They remain pending.
    kept: Batch,
    /// Held from before the first reading of the file on, so that no feedback is missed.
    lock: Option<HostLock>,
    shrink: retention::RetentionState,
    next_age: Instant,
    /// From the time when the file is opened first.
    clock: Option<RetentionClock>,
    /// After a failure: the time of the next attempt, and the pause after its failure.
    backoff: Option<(Instant, Duration)>,
}

impl LogWriter {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(self) {
        // Unless responses wait for it.
        if self.mode == LogMode::BestEffort {
            lower_priority();
        }
        let shared = Arc::clone(&self.shared);
        let adopted = recovery::adopt(&self.path);
        adopted.unwrap_or_else(|error| warn!(%error, "cannot complete an interrupted recovery"));
        let exists = self.path.exists();
        let mut work = Work {
            writer: self,
            store: None,
            checked: false,
            kept: Batch::default(),
            lock: None,
            shrink: Default::default(),
            next_age: Instant::now(),
            clock: None,
            backoff: None,
        };
        if exists {
            work.attempt(|work| work.open().map(drop));
        }
        work.writer.observers.iter().for_each(|observer| observer.resume(&work.writer.path));
        let mut more = false;
        loop {
            let timeout = if more { Duration::ZERO } else { work.timeout() };
            let Some(batch) = shared.queue.next(timeout) else { break };
            work.process(batch);
            more = work.retain() && shared.queue.closed().is_none();
        }
        work.finish();
        work.writer.observers.iter().for_each(|observer| observer.close());
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
            let LogWriter { path, models, shared, sinks, runs, .. } = &self.writer;
            if self.lock.is_none() {
                self.lock = Some(HostLock::of_host(path.parent().unwrap_or(Path::new("")))?);
            }
            let (mut store, quality) = LogStore::open(path, models, sinks.names())?;
            if !self.checked {
                recovery::check(&mut store.connection)?;
                self.checked = true;
            }
            units::forget_earlier_runs(&store.connection, runs)?;
            if self.clock.is_none() {
                let system = micros(SystemTime::now());
                let last = retention::last_time(&store.connection)?;
                self.clock = Some(RetentionClock::new(system, Instant::now(), last));
            }
            shared.set_quality(quality);
            self.store = Some(store);
        }
        self.store.as_mut().ok_or_else(|| SchemaError::Foreign("the file is not open".into()))
    }

    /// Whether a pause after a failure is in progress.
    fn is_paused(&self) -> bool {
        self.backoff.is_some_and(|(until, _)| Instant::now() < until)
    }

    /// Runs `action`, unless a pause after a failure is in progress. A failure starts such a pause. If
    /// the file turns out to be damaged, `action` is repeated with the one that replaces it.
    fn attempt<T>(
        &mut self,
        mut action: impl FnMut(&mut Self) -> Result<T, SchemaError>,
    ) -> Option<T> {
        if self.is_paused() {
            return None;
        }
        let mut result = action(self);
        if let Err(damage) = &result
            && damage.is_corruption()
        {
            self.store = None;
            result = recovery::replace(&self.writer.path, damage).and_then(|()| action(self));
        }
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
                let effect = self.writer.mode.while_unwritable();
                if self.backoff.is_none() {
                    warn!(%path, %error, "the prediction log cannot be written: {effect}");
                }
                let next = (pause * 2).min(MAX_BACKOFF);
                self.backoff = Some((Instant::now() + pause, next));
                self.writer.shared.set_problem(Some(format!("{path}: {error}; {effect}")));
                // Opened again by the next attempt: it may be another file by then.
                self.store = None;
                None
            }
        }
    }

    /// Writes a batch, after what is kept of earlier ones, and settles its accounting.
    fn process(&mut self, mut batch: Batch) {
        if !self.is_paused() {
            let later = mem::replace(&mut batch, mem::take(&mut self.kept));
            batch.append(later);
        }
        if batch.messages.is_empty() {
            // The timeout of the queue: after a failure, find out whether the file can be written again.
            if self.backoff.is_some() {
                self.attempt(|work| work.open()?.probe());
            }
            return;
        }
        match self.attempt(|work| work.write(&batch)) {
            Some(written) => self.settle(batch, Ok(written)),
            None => {
                let (kept, lost) = batch.split_kept();
                self.kept.append(kept);
                self.settle(lost, Err(self.reason()));
            }
        }
    }

    fn reason(&self) -> String {
        self.writer.shared.problem().unwrap_or_else(|| "it cannot be written".into())
    }

    /// Writes a batch in one transaction: to the disk if something relies on it.
    fn write(&mut self, batch: &Batch) -> Result<WrittenBatch, SchemaError> {
        let has_feedback =
            || batch.messages.iter().any(|message| matches!(message, Message::Feedback(..)));
        let synced =
            batch.has_guarantees() || (self.writer.mode == LogMode::Synchronous && has_feedback());
        let durability = if synced { Durability::Disk } else { Durability::Process };
        let now = micros(SystemTime::now());
        let store = self.open()?;
        let start = Instant::now();
        let written = store.write(&batch.messages, now, durability)?;
        let Commits { durations, synced: synced_commits } = &self.writer.shared.commits;
        durations.observe_duration(start.elapsed());
        synced_commits.fetch_add(u64::from(synced), Ordering::Relaxed);
        Ok(written)
    }

    /// Settles the accounting of a batch, replies to those that wait, and passes it to the observers.
    fn settle(&self, batch: Batch, written: Result<WrittenBatch, String>) {
        let shared = &self.writer.shared;
        let settlement = match &written {
            Err(_) => Settlement { storage: batch.records, ..Settlement::default() },
            Ok(written) => {
                shared.apply(&written.changes);
                if let Some(seq) = written.last_outgoing {
                    self.writer.sinks.committed(seq);
                }
                let WrittenBatch { records, duplicates, .. } = written;
                Settlement { written: *records, duplicate: *duplicates, storage: 0 }
            }
        };
        shared.queue.settle(&batch, settlement);
        let mut written = written.map(|written| written.receipts.into_iter());
        let mut entries = Vec::with_capacity(batch.messages.len());
        // A reply fails if the client has disconnected; what it waits for is stored nevertheless.
        for message in batch.messages {
            match message {
                Message::Entry(entry, Admission { guarantee, .. }) => {
                    if let Guarantee::Awaited(reply) = guarantee {
                        let _ = reply.send(written.as_ref().map(|_| ()).map_err(Clone::clone));
                    }
                    entries.push(entry);
                }
                Message::Feedback(_, reply) => {
                    let missing = || "there is no receipt for this feedback".to_owned();
                    let receipt = match &mut written {
                        Ok(receipts) => receipts.next().ok_or_else(missing),
                        Err(reason) => Err(reason.clone()),
                    };
                    if let Ok(receipt) = &receipt {
                        shared.feedback.stored(receipt);
                    }
                    let _ = reply.send(receipt);
                }
            }
        }
        for entry in &entries {
            self.writer.observers.iter().for_each(|observer| observer.observe(entry));
        }
    }

    /// Retries to write what is kept, until the time that the closed queue allows. Then it is lost.
    fn finish(&mut self) {
        while !self.kept.messages.is_empty() {
            let now = Instant::now();
            let end = self.writer.shared.queue.closed().unwrap_or(now);
            if end <= now {
                let (lost, reason) = (mem::take(&mut self.kept), self.reason());
                error!(records = lost.records, reason, "prediction records are lost at shutdown");
                return self.settle(lost, Err(reason));
            }
            if let Some((until, _)) = self.backoff {
                thread::sleep(until.min(end).saturating_duration_since(now));
            }
            self.process(Batch::default());
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
        let system = micros(SystemTime::now());
        let now = self.clock.as_mut().map_or(system, |clock| clock.now(system, Instant::now()));
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
