//! How far a sink is, for metrics, statistics and readiness.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::SinkSettings;
use super::outbox::Backlog;
use crate::prediction_log::times::micros;

/// Time after which a delivery without any progress is reported as a problem.
const STALLED: Duration = Duration::from_secs(10);

/// Counts and problems of a sink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkStats {
    pub name: String,
    /// `type` in the runtime config.
    pub kind: String,
    /// Number of records and feedback items that the sink has accepted since the start.
    pub delivered: u64,
    /// Number of those that it has not received.
    pub pending: u64,
    /// Number of failed deliveries since the start, each of which is retried.
    pub retries: u64,
    /// Number of those that it has refused for good since the start.
    pub refused: u64,
    /// Number of those that retention deleted first, since the sink was added.
    pub lost: u64,
    /// Age of the oldest pending one, in seconds.
    pub lag_seconds: f64,
    /// Why the last delivery failed; `None` if it succeeded.
    pub problem: Option<String>,
}

#[derive(Debug)]
pub(super) struct SinkProgress {
    name: String,
    kind: &'static str,
    delivered: AtomicU64,
    retries: AtomicU64,
    refused: AtomicU64,
    state: Mutex<ProgressState>,
}

#[derive(Debug, Default)]
struct ProgressState {
    backlog: Backlog,
    problem: Option<String>,
    /// When a delivery in progress started, or last progressed.
    since: Option<Instant>,
}

impl SinkProgress {
    pub(super) fn new(settings: &SinkSettings) -> Self {
        Self {
            name: settings.name.clone(),
            kind: settings.target.kind(),
            delivered: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Replaces what is known of the outbox.
    pub(super) fn set_backlog(&self, backlog: Backlog) {
        self.state.lock().backlog = backlog;
    }

    /// Number of the last entry that the sink has received, or that is lost.
    pub(super) fn position(&self) -> i64 {
        self.state.lock().backlog.position
    }

    /// Entries were deleted before the sink has received them. Returns their number.
    pub(super) fn trimmed(&self, backlog: Backlog) -> u64 {
        let known = &mut self.state.lock().backlog;
        let lost = u64::try_from(backlog.lost - known.lost).unwrap_or(0);
        *known = Backlog { oldest: known.oldest, ..backlog };
        lost
    }

    /// A delivery starts, or goes on after a part of it.
    pub(super) fn started(&self) {
        self.state.lock().since = Some(Instant::now());
    }

    /// No delivery is in progress.
    pub(super) fn stopped(&self) {
        self.state.lock().since = None;
    }

    /// The delivery ended with this `problem`, or none. Returns whether it was not known.
    pub(super) fn ended(&self, problem: Option<String>) -> bool {
        let mut state = self.state.lock();
        state.since = None;
        if problem.is_some() {
            self.retries.fetch_add(1, Ordering::Relaxed);
        }
        let changed = state.problem.is_none() != problem.is_none();
        state.problem = problem;
        changed
    }

    /// The sink has handled the entries up to `position`: accepted, refused or lost.
    pub(super) fn advanced(&self, position: i64, delivered: u64, refused: u64, lost: u64) {
        self.delivered.fetch_add(delivered, Ordering::Relaxed);
        self.refused.fetch_add(refused, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.backlog.position = position;
        state.backlog.lost += i64::try_from(lost).unwrap_or(0);
    }

    /// Counts and problems. `committed` is the number of the newest entry of this process.
    pub(super) fn stats(&self, committed: i64) -> SinkStats {
        let state = self.state.lock();
        let Backlog { position, head, lost, oldest } = state.backlog;
        let pending = u64::try_from(head.max(committed) - position).unwrap_or(0);
        let age = |time| micros(SystemTime::now()).saturating_sub(time);
        let age = oldest.filter(|_| pending > 0).map_or(0, age);
        let lag = Duration::from_micros(u64::try_from(age).unwrap_or(0));
        let stalled = state.since.map(|since| since.elapsed()).filter(|time| *time > STALLED);
        let stalled =
            stalled.map(|time| format!("no progress of a delivery for {} s", time.as_secs()));
        SinkStats {
            name: self.name.clone(),
            kind: self.kind.into(),
            delivered: self.delivered.load(Ordering::Relaxed),
            pending,
            retries: self.retries.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            lost: u64::try_from(lost).unwrap_or(0),
            lag_seconds: lag.as_secs_f64(),
            problem: stalled.or_else(|| state.problem.clone()),
        }
    }
}
