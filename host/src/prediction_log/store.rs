//! The open file, as the writer has it: a batch is one transaction. What a transaction changes of
//! the aggregates is returned, to be applied once it is committed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use rusqlite::{
    CachedStatement, Connection, OptionalExtension, Row as SqlRow, Transaction,
    TransactionBehavior, params,
};
use uuid::Uuid;

use super::feedback::{Item, Receipt, Rejection, Truth};
use super::json::{self, Row};
use super::models::{ModelInfo, Models, save};
use super::quality::{Change, Group, Quality, check, observe};
use super::queue::Message;
use super::record::{CacheOutcome, Entry};
use super::scalar::Members;
use super::schema::{self, Error};
use super::times::micros;

/// Sources whose number in the file is remembered: with more it is looked up again.
const MAX_SOURCES: usize = 10_000;
/// Feedback without a record that is remembered: beyond it, it is looked up for every record.
const MAX_UNMATCHED: usize = 100_000;

const INSERT: &str = "INSERT OR IGNORE INTO predictions (id, row, time, source, cache, status,
    latency_us, trace_id, inputs, outputs, attributes, omitted)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const FIND: &str = "SELECT s.model, s.version, s.experiment, s.variant, p.outputs
    FROM predictions p JOIN sources s ON s.id = p.source WHERE p.id = ?1 AND p.row = ?2";
const FIND_FEEDBACK: &str =
    "SELECT kind, label, number, time FROM feedback WHERE prediction_id = ?1 AND row = ?2";
const SET_FEEDBACK: &str = "INSERT INTO feedback
    (prediction_id, row, kind, label, number, time, received)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET label = ?4, number = ?5, time = ?6, received = ?7";
/// All feedback that has its record.
pub(super) const MATCHED: &str = "SELECT f.kind, f.label, f.number, f.time,
    s.model, s.version, s.experiment, s.variant, p.outputs
    FROM feedback f JOIN predictions p ON p.id = f.prediction_id AND p.row = f.row
    JOIN sources s ON s.id = p.source";

#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) models: Models,
    sources: Sources,
    unmatched: Unmatched,
    buffers: Buffers,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) records: u64,
    pub(super) duplicates: u64,
    pub(super) changes: Vec<Change>,
    /// One for each feedback message, in their order.
    pub(super) receipts: Vec<Receipt>,
    /// Records whose feedback came before them: it is counted at the end, whatever it is by then.
    matched: BTreeSet<(Uuid, u32)>,
    /// Feedback whose record is not in the file.
    unmatched: BTreeSet<(Uuid, u32)>,
}

#[derive(Debug, Default)]
struct Buffers {
    inputs: Vec<u8>,
    outputs: Vec<u8>,
    attributes: Vec<u8>,
    omitted: Vec<u8>,
}

impl Store {
    /// Opens the file at `path`, or makes it, and computes the aggregates of what is in it.
    pub(super) fn open(path: &Path, mounted: &[ModelInfo]) -> Result<(Self, Quality), Error> {
        let mut connection = schema::open(path)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for info in mounted {
            save(&transaction, info)?;
        }
        transaction.commit()?;
        let models = Models::load(&connection)?;
        let quality = compute(&connection, &models)?;
        let unmatched = Unmatched::load(&connection)?;
        let (sources, buffers) = (Sources::default(), Buffers::default());
        Ok((Self { connection, models, sources, unmatched, buffers }, quality))
    }

    /// Writes a batch, or nothing of it. `now` is in microseconds of Unix time.
    pub(super) fn write(&mut self, messages: &[Message], now: i64) -> Result<Written, Error> {
        let written = self.try_write(messages, now);
        match &written {
            Ok(written) => self.unmatched.update(&written.matched, &written.unmatched),
            // Numbers that were given in the transaction are gone with it.
            Err(_) => self.sources = Sources::default(),
        }
        written
    }

