//! The queue between requests and the writer, bounded by records and by bytes. Appending never
//! blocks; a request whose component asks for it waits for space instead. The queue also has the
//! log's accounting, which changes atomically under its lock, so that
//! accepted = written + dropped + pending in every snapshot.

mod accounting;
mod message;

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::feedback::{FeedbackItem, Receipt};
use super::record::LogEntry;
pub use accounting::{Accounting, Dropped, DroppedCounts};
pub(super) use message::{Admission, Batch, Guarantee, Message, Settlement};

/// Maximum number of records in one transaction, unless one entry has more.
pub const MAX_BATCH: u64 = 8192;
/// Time that the writer waits for more records before it writes a batch that no response waits for.
pub const BATCH_DELAY: Duration = Duration::from_millis(200);
/// Maximum number of queued feedback items. A request has at most 10,000.
pub const MAX_FEEDBACK: usize = 50_000;

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
    /// Number of queued records, without those that the writer has taken.
    queued: u64,
    /// Charge of the pending records, in bytes.
    bytes: usize,
    /// Number of queued feedback items.
    feedback: usize,
    /// Number of queued entries that responses wait for.
    awaited: usize,
    /// Requests that wait for space, the longest waiting first.
    waiting: VecDeque<WaitingRequest>,
    /// Number of requests that have waited for space.
    waited: u64,
    accounting: Accounting,
    /// Once the queue is closed: when the writer gives up what it cannot write.
    closed: Option<Instant>,
    writer: WriterState,
}

/// What the writer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WriterState {
    #[default]
    Busy,
    FirstMessage,
    FullBatch,
}

/// The entries of a request that wait for space.
#[derive(Debug)]
struct WaitingRequest {
    number: u64,
    messages: Vec<Message>,
    records: u64,
    bytes: usize,
    admitted: oneshot::Sender<()>,
}

/// The wait of a request for space. Its entries are withdrawn if it is dropped before.
#[derive(Debug)]
pub(super) struct RoomWait<'a> {
    queue: &'a RecordQueue,
    number: u64,
    admitted: oneshot::Receiver<()>,
}

/// The queue is closed: the host is shutting down.
#[derive(Debug)]
pub(super) struct QueueClosed;

impl RecordQueue {
    pub(super) fn new(max_records: u64, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), max_records, max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    /// Queues an entry. Returns false if its records were dropped, and counted, instead.
    pub(super) fn append(&self, entry: LogEntry) -> bool {
        let message = Message::entry(entry, Guarantee::BestEffort);
        let (records, bytes) = message.size();
        let mut state = self.lock();
        // Requests that wait come first.
        let full = !state.waiting.is_empty() || !self.fits(&state, records, bytes);
        if state.closed.is_some() || full {
            let reason =
                if state.closed.is_some() { Dropped::Shutdown } else { Dropped::QueueFull };
            state.accounting.accepted += records;
            state.accounting.dropped.add(reason, records);
            return false;
        }
        let before = state.queued;
        state.account(records, bytes);
        state.messages.push_back(message);
        let wake = state.must_wake(before);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        true
    }

