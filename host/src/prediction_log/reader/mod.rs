//! Reads the records of the file in the order of their ids, which for one host is the order of
//! their times. Memory is independent of the number of records.

mod filter;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::types::FromSql;
use rusqlite::{
    Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params, params_from_iter,
};
use uuid::Uuid;

use super::feedback::{Truth, observed_at};
use super::schema::{self, SchemaError};
use super::store::truth;
use super::times::micros_of;
pub use filter::{ExportSlice, Filter};
pub use record::{Member, StoredFeedback, StoredRecord};

/// A stored row of feedback.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackRow {
    pub prediction_id: Uuid,
    pub row: i64,
    pub truth: Truth,
    /// When it was known, in microseconds of Unix time.
    pub time: i64,
    /// When it was stored, in microseconds of Unix time.
    pub received: i64,
}

/// Microseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// The days with records, by model and version.
pub type Partitions = BTreeMap<(String, String), BTreeSet<i64>>;

/// The columns of a record, in the order of the members of [`StoredRecord`].
const COLUMNS: &str = "p.id, p.row, p.time, s.model, s.version, s.route, s.component,
    nullif(s.experiment, ''), nullif(s.variant, ''), p.unit, p.propensity, p.failed_over, p.cache,
    p.status, p.latency_us, p.sample, p.trace_id, p.inputs, p.outputs, p.attributes, p.omitted";
const FEEDBACK: &str = ", l.label, v.number, r.number";
const TABLES: &str = " FROM predictions p JOIN sources s ON s.id = p.source";
const JOIN_FEEDBACK: &str = "
    LEFT JOIN feedback l ON l.prediction_id = p.id AND l.row = p.row AND l.kind = 'label'
    LEFT JOIN feedback v ON v.prediction_id = p.id AND v.row = p.row AND v.kind = 'value'
    LEFT JOIN feedback r ON r.prediction_id = p.id AND r.row = p.row AND r.kind = 'reward'";

/// The log's file, opened for reading.
#[derive(Debug)]
pub struct LogReader {
    connection: Connection,
    path: PathBuf,
}

/// A consistent view of the log at one moment: later writes and deletions are not visible.
#[derive(Debug)]
pub struct LogSnapshot<'a> {
    transaction: Transaction<'a>,
    has_feedback: bool,
}

impl LogReader {
    /// Opens the file at `path`; `None` if nothing was logged there yet.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or belongs to another program or a later version.
    pub fn open(path: &Path) -> Result<Option<Self>, SchemaError> {
        let connection = schema::open_to_read(path)?;
        Ok(connection.map(|connection| Self { connection, path: path.to_owned() }))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn snapshot(&mut self) -> Result<LogSnapshot<'_>, SchemaError> {
        let behavior = TransactionBehavior::Deferred;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        // The transaction starts with its first query.
        let query = "SELECT EXISTS (SELECT 1 FROM feedback)";
        let has_feedback = transaction.query_row(query, [], |row| row.get(0))?;
        Ok(LogSnapshot { transaction, has_feedback })
    }
}