    fn try_write(&mut self, messages: &[Message], now: i64) -> Result<Written, Error> {
        let Self { connection, models, sources, unmatched, buffers } = self;
        // One that reads first and writes then could come too late to write.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut written = Written::default();
        let mut statement = transaction.prepare_cached(INSERT)?;
        for message in messages {
            match message {
                Message::Entry(entry, _) => {
                    let source = sources.number(&transaction, entry)?;
                    insert(&mut statement, entry, source, buffers, unmatched, &mut written)?;
                }
                Message::Feedback(items, _) => {
                    let receipt = store(&transaction, items, models, now, &mut written)?;
                    written.receipts.push(receipt);
                }
            }
        }
        drop(statement);
        // Those that came before their records.
        for &(id, row) in &written.matched {
            let Some((group, outputs)) = find(&transaction, id, row)? else { continue };
            let outputs = Members::of(&outputs);
            let mut statement = transaction.prepare_cached(FIND_FEEDBACK)?;
            let mut rows = statement.query(params![id.as_bytes(), row])?;
            while let Some(row) = rows.next()? {
                let Some((truth, _)) = truth(row)? else { continue };
                let info = models.get(&group.model, &group.version);
                let change =
                    |observation| Change { group: group.clone(), observation, added: true };
                written.changes.extend(observe(info, &outputs, &truth).map(change));
            }
        }
        transaction.commit()?;
        Ok(written)
    }
}

/// Inserts the records of `entry`.
fn insert(
    statement: &mut CachedStatement<'_>,
    entry: &Entry,
    source: i64,
    buffers: &mut Buffers,
    unmatched: &Unmatched,
    written: &mut Written,
) -> Result<(), Error> {
    let Entry { context, first_row, predictions } = entry;
    let (inputs, outputs) = (Row::new(&predictions.inputs), Row::new(&predictions.outputs));
    json::object(&predictions.attributes, &mut buffers.attributes);
    json::array(&predictions.omitted, &mut buffers.omitted);
    let omitted = (!predictions.omitted.is_empty()).then_some(&*buffers.omitted);
    let latency = i64::try_from(context.latency.as_micros()).unwrap_or(i64::MAX);
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
        ])?;
        if inserted == 0 {
            written.duplicates += 1;
            continue;
        }
        written.records += 1;
        let Ok(row) = u32::try_from(row) else { continue };
        if written.unmatched.remove(&(context.id, row)) || unmatched.may_hold(context.id, row) {
            written.matched.insert((context.id, row));
        }
    }
    Ok(())
}

/// What was written as JSON is UTF-8.
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

/// Stores feedback.
fn store(
    transaction: &Transaction<'_>,
    items: &[Item],
    models: &Models,
    now: i64,
    written: &mut Written,
) -> Result<Receipt, Error> {
    let mut receipt = Receipt::default();
    for Item { index, prediction_id: id, row, truth: new, time } in items {
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
        if old.as_ref().is_some_and(|(old, before)| !replaces((new, *time), (old, *before))) {
            continue;
        }
        let id_bytes = id.as_bytes();
        transaction.prepare_cached(SET_FEEDBACK)?.execute(params![
            id_bytes,
            row,
            new.kind(),
            new.label(),
            new.number(),
            time,
            now
        ])?;
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
                written.changes.push(Change { group: group.clone(), observation, added });
            }
        }
    }
    Ok(receipt)
}

/// Whether `new` counts rather than `old`: the later one does, and of two of the same time the
/// greater one, so that their order does not matter.
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
) -> rusqlite::Result<Option<(Group, String)>> {
    let mut statement = transaction.prepare_cached(FIND)?;
    let found =
        statement.query_row(params![id.as_bytes(), row], |row| Ok((group(row, 0)?, row.get(4)?)));
    found.optional()
}

