//! What is queued, and the batches that the writer takes.

use tokio::sync::oneshot;

use crate::prediction_log::feedback::{FeedbackItem, Receipt};
use crate::prediction_log::record::{ColumnValues, Columns, LogEntry, Predictions};

/// A queued message for the writer.
#[derive(Debug)]
pub(in crate::prediction_log) enum Message {
    Entry(LogEntry, Admission),
    Feedback(Vec<FeedbackItem>, oneshot::Sender<Result<Receipt, String>>),
}

/// How an entry is in the queue.
#[derive(Debug)]
pub(in crate::prediction_log) struct Admission {
    /// Charge to the queue's memory, in bytes.
    pub(in crate::prediction_log) bytes: usize,
    pub(in crate::prediction_log) guarantee: Guarantee,
}

/// What holds for an entry once it is accepted.
#[derive(Debug)]
pub(in crate::prediction_log) enum Guarantee {
    /// It is dropped if the file cannot be written.
    BestEffort,
    /// It is kept until it is on disk.
    Kept,
    /// The response waits until it is on disk, or for the reason why it is dropped.
    Awaited(oneshot::Sender<Result<(), String>>),
}

/// Messages that the writer takes at once.
#[derive(Debug, Default)]
pub(in crate::prediction_log) struct Batch {
    pub(in crate::prediction_log) messages: Vec<Message>,
    /// Number of records.
    pub(in crate::prediction_log) records: u64,
    /// Charge of the records, in bytes.
    pub(super) bytes: usize,
}

/// The accounting of a batch's records.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::prediction_log) struct Settlement {
    pub(in crate::prediction_log) written: u64,
    pub(in crate::prediction_log) duplicate: u64,
    pub(in crate::prediction_log) storage: u64,
}

impl Message {
    pub(in crate::prediction_log) fn entry(entry: LogEntry, guarantee: Guarantee) -> Self {
        let bytes = charge(&entry);
        Self::Entry(entry, Admission { bytes, guarantee })
    }

    /// Number of records, and their charge in bytes.
    pub(super) fn size(&self) -> (u64, usize) {
        match self {
            Self::Entry(entry, admission) => (u64::from(entry.predictions.rows), admission.bytes),
            Self::Feedback(..) => (0, 0),
        }
    }

    /// Whether a response waits until the entry is on disk.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Entry(_, Admission { guarantee: Guarantee::Awaited(_), .. }))
    }

    fn is_kept(&self) -> bool {
        matches!(self, Self::Entry(_, Admission { guarantee: Guarantee::Kept, .. }))
    }
}

impl Batch {
    pub(super) fn push(&mut self, message: Message) {
        let (records, bytes) = message.size();
        self.records += records;
        self.bytes += bytes;
        self.messages.push(message);
    }

    /// Adds the messages of `later` after those of this batch.
    pub(in crate::prediction_log) fn append(&mut self, mut later: Self) {
        if self.messages.is_empty() {
            *self = later;
            return;
        }
        self.messages.append(&mut later.messages);
        self.records += later.records;
        self.bytes += later.bytes;
    }

    /// Splits a batch that cannot be written into the entries that are kept, and the rest.
    pub(in crate::prediction_log) fn split_kept(self) -> (Self, Self) {
        let (mut kept, mut rest) = (Self::default(), Self::default());
        for message in self.messages {
            if message.is_kept() { kept.push(message) } else { rest.push(message) }
        }
        (kept, rest)
    }

    /// Whether it has entries whose loss a response rules out: they are written through to the disk.
    pub(in crate::prediction_log) fn has_guarantees(&self) -> bool {
        self.messages.iter().any(|message| message.is_kept() || message.is_awaited())
    }
}

/// Charge of an entry, in bytes: approximately its heap memory.
pub(super) fn charge(entry: &LogEntry) -> usize {
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