impl LogSnapshot<'_> {
    pub(super) fn connection(&self) -> &Connection {
        &self.transaction
    }

    /// Calls `take` for every matching record, the oldest first.
    pub fn each<E: From<SchemaError>>(
        &self,
        filter: &Filter,
        take: impl FnMut(StoredRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read(filter, " ORDER BY p.id, p.row", take)
    }

    /// The newest `count` matching records, the oldest first.
    pub fn last(&self, filter: &Filter, count: u32) -> Result<Vec<StoredRecord>, SchemaError> {
        let mut records = Vec::new();
        let order = format!(" ORDER BY p.id DESC, p.row DESC LIMIT {count}");
        self.read(filter, &order, |record| {
            records.push(record);
            Ok::<_, SchemaError>(())
        })?;
        records.reverse();
        Ok(records)
    }

    fn read<E: From<SchemaError>>(
        &self,
        filter: &Filter,
        order: &str,
        mut take: impl FnMut(StoredRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let (clause, values) = filter.clause();
        let joined = self.has_feedback;
        let (columns, join) = if joined { (FEEDBACK, JOIN_FEEDBACK) } else { ("", "") };
        let query = format!("SELECT {COLUMNS}{columns}{TABLES}{join}{clause}{order}");
        let mut statement = self.transaction.prepare(&query).map_err(SchemaError::from)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(SchemaError::from)?;
        while let Some(row) = rows.next().map_err(SchemaError::from)? {
            take(record(row, joined).map_err(SchemaError::from)?)?;
        }
        Ok(())
    }

    /// Number of matching records.
    pub fn count(&self, filter: &Filter) -> Result<u64, SchemaError> {
        let (clause, values) = filter.clause();
        let query = format!("SELECT count(*){TABLES}{clause}");
        let count: i64 =
            self.transaction.query_row(&query, params_from_iter(values), |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// The models and versions with records that match the names of `filter`.
    pub fn models(&self, filter: &Filter) -> Result<Vec<(String, String)>, SchemaError> {
        let names = Filter {
            since: None,
            until: None,
            status: None,
            id: None,
            slice: None,
            ..filter.clone()
        };
        let (clause, values) = names.clause();
        let exists = "EXISTS (SELECT 1 FROM predictions p WHERE p.source = s.id)";
        let and = if clause.is_empty() { " WHERE " } else { " AND " };
        // There are few sources, and each is found early, as records of all are spread over the
        // table.
        let query = format!(
            "SELECT DISTINCT s.model, s.version FROM sources s{clause}{and}{exists} ORDER BY 1, 2"
        );
        let mut statement = self.transaction.prepare(&query)?;
        let rows =
            statement.query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The partitions of a dataset with the records of `slice`.
    pub fn partitions(&self, slice: &ExportSlice) -> Result<Partitions, SchemaError> {
        let filter = Filter { slice: Some(slice.clone()), ..Filter::default() };
        let (clause, values) = filter.clause();
        let mut statement = self
            .transaction
            .prepare(&format!("SELECT s.model, s.version, p.id{TABLES}{clause}"))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut partitions = Partitions::new();
        while let Some(row) = rows.next()? {
            let id = Uuid::from_slice(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?);
            let day = micros_of(id.unwrap_or_default()) / DAY;
            let of_version = partitions.entry((row.get(0)?, row.get(1)?)).or_default();
            of_version.insert(day);
        }
        Ok(partitions)
    }

    /// Calls `take` for the feedback that was stored in the epochs after the first one of `epochs` up
    /// to the second; with a `day`, in days of Unix time, for that received on it.
    pub fn each_feedback<E: From<SchemaError>>(
        &self,
        epochs: (i64, i64),
        day: Option<i64>,
        mut take: impl FnMut(FeedbackRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let query = "SELECT kind, label, number, time, received, prediction_id, row FROM feedback
            WHERE epoch > ?1 AND epoch <= ?2 AND (?3 IS NULL OR received >= ?3)
            AND (?4 IS NULL OR received < ?4)";
        let mut statement = self.transaction.prepare(query).map_err(SchemaError::from)?;
        let first = day.map(|day| day.saturating_mul(DAY));
        let end = day.map(|day| day.saturating_add(1).saturating_mul(DAY));
        let parameters = params![epochs.0, epochs.1, first, end];
        let mut rows = statement.query(parameters).map_err(SchemaError::from)?;
        while let Some(row) = rows.next().map_err(SchemaError::from)? {
            if let Some(feedback) = feedback_row(row).map_err(SchemaError::from)? {
                take(feedback)?;
            }
        }
        Ok(())
    }

    /// Row, kind, value and time of the feedback for the prediction `id`, with or without a record.
    pub fn feedback(
        &self,
        id: Uuid,
    ) -> Result<Vec<(i64, String, serde_json::Value, i64)>, SchemaError> {
        let query = "SELECT row, kind, label, number, time, received FROM feedback
            WHERE prediction_id = ?1 ORDER BY row, kind";
        let mut statement = self.transaction.prepare(query)?;
        let rows = statement.query_map([id.as_bytes()], |row| {
            let (label, number): (Option<String>, Option<f64>) = (row.get(2)?, row.get(3)?);
            let truth = label.map_or_else(|| number.into(), serde_json::Value::from);
            Ok((row.get(0)?, row.get(1)?, truth, observed_at(row.get(4)?, row.get(5)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// The record `row` of the request `id`, without its feedback.
pub(super) fn find_record(
    connection: &Connection,
    id: &[u8],
    row: i64,
) -> rusqlite::Result<Option<StoredRecord>> {
    let query = format!("SELECT {COLUMNS}{TABLES} WHERE p.id = ?1 AND p.row = ?2");
    let mut statement = connection.prepare_cached(&query)?;
    statement.query_row(params![id, row], |row| record(row, false)).optional()
}

/// `None` if another program has written it, and it is invalid.
fn feedback_row(row: &Row<'_>) -> rusqlite::Result<Option<FeedbackRow>> {
    let Some((truth, time)) = truth(row)? else { return Ok(None) };
    let id = Uuid::from_slice(row.get_ref(5)?.as_blob()?);
    let (received, row) = (row.get(4)?, row.get(6)?);
    Ok(id.ok().map(|prediction_id| FeedbackRow { prediction_id, row, truth, time, received }))
}

/// The columns of a row, in the order of [`COLUMNS`] and [`FEEDBACK`].
struct Cells<'a, 'r> {
    row: &'a Row<'r>,
    read: usize,
}

impl Cells<'_, '_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.read += 1;
        self.row.get(self.read - 1)
    }
}

fn record(row: &Row<'_>, joined: bool) -> rusqlite::Result<StoredRecord> {
    let id = Uuid::from_slice(row.get_ref(0)?.as_blob()?).unwrap_or_default();
    let mut cells = Cells { row, read: 1 };
    // Evaluated as written: the columns have the same order.
    Ok(StoredRecord {
        id,
        row: cells.take()?,
        time: cells.take()?,
        model: cells.take()?,
        version: cells.take()?,
        route: cells.take()?,
        component: cells.take()?,
        experiment: cells.take()?,
        variant: cells.take()?,
        unit: cells.take()?,
        propensity: cells.take()?,
        failed_over: cells.take()?,
        cache: cells.take()?,
        status: cells.take()?,
        latency_us: cells.take()?,
        sample: cells.take()?,
        trace_id: cells.take()?,
        inputs: cells.take()?,
        outputs: cells.take()?,
        attributes: cells.take()?,
        omitted: cells.take()?,
        feedback: match joined {
            true => {
                StoredFeedback { label: cells.take()?, value: cells.take()?, reward: cells.take()? }
            }
            false => StoredFeedback::default(),
        },
    })
}
