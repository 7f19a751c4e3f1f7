//! The writer's open file. A batch is one transaction. Its changes of the aggregates are returned,
//! to be applied once it is committed.

mod sources;
pub(super) mod units;
mod unmatched;

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{
    CachedStatement, Connection, OptionalExtension, Row as SqlRow, Transaction,
    TransactionBehavior, params,
};
use uuid::Uuid;

use super::epochs::{self, EpochPart};
use super::feedback::{FeedbackItem, Receipt, Rejection, Truth, observed_at};
use super::json::{self, KnownKeys, RowNames};
use super::models::{LoggedModels, ModelInfo, save};
use super::quality::{Quality, QualityChange, QualityGroup, check, observe};
use super::queue::Message;
use super::record::{CacheOutcome, LogEntry};
use super::scalar::Members;
use super::schema::{self, SchemaError};
use super::sinks::outbox::{self, Outgoing, RECORD};
use super::times::micros;
pub(super) use sources::{SourceKey, Sources};
use unmatched::Unmatched;

/// Inserts a record, unless the file has it.
pub(super) const INSERT: &str = "INSERT OR IGNORE INTO predictions (id, row, time, source, cache, status,
    latency_us, trace_id, inputs, outputs, attributes, omitted, unit, propensity, failed_over, sample,
    epoch)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
const FIND: &str = "SELECT s.model, s.version, s.experiment, s.variant, p.outputs
    FROM predictions p JOIN sources s ON s.id = p.source WHERE p.id = ?1 AND p.row = ?2";
const FIND_FEEDBACK: &str = "SELECT kind, label, number, time, received FROM feedback WHERE prediction_id = ?1 AND row = ?2";
const SET_FEEDBACK: &str = "INSERT INTO feedback
    (prediction_id, row, kind, label, number, time, received, epoch)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT DO UPDATE SET label = ?4, number = ?5, time = ?6, received = ?7, epoch = ?8";
/// Selects all feedback that has a record.
pub(super) const MATCHED: &str = "SELECT f.kind, f.label, f.number, f.time, f.received,
    s.model, s.version, s.experiment, s.variant, p.outputs
    FROM feedback f JOIN predictions p ON p.id = f.prediction_id AND p.row = f.row
    JOIN sources s ON s.id = p.source";

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
                    let receipt = store_feedback(&transaction, items, models, now, &mut written)?;
                    written.receipts.push(receipt);
                }
            }
        }
        drop(statement);
        // Feedback that arrived before its record.
        for &(id, index) in &written.matched {
            let Some((group, outputs)) = find(&transaction, id, index)? else { continue };
            let outputs = Members::of(&outputs);
            let mut statement = transaction.prepare_cached(FIND_FEEDBACK)?;
            let mut rows = statement.query(params![id.as_bytes(), index])?;
            while let Some(row) = rows.next()? {
                let Some((truth, _)) = truth(row)? else { continue };
                let info = models.get(&group.model, &group.version);
                let Some(observation) = observe(info, &outputs, &truth) else { continue };
                units::observe(&transaction, (id, index), &group, &observation, true)?;
                let group = group.clone();
                written.changes.push(QualityChange { group, observation, added: true });
            }
        }
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

/// Stores feedback items.
fn store_feedback(
    transaction: &Transaction<'_>,
    items: &[FeedbackItem],
    models: &LoggedModels,
    now: i64,
    written: &mut WrittenBatch,
) -> Result<Receipt, SchemaError> {
    let mut receipt = Receipt::default();
    for FeedbackItem { index, prediction_id: id, row, truth: new, time } in items {
        let record = find(transaction, *id, *row)?;
        let known = record.as_ref().map(|(group, outputs)| (group, Members::of(outputs)));
        if let Some((group, outputs)) = &known {
            let info = models.get(&group.model, &group.version);
            if let Err(error) = check(info, group, outputs, new) {
                receipt.rejected.push(Rejection { index: *index, error });
                continue;
            }
        }
        let old = stored(transaction, *id, *row, new.kind())?;
        receipt.accepted += 1;
        receipt.unknown += usize::from(known.is_none());
        if let Some((old, before)) = &old {
            let replaces = replaces((new, *time), (old, *before));
            receipt.replaced += usize::from(replaces && old != new);
            receipt.unchanged += usize::from(!replaces || old == new);
            if !replaces {
                continue;
            }
        }
        let id_bytes = id.as_bytes();
        transaction.prepare_cached(SET_FEEDBACK)?.execute(params![
            id_bytes,
            row,
            new.kind(),
            new.label(),
            new.number(),
            time,
            now,
            written.epoch
        ])?;
        if let Some(outgoing) = &mut written.outgoing {
            outgoing.push(Outgoing { kind: new.kind(), id: *id, row: *row });
        }
        written.part.feedback += 1;
        let Some((group, outputs)) = known else {
            written.unmatched.insert((*id, *row));
            continue;
        };
        if written.matched.contains(&(*id, *row)) {
            continue;
        }
        let old = old.map(|(old, _)| old);
        if old.as_ref() == Some(new) {
            continue;
        }
        let info = models.get(&group.model, &group.version);
        for (truth, added) in old.iter().map(|old| (old, false)).chain([(new, true)]) {
            if let Some(observation) = observe(info, &outputs, truth) {
                units::observe(transaction, (*id, *row), group, &observation, added)?;
                written.changes.push(QualityChange { group: group.clone(), observation, added });
            }
        }
    }
    Ok(receipt)
}

