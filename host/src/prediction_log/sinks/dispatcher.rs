//! A dispatcher: a thread that delivers the outbox to one sink. Nothing waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::outbox::{OutboxBatch, OutboxFile};
use super::progress::SinkProgress;
use super::{Sink, SinkError, SinksState};
use crate::prediction_log::schema::SchemaError;
use crate::process::priority::lower_priority;

/// Pause after the first failure. It doubles with each further one.
const MIN_PAUSE: Duration = Duration::from_millis(250);
/// Maximum pause after a failure: the time until a sink that is back receives the first entry.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Interval at which the file is checked for entries of other processes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which the entries of sinks that are not configured any more are trimmed.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Dispatcher {
    shared: Arc<SinksState>,
    /// Index of the sink.
    index: usize,
    sink: Box<dyn Sink>,
    outbox: Option<OutboxFile>,
    /// When the entries of sinks that are not configured any more are trimmed.
    next_trim: Instant,
    committed: watch::Receiver<i64>,
    closing: watch::Receiver<Option<Instant>>,
}

/// The result of a step.
enum Step {
    /// There may be more to deliver.
    Delivered,
    /// The sink has received everything, or another process delivers.
    Idle,
    Failed(String),
}

impl Dispatcher {
    pub(super) fn new(shared: Arc<SinksState>, index: usize, sink: Box<dyn Sink>) -> Self {
        let (committed, closing) = (shared.committed.subscribe(), shared.closing.subscribe());
        let next_trim = Instant::now();
        Self { shared, index, sink, outbox: None, next_trim, committed, closing }
    }

