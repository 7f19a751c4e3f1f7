//! Deletes records that are too old or too many, the oldest first, in steps between the writer's
//! batches.

mod clock;

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::models::LoggedModels;
use super::quality::QualityChange;
use super::schema::SchemaError;
use super::store::{MATCHED, change, units};
use super::times::first_id;
pub(super) use clock::RetentionClock;

/// Numbers of records deleted in one step, of which the largest available one is used. The first is
/// larger than a batch, so that deletion keeps up with writing.
const STEPS: [i64; 4] = [16_384, 1_024, 32, 1];
/// Maximum number of feedback items without a record deleted in one step.
const FEEDBACK_STEP: i64 = 16_384;
/// Size at which deletion by size stops, in percent of the maximum.
const LOW_WATER: u64 = 95;
/// Number of pages released to the file system in one step.
const VACUUM_PAGES: u32 = 256;
/// Free pages are released if they are more than 1 in 8 pages: a log at its maximum size reuses
/// them.
const FREE_PAGES: u64 = 8;

/// Stores the time by which records expired, if it differs from the stored one by more than follows.
const SAVE_TIME: &str = "INSERT INTO retention VALUES (1, ?1)
    ON CONFLICT DO UPDATE SET time = ?1 WHERE abs(?1 - time)";
/// Difference from which on it is stored again, in microseconds: an idle log is not written each minute.
const TIME_STEP: i64 = 600 * 1_000_000;

/// The limits of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Maximum age of a record.
    pub max_age: Duration,
    /// Maximum size of the file, in bytes.
    pub max_size: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(30 * 24 * 60 * 60), max_size: 1 << 30 }
    }
}

/// The result of a step.
#[derive(Debug, Default)]
pub(super) struct RetentionStep {
    pub(super) changes: Vec<QualityChange>,
    /// Whether more must be deleted.
    pub(super) more: bool,
}

/// Whether deletion by size is in progress: it starts at the maximum size and stops at the
/// low-water mark.
#[derive(Debug, Default)]
pub(super) struct RetentionState {
    shrinking: bool,
}

impl RetentionState {
    /// Takes a step: by size, and also by age if `by_age`. `now` is in microseconds of Unix time.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        models: &LoggedModels,
        retention: Retention,
        now: i64,
        by_age: bool,
    ) -> Result<RetentionStep, SchemaError> {
        let pages = Pages::of(connection)?;
        let low = retention.max_size / 100 * LOW_WATER;
        self.shrinking = pages.used() > if self.shrinking { low } else { retention.max_size };
        let max_age = i64::try_from(retention.max_age.as_micros()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(max_age);
        let mut step = RetentionStep::default();
        if self.shrinking || by_age {
            let behavior = TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(behavior)?;
            if by_age {
                expire(&transaction, models, oldest, &mut step)?;
                let save = format!("{SAVE_TIME} > {TIME_STEP}");
                transaction.prepare_cached(&save)?.execute([now])?;
                units::expire(&transaction, oldest)?;
            }
            if self.shrinking && !step.more {
                shrink(&transaction, models, &mut step)?;
            }
            transaction.commit()?;
        }
        if !step.more && pages.free > pages.all / FREE_PAGES {
            release_pages(connection)?;
            step.more = true;
        }
        Ok(step)
    }
}

/// The time by which records expired last, or that of the newest record; `None` without either.
pub(super) fn last_time(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let query = "SELECT coalesce((SELECT time FROM retention),
        (SELECT time FROM predictions ORDER BY id DESC, row DESC LIMIT 1))";
    connection.query_row(query, [], |row| row.get(0))
}

