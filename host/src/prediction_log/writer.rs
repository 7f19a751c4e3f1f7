//! The writer: a thread of its own, of lower priority, that takes what is queued and writes it. What
//! it cannot write it drops and counts, says so once, and tries again, less and less often.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use super::feedback::Receipt;
use super::models::ModelInfo;
use super::queue::{Batch, Message, Settlement};
use super::retention::{self, Retention};
use super::schema::{self, Error};
use super::store::{Store, Written};
use super::times::micros;
use super::{Observer, Shared};
use crate::process::priority::yield_to_others;

/// How often what is too old is looked for.
const AGE_INTERVAL: Duration = Duration::from_secs(60);
/// After the file could not be written, it is left alone for so long, and twice as long each time
/// after that.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) path: PathBuf,
    pub(super) retention: Retention,
    pub(super) models: Vec<ModelInfo>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
}

impl Writer {
    /// Moves the file aside, which is damaged as `error` says.
    fn move_aside(&self, error: &Error) -> std::io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let aside = schema::move_aside(&self.path, now.as_secs())?;
        warn!(
            %error, path = %self.path.display(), moved_to = %aside.display(),
            "the prediction log is damaged: it is moved aside, and a new one is begun"
        );
        Ok(())
    }
}

/// What the writer knows of the file.
struct Work {
    writer: Writer,
    store: Option<Store>,
    shrink: retention::State,
    next_age: Instant,
    /// After a failure: when to try again, and how long to wait after the next.
    backoff: Option<(Instant, Duration)>,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(self) {
        yield_to_others();
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
            let patience = if more { Duration::ZERO } else { work.patience() };
            let Some(batch) = shared.queue.next(patience) else { break };
            work.take(batch);
            more = work.retain() && !shared.queue.is_closed();
        }
    }
}

impl Work {
    /// How long nothing is to be done if nothing comes.
    fn patience(&self) -> Duration {
        let next = self.backoff.map_or(self.next_age, |(until, _)| until);
        next.saturating_duration_since(Instant::now())
    }

    /// The open file.
    fn open(&mut self) -> Result<&mut Store, Error> {
        if self.store.is_none() {
            let Writer { path, models, shared, .. } = &self.writer;
            let opened = Store::open(path, models).or_else(|error| {
                if !error.is_corruption() {
                    return Err(error);
                }
                self.writer.move_aside(&error)?;
                Store::open(path, models)
            });
            let (store, quality) = opened?;
            shared.set_quality(quality);
            self.store = Some(store);
        }
        // It is there.
        self.store.as_mut().ok_or_else(|| Error::Foreign("the file is not open".into()))
    }

    /// What `act` comes to, unless the last failure is too recent; a failure is remembered.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Error>) -> Option<T> {
        if self.backoff.is_some_and(|(until, _)| Instant::now() < until) {
            return None;
        }
        let result = act(self);
        let path = self.writer.path.display();
        match result {
            Ok(done) => {
                if self.backoff.take().is_some() {
                    info!(%path, "the prediction log is written again");
                }
                self.writer.shared.set_problem(None);
                Some(done)
            }
            Err(error) => {
                let pause = self.backoff.map_or(MIN_BACKOFF, |(_, next)| next);
                if self.backoff.is_none() {
                    warn!(%path, %error, "the prediction log cannot be written: records are dropped");
                }
                let next = (pause * 2).min(MAX_BACKOFF);
                self.backoff = Some((Instant::now() + pause, next));
                self.writer.shared.set_problem(Some(format!("{path}: {error}")));
                // It is opened again: it may be another file by then.
                let was_open = self.store.take().is_some();
                if was_open && error.is_corruption() {
                    let moved = self.writer.move_aside(&error);
                    moved.unwrap_or_else(|error| warn!(%path, %error, "it cannot be moved aside"));
                }
                None
            }
        }
    }

    /// Shows a batch to the observers, writes it, and closes its accounts.
    fn take(&mut self, batch: Batch) {
        let shared = Arc::clone(&self.writer.shared);
        for message in &batch.messages {
            if let Message::Entry(entry, _) = message {
                self.writer.observers.iter().for_each(|observer| observer.observe(entry));
            }
        }
        if batch.messages.is_empty() {
            // Nothing to do: the time to see whether the file can be written again.
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
                let Written { records, duplicates, .. } = written;
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
            // Who has sent it may have gone away: it is stored all the same.
            let _ = reply.send(receipt);
        }
    }

    /// A step of deleting what is too old or too much; whether there is more.
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
                None => Ok(retention::Step::default()),
                Some(Store { connection, models, .. }) => {
                    work.shrink.step(connection, models, retention, now, by_age)
                }
            }
        });
        let Some(retention::Step { changes, more }) = step else { return false };
        self.writer.shared.apply(&changes);
        if by_age && !more {
            self.next_age = Instant::now() + AGE_INTERVAL;
        }
        more
    }
}