    /// Delivers until the log is closed and the sink has received everything, or the time for that
    /// is over.
    pub(super) fn run(mut self) {
        lower_priority();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.dispatch()),
            Err(error) => {
                let name = self.progress().name();
                error!(sink = %name, %error, "the sink cannot be started");
                self.progress().ended(Some(format!("cannot be started: {error}")));
            }
        }
    }

    fn progress(&self) -> &SinkProgress {
        &self.shared.progress[self.index]
    }

    async fn dispatch(&mut self) {
        let mut pause = MIN_PAUSE;
        loop {
            self.committed.mark_unchanged();
            let step = self.step().await;
            let deadline = *self.closing.borrow();
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            match step {
                _ if is_over => return,
                Step::Delivered => pause = MIN_PAUSE,
                Step::Idle if deadline.is_some() => return,
                Step::Idle => {
                    self.trim_unconfigured();
                    let until = Instant::now() + POLL_INTERVAL;
                    tokio::select! {
                        _ = self.committed.changed() => {}
                        _ = self.closing.changed() => {}
                        () = sleep_until(until.into()) => {}
                    }
                }
                Step::Failed(problem) => {
                    let progress = self.progress();
                    let name = progress.name();
                    if progress.ended(Some(problem.clone())) {
                        warn!(sink = %name, %problem, "the sink is down: deliveries are retried");
                    }
                    self.trim();
                    let until = Instant::now() + pause;
                    let until =
                        deadline.map_or(until, |deadline| deadline.min(Instant::now() + MIN_PAUSE));
                    pause = (pause * 2).min(MAX_PAUSE);
                    tokio::select! {
                        _ = self.closing.changed() => {}
                        () = sleep_until(until.into()) => {}
                    }
                }
            }
        }
    }

    /// Delivers a batch, and moves the position.
    async fn step(&mut self) -> Step {
        let batch = match self.next() {
            Ok(Some(batch)) => batch,
            Ok(None) => return Step::Idle,
            Err(error) => return self.failed(&error),
        };
        let Some(range) = batch.range.clone() else {
            // Without anything to deliver, the sink is not known to be down.
            self.progress().ended(None);
            return Step::Idle;
        };
        self.progress().started();
        let result = self.deliver(&batch, *range.end()).await;
        self.progress().stopped();
        self.shared.in_flight.lock()[self.index] = None;
        match result {
            Ok(step) => step,
            Err(error) => self.failed(&error),
        }
    }

    /// The next entries, which are in flight then. `None` if another process delivers, or nothing was
    /// logged yet.
    fn next(&mut self) -> Result<Option<OutboxBatch>, SchemaError> {
        let shared = Arc::clone(&self.shared);
        if self.outbox.as_ref().is_some_and(|outbox| !outbox.is_current()) {
            self.outbox = None;
        }
        if self.outbox.is_none() {
            if !shared.path.exists() || !shared.owns_delivery()? {
                return Ok(None);
            }
            self.outbox = OutboxFile::open(&shared.path, &shared.names)?;
        }
        let Some(outbox) = &mut self.outbox else { return Ok(None) };
        let mut in_flight = shared.in_flight.lock();
        let batch = outbox.next(&shared.names[self.index])?;
        in_flight[self.index].clone_from(&batch.range);
        drop(in_flight);
        self.progress().set_backlog(batch.backlog);
        Ok(Some(batch))
    }

    /// Delivers `batch`, whose last number is `end`.
    async fn deliver(&mut self, batch: &OutboxBatch, end: i64) -> Result<Step, SchemaError> {
        let mut rest = &*batch.entries;
        while !rest.is_empty() {
            let mut delivered = 0;
            let attempt = self.sink.deliver(&batch.producer, rest, &mut delivered);
            let result = within(&mut self.closing, attempt).await;
            let (refused, problem) = match result {
                None => (0, Some(Step::Idle)),
                Some(Ok(())) => (0, None),
                Some(Err(SinkError::Retry(problem))) => (0, Some(Step::Failed(problem))),
                Some(Err(SinkError::Refused { entries, reason })) => {
                    let next = rest.get(delivered).map(|entry| entry.event.key());
                    let id = next.map(|(id, _)| id).unwrap_or_default();
                    warn!(
                        sink = %self.progress().name(), entries, %id, %reason,
                        "the sink refuses these predictions: they are skipped"
                    );
                    (entries, None)
                }
            };
            let handled = (delivered + refused).min(rest.len());
            let (done, remaining) = rest.split_at(handled);
            if let Some(last) = done.last() {
                // What follows the last entry and is lost belongs to it.
                let position = remaining.first().map_or(end, |_| last.seq);
                self.advance(batch, position, delivered, refused)?;
            }
            rest = remaining;
            if let Some(step) = problem {
                return Ok(step);
            }
            self.recovered();
            if handled == 0 {
                return Ok(Step::Failed("the sink accepted nothing, without an error".into()));
            }
        }
        if batch.entries.is_empty() {
            self.advance(batch, end, 0, 0)?;
        }
        Ok(Step::Delivered)
    }

    fn recovered(&self) {
        if self.progress().ended(None) {
            info!(sink = %self.progress().name(), "the sink receives predictions again");
        }
        self.progress().started();
    }

    /// Moves the position, past lost entries too.
    fn advance(
        &mut self,
        batch: &OutboxBatch,
        position: i64,
        delivered: usize,
        refused: usize,
    ) -> Result<(), SchemaError> {
        let before = self.progress().position();
        let is_passed = |seq: &&i64| (before + 1..=position).contains(*seq);
        let lost = batch.lost.iter().filter(is_passed).count() as u64;
        if let Some(outbox) = &mut self.outbox {
            let name = &self.shared.names[self.index];
            outbox.advance(name, position, i64::try_from(lost).unwrap_or(0))?;
        }
        self.progress().advanced(position, delivered as u64, refused as u64, lost);
        if lost > 0 {
            self.warn_of_loss(self.progress().name(), lost);
        }
        Ok(())
    }

    /// Nothing is delivered to a sink that is not configured any more, which would trim its entries.
    fn trim_unconfigured(&mut self) {
        let is_needed = self.outbox.as_ref().is_some_and(OutboxFile::has_unconfigured_sinks);
        if is_needed && Instant::now() >= self.next_trim {
            self.trim();
            self.next_trim = Instant::now() + TRIM_INTERVAL;
        }
    }

    /// Deletes what retention has deleted of the log, up to what is in flight.
    fn trim(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(outbox) = &mut self.outbox else { return };
        let in_flight = shared.in_flight.lock();
        let ranges: Vec<_> = in_flight.iter().flatten().cloned().collect();
        let Ok(trimmed) = outbox.trim(&ranges) else {
            // The next attempt to read reports the problem.
            self.outbox = None;
            return;
        };
        drop(in_flight);
        for (name, backlog) in trimmed {
            let progress = shared.progress.iter().find(|progress| progress.name() == name);
            let Some(progress) = progress else { continue };
            let lost = progress.trimmed(backlog);
            self.warn_of_loss(&name, lost);
        }
    }

    fn warn_of_loss(&self, sink: &str, lost: u64) {
        warn!(
            %sink, lost, path = %self.shared.path.display(),
            "predictions were deleted by max_age or max_size of the log before the sink received them"
        );
    }

    /// The file cannot be used: it is opened again by the next attempt.
    fn failed(&mut self, error: &SchemaError) -> Step {
        self.outbox = None;
        self.shared.in_flight.lock()[self.index] = None;
        Step::Failed(format!("{}: {error}", self.shared.path.display()))
    }
}

/// The result of `action`, unless the log is closed and the time for that is over first.
async fn within<T>(
    closing: &mut watch::Receiver<Option<Instant>>,
    action: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(action);
    loop {
        let deadline = *closing.borrow_and_update();
        if let Some(deadline) = deadline {
            return timeout_at(deadline.into(), action).await.ok();
        }
        tokio::select! {
            result = &mut action => return Some(result),
            // The sender lives as long as its dispatchers.
            _ = closing.changed() => {}
        }
    }
}