/// Whether `new` replaces `old`: the later one wins, and of the same time the greater one, so that
/// the order of arrival does not matter.
fn replaces(new: (&Truth, i64), old: (&Truth, i64)) -> bool {
    if new.1 != old.1 {
        return new.1 > old.1;
    }
    match (new.0, old.0) {
        (Truth::Label(new), Truth::Label(old)) => new > old,
        _ => new.0.number() > old.0.number(),
    }
}

/// The group and the outputs of a record.
fn find(
    transaction: &Transaction<'_>,
    id: Uuid,
    row: u32,
) -> rusqlite::Result<Option<(QualityGroup, String)>> {
    let mut statement = transaction.prepare_cached(FIND)?;
    let found =
        statement.query_row(params![id.as_bytes(), row], |row| Ok((group(row, 0)?, row.get(4)?)));
    found.optional()
}

fn group(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<QualityGroup> {
    Ok(QualityGroup {
        model: row.get(first)?,
        version: row.get(first + 1)?,
        experiment: row.get(first + 2)?,
        variant: row.get(first + 3)?,
    })
}

/// The stored feedback of `kind`, and when it was known.
fn stored(
    transaction: &Transaction<'_>,
    id: Uuid,
    row: u32,
    kind: &str,
) -> rusqlite::Result<Option<(Truth, i64)>> {
    let mut statement = transaction.prepare_cached(FIND_FEEDBACK)?;
    let mut rows = statement.query(params![id.as_bytes(), row])?;
    while let Some(row) = rows.next()? {
        if let Some((truth, time)) = truth(row)?
            && truth.kind() == kind
        {
            return Ok(Some((truth, time)));
        }
    }
    Ok(None)
}

/// Reads the columns kind, label, number, time and received: the truth, and when it was known. `None` if
/// they are invalid: another program has written them.
pub(super) fn truth(row: &SqlRow<'_>) -> rusqlite::Result<Option<(Truth, i64)>> {
    let kind = row.get_ref(0)?.as_str()?;
    let (label, number): (Option<String>, Option<f64>) = (row.get(1)?, row.get(2)?);
    let time = observed_at(row.get(3)?, row.get(4)?);
    let truth = match (kind, label, number) {
        ("label", Some(label), _) => Truth::Label(label),
        ("value", _, Some(number)) => Truth::Value(number),
        ("reward", _, Some(number)) => Truth::Reward(number),
        _ => return Ok(None),
    };
    Ok(Some((truth, time)))
}

/// The change of the aggregates by a row of [`MATCHED`].
pub(super) fn change(
    row: &SqlRow<'_>,
    models: &LoggedModels,
    added: bool,
) -> rusqlite::Result<Option<QualityChange>> {
    let Some((truth, _)) = truth(row)? else { return Ok(None) };
    let group = group(row, 5)?;
    let outputs = Members::of(row.get_ref(9)?.as_str()?);
    let info = models.get(&group.model, &group.version);
    let observation = observe(info, &outputs, &truth);
    Ok(observation.map(|observation| QualityChange { group, observation, added }))
}

/// Computes the aggregates of the whole file.
pub(super) fn compute(connection: &Connection, models: &LoggedModels) -> rusqlite::Result<Quality> {
    let mut quality = Quality::default();
    let mut statement = connection.prepare(MATCHED)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(change) = change(row, models, true)? {
            quality.apply(&change);
        }
    }
    Ok(quality)
}
