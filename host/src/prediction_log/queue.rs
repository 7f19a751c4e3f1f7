//! The queue between requests and the writer. It is bounded by records and by bytes, and appending
//! never blocks. It also has the log's accounting, which changes atomically under its lock, so that
//! accepted = written + dropped + pending in every snapshot.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::feedback::{FeedbackItem, Receipt};
use super::record::{ColumnValues, Columns, LogEntry, Predictions};

/// Maximum number of records in one transaction, unless one entry has more.
pub const MAX_BATCH: u64 = 8192;
/// Time that the writer waits for more records before it writes a batch.
pub const BATCH_DELAY: Duration = Duration::from_millis(200);
/// Maximum number of queued feedback items. A request has at most 10,000.
pub const MAX_FEEDBACK: usize = 50_000;

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The queue was full: the disk is too slow for the rate of predictions.
    QueueFull,
    /// The file could not be written: the disk is full, read-only or missing.
    Storage,
    /// The log already has a record of the same request and row.
    Duplicate,
    /// The host was shutting down.
    Shutdown,
}

impl Dropped {
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::Storage, Self::Duplicate, Self::Shutdown];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Storage => "storage",
            Self::Duplicate => "duplicate",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The accounting of appended records: accepted = written + dropped + pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// Records that components appended, after sampling.
    pub accepted: u64,
    pub written: u64,
    pub dropped: DroppedCounts,
    /// Records that are queued or being written.
    pub pending: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedCounts {
    pub queue_full: u64,
    pub storage: u64,
    pub duplicate: u64,
    pub shutdown: u64,
}

impl DroppedCounts {
    fn add(&mut self, reason: Dropped, records: u64) {
        *match reason {
            Dropped::QueueFull => &mut self.queue_full,
            Dropped::Storage => &mut self.storage,
            Dropped::Duplicate => &mut self.duplicate,
            Dropped::Shutdown => &mut self.shutdown,
        } += records;
    }

    #[must_use]
    pub fn get(&self, reason: Dropped) -> u64 {
        match reason {
            Dropped::QueueFull => self.queue_full,
            Dropped::Storage => self.storage,
            Dropped::Duplicate => self.duplicate,
            Dropped::Shutdown => self.shutdown,
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        Dropped::ALL.iter().map(|&reason| self.get(reason)).sum()
    }
}

/// A queued message for the writer.
#[derive(Debug)]
pub(super) enum Message {
    /// Predictions, and their charge in bytes.
    Entry(LogEntry, usize),
    Feedback(Vec<FeedbackItem>, oneshot::Sender<Result<Receipt, String>>),
}

/// Messages that the writer takes at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    pub(super) records: u64,
    bytes: usize,
}

/// The accounting of a batch's records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settlement {
    pub(super) written: u64,
    pub(super) duplicate: u64,
    pub(super) storage: u64,
}

#[derive(Debug)]
pub(super) struct RecordQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    max_records: u64,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    messages: VecDeque<Message>,
    /// Number of queued records, without those being written.
    queued: u64,
    /// Charge of the pending records, in bytes.
    bytes: usize,
    /// Number of queued feedback items.
    feedback: usize,
    accounting: Accounting,
    closed: bool,
    /// Whether the writer waits for the first message.
    idle: bool,
}

impl RecordQueue {
    pub(super) fn new(max_records: u64, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), max_records, max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    /// Queues an entry. Returns false if its records were dropped, and counted, instead.
    pub(super) fn append(&self, entry: LogEntry) -> bool {
        let (records, bytes) = (u64::from(entry.predictions.rows), charge(&entry));
        let mut state = self.lock();
        let QueueState { accounting, .. } = &mut *state;
        accounting.accepted += records;
        let full =
            accounting.pending + records > self.max_records || state.bytes + bytes > self.max_bytes;
        if state.closed || full {
            let reason = if state.closed { Dropped::Shutdown } else { Dropped::QueueFull };
            state.accounting.dropped.add(reason, records);
            return false;
        }
        state.accounting.pending += records;
        state.bytes += bytes;
        let before = state.queued;
        state.queued += records;
        state.messages.push_back(Message::Entry(entry, bytes));
        // A wake-up costs more than the rest: only for a full batch, or for the first record.
        let wake = state.idle || (before < MAX_BATCH && state.queued >= MAX_BATCH);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        true
    }

