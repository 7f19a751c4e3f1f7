//! The writer's open file. A batch is one transaction. Its changes of the aggregates are returned,
//! to be applied once it is committed.

mod feedback;
mod sources;
pub(super) mod units;
mod unmatched;

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{CachedStatement, Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::epochs::{self, EpochPart};
use super::feedback::Receipt;
use super::json::{self, KnownKeys, RowNames};
use super::models::{LoggedModels, ModelInfo, save};
use super::quality::{Quality, QualityChange};
use super::queue::Message;
use super::record::{CacheOutcome, LogEntry};
use super::schema::{self, SchemaError};
use super::sinks::outbox::{self, Outgoing, RECORD};
use super::times::micros;
pub(super) use feedback::{MATCHED, change, compute, truth};
pub(super) use sources::{SourceKey, Sources};
use unmatched::Unmatched;

/// Inserts a record, unless the file has it.
pub(super) const INSERT: &str = "INSERT OR IGNORE INTO predictions (id, row, time, source, cache, status,
    latency_us, trace_id, inputs, outputs, attributes, omitted, unit, propensity, failed_over, sample,
    epoch)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";

#[derive(Debug)]
pub(super) struct LogStore {
    pub(super) connection: Connection,
    pub(super) models: LoggedModels,
    sources: Sources,
    unmatched: Unmatched,
    buffers: Buffers,
    durability: Durability,
    /// Whether there are sinks, for which the outbox is filled.
    has_sinks: bool,
}

/// What a committed batch survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// The end of this process; that of the system once the write-ahead log is next copied into the
    /// file.
    Process,
    /// The end of the system: the write-ahead log is written through to the disk.
    Disk,
}

/// The result of a batch.
#[derive(Debug, Default)]
pub(super) struct WrittenBatch {
    pub(super) records: u64,
    pub(super) duplicates: u64,
    pub(super) changes: Vec<QualityChange>,
    /// One receipt per feedback message, in their order.
    pub(super) receipts: Vec<Receipt>,
    /// Records whose feedback arrived first. It is counted at the end of the batch, in its final
    /// state.
    matched: BTreeSet<(Uuid, u32)>,
    /// Feedback whose record is not in the file.
    unmatched: BTreeSet<(Uuid, u32)>,
    /// What sinks receive, in order; `None` without sinks.
    outgoing: Option<Vec<Outgoing>>,
    /// Number of the last entry that was added to the outbox.
    pub(super) last_outgoing: Option<i64>,
    /// The epoch of the batch, and what the batch adds to it.
    epoch: i64,
    part: EpochPart,
}

#[derive(Debug, Default)]
struct Buffers {
    keys: KnownKeys,
    inputs: Vec<u8>,
    outputs: Vec<u8>,
    attributes: Vec<u8>,
    omitted: Vec<u8>,
}

impl LogStore {
    /// Opens or creates the file at `path`, which has sinks of these names, and computes the
    /// aggregates of its contents.
    pub(super) fn open(
        path: &Path,
        mounted: &[ModelInfo],
        sinks: &[String],
    ) -> Result<(Self, Quality), SchemaError> {
        let mut connection = schema::open(path)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for info in mounted {
            save(&transaction, info)?;
        }
        outbox::configure(&transaction, sinks)?;
        transaction.commit()?;
        let models = LoggedModels::load(&connection)?;
        let quality = compute(&connection, &models)?;
        let unmatched = Unmatched::load(&connection)?;
        let (sources, buffers) = (Sources::default(), Buffers::default());
        let (durability, has_sinks) = (Durability::Process, !sinks.is_empty());
        Ok((
            Self { connection, models, sources, unmatched, buffers, durability, has_sinks },
            quality,
        ))
    }

    /// Writes the file without changing its content, to find out whether it can be written.
    pub(super) fn probe(&self) -> Result<(), SchemaError> {
        // SQLite writes the page of this number even if it stays the same.
        Ok(self.connection.pragma_update(None, "user_version", schema::VERSION)?)
    }

    /// Writes a batch atomically. `now` is in microseconds of Unix time.
    pub(super) fn write(
        &mut self,
        messages: &[Message],
        now: i64,
        durability: Durability,
    ) -> Result<WrittenBatch, SchemaError> {
        if self.durability != durability {
            let synchronous = match durability {
                Durability::Process => "normal",
                Durability::Disk => "full",
            };
            self.connection.pragma_update(None, "synchronous", synchronous)?;
            self.durability = durability;
        }
        let written = self.try_write(messages, now);
        match &written {
            Ok(written) => self.unmatched.update(&written.matched, &written.unmatched),
            // Source numbers of the transaction are rolled back with it.
            Err(_) => self.sources = Sources::default(),
        }
        written
    }