    /// Queues all entries of one request, whose `messages` these are, or none yet: the request then
    /// waits for space. Entries that exceed the whole queue fit once nothing is pending.
    pub(super) fn submit(
        &self,
        messages: Vec<Message>,
    ) -> Result<Option<RoomWait<'_>>, QueueClosed> {
        let (mut records, mut bytes) = (0, 0);
        for size in messages.iter().map(Message::size) {
            records += size.0;
            bytes += size.1;
        }
        let mut state = self.lock();
        if state.closed.is_some() {
            return Err(QueueClosed);
        }
        if state.waiting.is_empty() && self.has_room(&state, records, bytes) {
            let before = state.queued;
            state.admit(messages, records, bytes);
            let wake = state.must_wake(before);
            drop(state);
            if wake {
                self.changed.notify_one();
            }
            return Ok(None);
        }
        let (admitted, receiver) = oneshot::channel();
        let number = state.waited;
        state.waited += 1;
        state.waiting.push_back(WaitingRequest { number, messages, records, bytes, admitted });
        Ok(Some(RoomWait { queue: self, number, admitted: receiver }))
    }

    fn fits(&self, state: &QueueState, records: u64, bytes: usize) -> bool {
        state.accounting.pending + records <= self.max_records
            && state.bytes + bytes <= self.max_bytes
    }

    fn has_room(&self, state: &QueueState, records: u64, bytes: usize) -> bool {
        state.accounting.pending == 0 || self.fits(state, records, bytes)
    }

    /// Queues feedback. Returns it as the error if too much is queued, or the log is closed.
    pub(super) fn feedback(
        &self,
        items: Vec<FeedbackItem>,
        reply: oneshot::Sender<Result<Receipt, String>>,
    ) -> Result<(), Vec<FeedbackItem>> {
        let mut state = self.lock();
        if state.closed.is_some() || state.feedback + items.len() > MAX_FEEDBACK {
            return Err(items);
        }
        state.feedback += items.len();
        state.messages.push_back(Message::Feedback(items, reply));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next batch to write. Waits up to `timeout` for the first message, and then
    /// [`BATCH_DELAY`] for more, unless a client waits: for feedback, or for a response whose records
    /// must be on disk. Such records form batches nevertheless, of those that arrive while the batch
    /// before is written. The batch is empty after a timeout; `None` once the queue is closed and
    /// empty.
    pub(super) fn next(&self, timeout: Duration) -> Option<Batch> {
        let mut state = self.lock();
        if state.messages.is_empty() && state.closed.is_none() {
            state.writer = WriterState::FirstMessage;
            let empty =
                |state: &mut QueueState| state.messages.is_empty() && state.closed.is_none();
            self.changed.wait_while_for(&mut state, empty, timeout);
        }
        if state.messages.is_empty() {
            state.writer = WriterState::Busy;
            return state.closed.is_none().then(Batch::default);
        }
        state.writer = WriterState::FullBatch;
        let end = Instant::now() + BATCH_DELAY;
        while !state.is_urgent() {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                break;
            }
            self.changed.wait_for(&mut state, remaining);
        }
        state.writer = WriterState::Busy;
        Some(state.take())
    }

    /// Settles the accounting of a batch, and queues the waiting requests that fit then.
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
        // The writer, which calls this, looks at the queue next: it needs no wake-up.
        while let Some(first) = state.waiting.front()
            && self.has_room(&state, first.records, first.bytes)
            && let Some(WaitingRequest { messages, records, bytes, admitted, .. }) =
                state.waiting.pop_front()
        {
            // Fails if the request has ended: its records would be those of no response.
            if admitted.send(()).is_ok() {
                state.admit(messages, records, bytes);
            }
        }
    }

    /// Refuses further messages. Queued ones are still written, for which the writer has until `end`.
    pub(super) fn close(&self, end: Instant) {
        let mut state = self.lock();
        state.closed.get_or_insert(end);
        // Their requests see the channel close.
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Once the queue is closed: when the writer gives up what it cannot write.
    pub(super) fn closed(&self) -> Option<Instant> {
        self.lock().closed
    }

    pub(super) fn accounting(&self) -> Accounting {
        self.lock().accounting
    }
}

impl QueueState {
    /// Accounts for records that are accepted.
    fn account(&mut self, records: u64, bytes: usize) {
        self.accounting.accepted += records;
        self.accounting.pending += records;
        self.bytes += bytes;
        self.queued += records;
    }

    /// Queues the entries of a request.
    fn admit(&mut self, messages: Vec<Message>, records: u64, bytes: usize) {
        self.account(records, bytes);
        self.awaited += messages.iter().filter(|message| message.is_awaited()).count();
        self.messages.extend(messages);
    }

    /// Whether the writer must be woken for new records, if `before` were queued without them. A
    /// wake-up costs more than the rest of an append.
    fn must_wake(&self, before: u64) -> bool {
        match self.writer {
            WriterState::Busy => false,
            WriterState::FirstMessage => true,
            WriterState::FullBatch => {
                self.awaited > 0 || (before < MAX_BATCH && self.queued >= MAX_BATCH)
            }
        }
    }

    /// Whether the queued messages are written at once.
    fn is_urgent(&self) -> bool {
        self.closed.is_some() || self.feedback > 0 || self.awaited > 0 || self.queued >= MAX_BATCH
    }

    /// Takes a batch from the front.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        if self.queued <= MAX_BATCH {
            batch.records = mem::take(&mut self.queued);
            batch.messages = mem::take(&mut self.messages).into();
            batch.bytes = batch.messages.iter().map(|message| message.size().1).sum();
            (self.feedback, self.awaited) = (0, 0);
            return batch;
        }
        while batch.records < MAX_BATCH {
            let Some(message) = self.messages.pop_front() else { break };
            if let Message::Feedback(items, _) = &message {
                self.feedback -= items.len();
            }
            self.awaited -= usize::from(message.is_awaited());
            batch.push(message);
        }
        self.queued -= batch.records;
        batch
    }
}

impl RoomWait<'_> {
    /// Returns once the entries are queued.
    pub(super) async fn admitted(mut self) -> Result<(), QueueClosed> {
        (&mut self.admitted).await.map_err(|_| QueueClosed)
    }
}

impl Drop for RoomWait<'_> {
    fn drop(&mut self) {
        let waiting = &mut self.queue.lock().waiting;
        if let Ok(index) = waiting.binary_search_by_key(&self.number, |request| request.number) {
            waiting.remove(index);
        }
    }
}