    /// Queues feedback. Returns it as the error if too much is queued, or the log is closed.
    pub(super) fn feedback(
        &self,
        items: Vec<FeedbackItem>,
        reply: oneshot::Sender<Result<Receipt, String>>,
    ) -> Result<(), Vec<FeedbackItem>> {
        let mut state = self.lock();
        if state.closed || state.feedback + items.len() > MAX_FEEDBACK {
            return Err(items);
        }
        state.feedback += items.len();
        state.messages.push_back(Message::Feedback(items, reply));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next batch to write. Waits up to `timeout` for the first message, and then
    /// [`BATCH_DELAY`] for more, unless feedback is queued, whose sender waits. The batch is empty
    /// after a timeout; `None` once the queue is closed and empty.
    pub(super) fn next(&self, timeout: Duration) -> Option<Batch> {
        let mut state = self.lock();
        if state.messages.is_empty() && !state.closed {
            state.idle = true;
            let empty = |state: &mut QueueState| state.messages.is_empty() && !state.closed;
            self.changed.wait_while_for(&mut state, empty, timeout);
            state.idle = false;
        }
        if state.messages.is_empty() {
            return (!state.closed).then(Batch::default);
        }
        let end = Instant::now() + BATCH_DELAY;
        while !state.closed && state.feedback == 0 && state.queued < MAX_BATCH {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                break;
            }
            self.changed.wait_for(&mut state, remaining);
        }
        Some(state.take())
    }

    /// Settles the accounting of a batch.
    pub(super) fn settle(&self, batch: &Batch, settlement: Settlement) {
        let Settlement { written, duplicate, storage } = settlement;
        debug_assert_eq!(written + duplicate + storage, batch.records, "every record is accounted");
        let mut state = self.lock();
        state.bytes -= batch.bytes;
        let accounting = &mut state.accounting;
        accounting.pending -= batch.records;
        accounting.written += written;
        accounting.dropped.add(Dropped::Duplicate, duplicate);
        accounting.dropped.add(Dropped::Storage, batch.records - written - duplicate);
    }

    /// Refuses further messages. Queued ones are still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn accounting(&self) -> Accounting {
        self.lock().accounting
    }
}

impl QueueState {
    /// Takes a batch from the front.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        if self.queued <= MAX_BATCH {
            batch.records = mem::take(&mut self.queued);
            batch.messages = mem::take(&mut self.messages).into();
            self.feedback = 0;
        } else {
            while batch.records < MAX_BATCH {
                let Some(message) = self.messages.pop_front() else { break };
                match &message {
                    Message::Entry(entry, _) => {
                        batch.records += u64::from(entry.predictions.rows);
                    }
                    Message::Feedback(items, _) => self.feedback -= items.len(),
                }
                batch.messages.push(message);
            }
            self.queued -= batch.records;
        }
        let entries = batch.messages.iter().map(|message| match message {
            Message::Entry(_, bytes) => *bytes,
            Message::Feedback(..) => 0,
        });
        batch.bytes = entries.sum();
        batch
    }
}

/// Charge of an entry, in bytes: approximately its heap memory.
fn charge(entry: &LogEntry) -> usize {
    const CONTEXT: usize = 256;
    let Predictions { model, version, rows: _, inputs, outputs, omitted, attributes } =
        &*entry.predictions;
    let texts = |texts: &[String]| -> usize {
        texts.iter().map(|text| text.len() + size_of::<String>()).sum()
    };
    let columns = |all: &[Columns]| -> usize {
        let columns = all.iter().map(|columns| {
            let values = match &columns.values {
                ColumnValues::Fp32(values) => values.len() * 4,
                ColumnValues::Fp64(values) => values.len() * 8,
                ColumnValues::Int64(values) => values.len() * 8,
                ColumnValues::Boolean(values) => values.len(),
                ColumnValues::Text(values) => texts(values),
            };
            size_of::<Columns>() + texts(&columns.names) + values
        });
        columns.sum()
    };
    let attributes = attributes.iter().map(|(key, value)| key.len() + value.len() + 48);
    CONTEXT
        + model.len()
        + version.len()
        + columns(inputs)
        + columns(outputs)
        + texts(omitted)
        + attributes.sum::<usize>()
}