fn group(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<Group> {
    Ok(Group {
        model: row.get(first)?,
        version: row.get(first + 1)?,
        experiment: row.get(first + 2)?,
        variant: row.get(first + 3)?,
    })
}

/// The feedback of `kind` that is stored, and its time.
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

/// From the columns kind, label, number and time; none if another program has written them.
pub(super) fn truth(row: &SqlRow<'_>) -> rusqlite::Result<Option<(Truth, i64)>> {
    let kind = row.get_ref(0)?.as_str()?;
    let (label, number): (Option<String>, Option<f64>) = (row.get(1)?, row.get(2)?);
    let time = row.get(3)?;
    let truth = match (kind, label, number) {
        ("label", Some(label), _) => Truth::Label(label),
        ("value", _, Some(number)) => Truth::Value(number),
        ("reward", _, Some(number)) => Truth::Reward(number),
        _ => return Ok(None),
    };
    Ok(Some((truth, time)))
}

/// The change that a row of [`MATCHED`] stands for.
pub(super) fn change(
    row: &SqlRow<'_>,
    models: &Models,
    added: bool,
) -> rusqlite::Result<Option<Change>> {
    let Some((truth, _)) = truth(row)? else { return Ok(None) };
    let group = group(row, 4)?;
    let outputs = Members::of(row.get_ref(8)?.as_str()?);
    let info = models.get(&group.model, &group.version);
    let observation = observe(info, &outputs, &truth);
    Ok(observation.map(|observation| Change { group, observation, added }))
}

/// The aggregates of everything that is in the file.
pub(super) fn compute(connection: &Connection, models: &Models) -> rusqlite::Result<Quality> {
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

/// The numbers of sources: what records of one model, route and variant have in common is stored
/// once.
#[derive(Debug, Default)]
struct Sources {
    hasher: RandomState,
    numbers: HashMap<u64, Vec<([String; 6], i64)>>,
    count: usize,
}

impl Sources {
    fn number(&mut self, transaction: &Transaction<'_>, entry: &Entry) -> Result<i64, Error> {
        let (context, predictions) = (&entry.context, &entry.predictions);
        let (experiment, variant) = match &context.exposure {
            None => ("", ""),
            Some(exposure) => (&*exposure.experiment, &*exposure.variant),
        };
        let key: [&str; 6] = [
            &predictions.model,
            &predictions.version,
            &context.route,
            &context.component,
            experiment,
            variant,
        ];
        let hash = self.hasher.hash_one(key);
        let known = self.numbers.get(&hash);
        if let Some((_, number)) = known.iter().flat_map(|all| *all).find(|(k, _)| *k == key) {
            return Ok(*number);
        }
        let mut statement = transaction.prepare_cached(
            "INSERT OR IGNORE INTO sources (model, version, route, component, experiment, variant)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        statement.execute(key)?;
        let mut statement = transaction.prepare_cached(
            "SELECT id FROM sources WHERE model = ?1 AND version = ?2 AND route = ?3
             AND component = ?4 AND experiment = ?5 AND variant = ?6",
        )?;
        let number = statement.query_row(key, |row| row.get(0))?;
        if self.count >= MAX_SOURCES {
            self.numbers.clear();
            self.count = 0;
        }
        self.count += 1;
        self.numbers.entry(hash).or_default().push((key.map(str::to_owned), number));
        Ok(number)
    }
}

/// Feedback whose record is not in the file: it may come yet.
#[derive(Debug, Default)]
struct Unmatched {
    keys: HashSet<(Uuid, u32)>,
    /// There are more than are remembered.
    more: bool,
}

impl Unmatched {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT prediction_id, row FROM feedback f WHERE NOT EXISTS
                (SELECT 1 FROM predictions p WHERE p.id = f.prediction_id AND p.row = f.row)
             LIMIT ?1",
        )?;
        let limit = i64::try_from(MAX_UNMATCHED + 1).unwrap_or(i64::MAX);
        let mut rows = statement.query([limit])?;
        let mut unmatched = Self::default();
        while let Some(row) = rows.next()? {
            let id = Uuid::from_slice(row.get_ref(0)?.as_blob()?);
            if let (Ok(id), Ok(row)) = (id, row.get(1)) {
                unmatched.update(&BTreeSet::new(), &[(id, row)].into());
            }
        }
        Ok(unmatched)
    }

    /// Whether there may be feedback for a record.
    fn may_hold(&self, id: Uuid, row: u32) -> bool {
        self.more || (!self.keys.is_empty() && self.keys.contains(&(id, row)))
    }

    fn update(&mut self, matched: &BTreeSet<(Uuid, u32)>, unmatched: &BTreeSet<(Uuid, u32)>) {
        for key in matched {
            self.keys.remove(key);
        }
        for key in unmatched {
            if self.keys.len() < MAX_UNMATCHED {
                self.keys.insert(*key);
            } else {
                self.more = true;
            }
        }
    }
}