    fn try_write(&mut self, messages: &[Message], now: i64) -> Result<WrittenBatch, SchemaError> {
        let Self { connection, models, sources, unmatched, buffers, durability: _, has_sinks } =
            self;
        // Locks at the start: a transaction that reads before it writes may fail to upgrade its
        // lock.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let epoch = epochs::present(&transaction)?;
        let outgoing = has_sinks.then(Vec::new);
        let mut written = WrittenBatch { outgoing, epoch, ..WrittenBatch::default() };
        let mut statement = transaction.prepare_cached(INSERT)?;
        for message in messages {
            match message {
                Message::Entry(entry, _) => {
                    let source = sources.number(&transaction, source_of(entry))?;
                    let before = written.records;
                    insert(&mut statement, entry, source, buffers, unmatched, &mut written)?;
                    if written.records > before {
                        units::expose(&transaction, entry, written.records - before)?;
                    }
                }
                Message::Feedback(items, _) => {
                    let receipt = feedback::store(&transaction, items, models, now, &mut written)?;
                    written.receipts.push(receipt);
                }
            }
        }
        drop(statement);
        feedback::count_matched(&transaction, models, &mut written)?;
        if let Some(outgoing) = written.outgoing.take().filter(|entries| !entries.is_empty()) {
            written.last_outgoing = Some(outbox::append(&transaction, &outgoing, now)?);
        }
        epochs::extend(&transaction, epoch, written.part)?;
        transaction.commit()?;
        Ok(written)
    }
}

/// What the records of `entry` have in common with others.
fn source_of(entry: &LogEntry) -> SourceKey<'_> {
    let LogEntry { context, first_row: _, predictions } = entry;
    let (experiment, variant) = match &context.exposure {
        None => ("", ""),
        Some(exposure) => (&*exposure.experiment, &*exposure.variant),
    };
    let (model, version) = (&predictions.model, &predictions.version);
    [model, version, &context.route, &context.component, experiment, variant]
}

/// Inserts the records of `entry`.
fn insert(
    statement: &mut CachedStatement<'_>,
    entry: &LogEntry,
    source: i64,
    buffers: &mut Buffers,
    unmatched: &Unmatched,
    written: &mut WrittenBatch,
) -> Result<(), SchemaError> {
    let LogEntry { context, first_row, predictions } = entry;
    let inputs = RowNames::new(&predictions.inputs, &mut buffers.keys);
    let outputs = RowNames::new(&predictions.outputs, &mut buffers.keys);
    json::object(&predictions.attributes, &mut buffers.attributes);
    json::array(&predictions.omitted, &mut buffers.omitted);
    let omitted = (!predictions.omitted.is_empty()).then_some(&*buffers.omitted);
    let latency = i64::try_from(context.latency.as_micros()).unwrap_or(i64::MAX);
    let exposure = context.exposure.as_ref();
    for index in 0..predictions.rows {
        inputs.write(index as usize, &mut buffers.inputs);
        outputs.write(index as usize, &mut buffers.outputs);
        let row = i64::from(*first_row) + i64::from(index);
        let inserted = statement.execute(params![
            context.id.as_bytes(),
            row,
            micros(context.time),
            source,
            cache_name(context.cache),
            context.status,
            latency,
            context.trace_id,
            text(&buffers.inputs),
            text(&buffers.outputs),
            text(&buffers.attributes),
            omitted.map(text),
            exposure.and_then(|exposure| exposure.unit.as_deref()),
            exposure.and_then(|exposure| exposure.propensity),
            exposure.and_then(|exposure| exposure.failed_over.as_deref()),
            context.sample,
            written.epoch,
        ])?;
        if inserted == 0 {
            written.duplicates += 1;
            continue;
        }
        written.records += 1;
        written.part.add_record(context.id);
        let Ok(row) = u32::try_from(row) else { continue };
        if let Some(outgoing) = &mut written.outgoing {
            outgoing.push(Outgoing { kind: RECORD, id: context.id, row });
        }
        if written.unmatched.remove(&(context.id, row)) || unmatched.may_contain(context.id, row) {
            written.matched.insert((context.id, row));
        }
    }
    Ok(())
}

/// JSON as text: it was written here, and so is UTF-8.
fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap_or("null")
}

fn cache_name(outcome: CacheOutcome) -> &'static str {
    match outcome {
        CacheOutcome::Hit => "hit",
        CacheOutcome::Collapsed => "collapsed",
        CacheOutcome::Miss => "miss",
        CacheOutcome::Bypass => "bypass",
    }
}