/// Releases free pages to the file system.
fn release_pages(connection: &Connection) -> rusqlite::Result<()> {
    // Each step of the statement releases one page.
    let mut statement =
        connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    // The file shrinks at a checkpoint.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

struct Pages {
    size: u64,
    all: u64,
    free: u64,
}

impl Pages {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |name: &str| {
            let number: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
            Ok::<_, rusqlite::Error>(u64::try_from(number).unwrap_or(0))
        };
        Ok(Self {
            size: number("page_size")?,
            all: number("page_count")?,
            free: number("freelist_count")?,
        })
    }

    /// Size of the used pages, in bytes.
    fn used(&self) -> u64 {
        self.all.saturating_sub(self.free) * self.size
    }
}

/// Key of the first record that a step does not delete.
type StepEnd = (Vec<u8>, i64);

fn expire(
    transaction: &Transaction<'_>,
    models: &LoggedModels,
    oldest: i64,
    step: &mut RetentionStep,
) -> Result<(), SchemaError> {
    let age = first_id(oldest);
    let count: i64 = transaction.query_row(
        "SELECT count(*) FROM (SELECT 1 FROM predictions WHERE id < ?1 LIMIT ?2)",
        params![age.as_bytes(), STEPS[0] + 1],
        |row| row.get(0),
    )?;
    if count > STEPS[0] {
        if let Some(end) = nth(transaction, STEPS[0])? {
            delete(transaction, models, &end, step)?;
        }
        step.more = true;
    } else if count > 0 {
        delete(transaction, models, &(age.as_bytes().to_vec(), 0), step)?;
    }
    let deleted = transaction.execute(
        "DELETE FROM feedback WHERE (prediction_id, row, kind) IN
            (SELECT prediction_id, row, kind FROM feedback f WHERE received < ?1 AND NOT EXISTS
                (SELECT 1 FROM predictions p WHERE p.id = f.prediction_id AND p.row = f.row)
             LIMIT ?2)",
        params![oldest, FEEDBACK_STEP],
    )?;
    step.more |= i64::try_from(deleted).unwrap_or(0) == FEEDBACK_STEP;
    Ok(())
}

fn shrink(
    transaction: &Transaction<'_>,
    models: &LoggedModels,
    step: &mut RetentionStep,
) -> Result<(), SchemaError> {
    step.more = true;
    for size in STEPS {
        if let Some(end) = nth(transaction, size)? {
            return delete(transaction, models, &end, step);
        }
    }
    // At most one record is left: the rest is feedback.
    let deleted = transaction.execute(
        "DELETE FROM feedback WHERE (prediction_id, row, kind) IN
            (SELECT prediction_id, row, kind FROM feedback ORDER BY received LIMIT ?1)",
        [FEEDBACK_STEP],
    )?;
    step.more = deleted > 0;
    Ok(())
}

/// The key of the record after the `count` oldest.
fn nth(transaction: &Transaction<'_>, count: i64) -> rusqlite::Result<Option<StepEnd>> {
    let query = "SELECT id, row FROM predictions ORDER BY id, row LIMIT 1 OFFSET ?1";
    let mut statement = transaction.prepare_cached(query)?;
    statement.query_row([count], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Deletes all records before `end`, and their feedback.
fn delete(
    transaction: &Transaction<'_>,
    models: &LoggedModels,
    end: &StepEnd,
    step: &mut RetentionStep,
) -> Result<(), SchemaError> {
    let query = format!("{MATCHED} WHERE (f.prediction_id, f.row) < (?1, ?2)");
    let mut statement = transaction.prepare_cached(&query)?;
    let mut rows = statement.query(params![end.0, end.1])?;
    while let Some(row) = rows.next()? {
        step.changes.extend(change(row, models, false)?);
    }
    for statement in [
        "DELETE FROM feedback WHERE (prediction_id, row) < (?1, ?2) AND EXISTS
            (SELECT 1 FROM predictions p WHERE p.id = prediction_id AND p.row = feedback.row)",
        "DELETE FROM predictions WHERE (id, row) < (?1, ?2)",
    ] {
        transaction.prepare_cached(statement)?.execute(params![end.0, end.1])?;
    }
    Ok(())
}
