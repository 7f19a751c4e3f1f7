//! Feedback in the file: its order, and the aggregates that it changes.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, Transaction, params};
use uuid::Uuid;

use super::{WrittenBatch, units};
use crate::prediction_log::feedback::{FeedbackItem, Receipt, Rejection, Truth, observed_at};
use crate::prediction_log::models::LoggedModels;
use crate::prediction_log::quality::{Quality, QualityChange, QualityGroup, check, observe};
use crate::prediction_log::scalar::Members;
use crate::prediction_log::schema::SchemaError;
use crate::prediction_log::sinks::outbox::Outgoing;

const FIND: &str = "SELECT s.model, s.version, s.experiment, s.variant, p.outputs
    FROM predictions p JOIN sources s ON s.id = p.source WHERE p.id = ?1 AND p.row = ?2";
const FIND_FEEDBACK: &str = "SELECT kind, label, number, time, received FROM feedback WHERE prediction_id = ?1 AND row = ?2";
const SET_FEEDBACK: &str = "INSERT INTO feedback
    (prediction_id, row, kind, label, number, time, received, epoch)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT DO UPDATE SET label = ?4, number = ?5, time = ?6, received = ?7, epoch = ?8";
/// Selects all feedback that has a record.
pub(in crate::prediction_log) const MATCHED: &str =
    "SELECT f.kind, f.label, f.number, f.time, f.received,
    s.model, s.version, s.experiment, s.variant, p.outputs
    FROM feedback f JOIN predictions p ON p.id = f.prediction_id AND p.row = f.row
    JOIN sources s ON s.id = p.source";

/// Stores feedback items.
pub(super) fn store(
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

/// Counts the feedback that arrived before its record, which the batch has: in its final state.
pub(super) fn count_matched(
    transaction: &Transaction<'_>,
    models: &LoggedModels,
    written: &mut WrittenBatch,
) -> Result<(), SchemaError> {
    for &(id, index) in &written.matched {
        let Some((group, outputs)) = find(transaction, id, index)? else { continue };
        let outputs = Members::of(&outputs);
        let mut statement = transaction.prepare_cached(FIND_FEEDBACK)?;
        let mut rows = statement.query(params![id.as_bytes(), index])?;
        while let Some(row) = rows.next()? {
            let Some((truth, _)) = truth(row)? else { continue };
            let info = models.get(&group.model, &group.version);
            let Some(observation) = observe(info, &outputs, &truth) else { continue };
            units::observe(transaction, (id, index), &group, &observation, true)?;
            let group = group.clone();
            written.changes.push(QualityChange { group, observation, added: true });
        }
    }
    Ok(())
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
pub(in crate::prediction_log) fn truth(row: &SqlRow<'_>) -> rusqlite::Result<Option<(Truth, i64)>> {
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
pub(in crate::prediction_log) fn change(
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
pub(in crate::prediction_log) fn compute(
    connection: &Connection,
    models: &LoggedModels,
) -> rusqlite::Result<Quality> {
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
