//! Reads the records of the file in the order of their ids, which for one host is the order of
//! their times. Memory is independent of the number of records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{
    Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params, params_from_iter,
};
use uuid::Uuid;

use super::feedback::Truth;
use super::json;
use super::schema::{self, SchemaError};
use super::store::truth;
use super::times::{first_id, format, micros_of};

/// Maximum difference between the time of a record and the time in its id, in microseconds, for
/// records to be found by time.
const CLOCK_SLACK: i64 = 60 * 1_000_000;

/// A stored record.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    pub id: Uuid,
    pub row: i64,
    /// Microseconds of Unix time.
    pub time: i64,
    pub model: String,
    pub version: String,
    pub route: String,
    pub component: String,
    pub experiment: Option<String>,
    pub variant: Option<String>,
    /// Keyed hash of the unit, 16 hexadecimal digits.
    pub unit: Option<String>,
    /// The probability with which the variant was drawn; `None` if it was not drawn.
    pub propensity: Option<f64>,
    /// The variant that could not serve the request, if control served instead.
    pub failed_over: Option<String>,
    pub cache: String,
    pub status: i64,
    pub latency_us: i64,
    /// Probability with which the request was logged; `None` in records of schema version 1.
    pub sample: Option<f64>,
    pub trace_id: Option<String>,
    /// Inputs by name, as a JSON object.
    pub inputs: String,
    /// Outputs by name, as a JSON object.
    pub outputs: String,
    /// Attributes by name, as a JSON object.
    pub attributes: String,
    /// Tensors that are too wide to be logged, as a JSON array.
    pub omitted: Option<String>,
    pub feedback: StoredFeedback,
}

/// The stored feedback for a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredFeedback {
    pub label: Option<String>,
    pub value: Option<f64>,
    pub reward: Option<f64>,
}

impl StoredFeedback {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Selects records. `None` matches any value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub model: Option<String>,
    pub version: Option<String>,
    pub component: Option<String>,
    pub experiment: Option<String>,
    pub variant: Option<String>,
    pub status: Option<u16>,
    /// Inclusive lower bound of the time, in microseconds of Unix time.
    pub since: Option<i64>,
    /// Exclusive upper bound of the time, in microseconds of Unix time.
    pub until: Option<i64>,
    pub id: Option<Uuid>,
    pub slice: Option<ExportSlice>,
}

/// What an export covers: the records of some epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSlice {
    /// The epoch before the first one.
    pub after: i64,
    /// The last epoch.
    pub through: i64,
    /// Lower bound of the ids.
    pub first_id: Uuid,
    /// The day of the time in the id, in days of Unix time.
    pub day: Option<i64>,
}

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

const COLUMNS: &str = "p.id, p.row, p.time, s.model, s.version, s.route, s.component,
    nullif(s.experiment, ''), nullif(s.variant, ''), p.cache, p.status, p.latency_us, p.trace_id,
    p.inputs, p.outputs, p.attributes, p.omitted, p.unit, p.propensity, p.failed_over, p.sample";
const FEEDBACK: &str = ", l.label, v.number, r.number";
const TABLES: &str = " FROM predictions p JOIN sources s ON s.id = p.source";
const JOIN_FEEDBACK: &str = "
    LEFT JOIN feedback l ON l.prediction_id = p.id AND l.row = p.row AND l.kind = 'label'
    LEFT JOIN feedback v ON v.prediction_id = p.id AND v.row = p.row AND v.kind = 'value'
    LEFT JOIN feedback r ON r.prediction_id = p.id AND r.row = p.row AND r.kind = 'reward'";

impl Filter {
    /// Whether `record` is selected.
    #[must_use]
    pub fn matches(&self, record: &StoredRecord) -> bool {
        let Self {
            model,
            version,
            component,
            experiment,
            variant,
            status,
            since,
            until,
            id,
            // Of the file.
            slice: _,
        } = self;
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == value)
        };
        is(model, Some(&record.model))
            && is(version, Some(&record.version))
            && is(component, Some(&record.component))
            && is(experiment, record.experiment.as_deref())
            && is(variant, record.variant.as_deref())
            && status.is_none_or(|status| i64::from(status) == record.status)
            && since.is_none_or(|since| record.time >= since)
            && until.is_none_or(|until| record.time < until)
            && id.is_none_or(|id| record.id == id)
    }

    /// The clause ` WHERE ...`, and its parameters.
    pub(super) fn clause(&self) -> (String, Vec<Value>) {
        let Self {
            model,
            version,
            component,
            experiment,
            variant,
            status,
            since,
            until,
            id,
            slice,
        } = self;
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        let mut add = |condition: &str, value: Value| {
            conditions.push(condition.to_owned());
            values.push(value);
        };
        for (column, wanted) in [
            ("s.model = ?", model),
            ("s.version = ?", version),
            ("s.component = ?", component),
            ("s.experiment = ?", experiment),
            ("s.variant = ?", variant),
        ] {
            if let Some(wanted) = wanted {
                add(column, wanted.clone().into());
            }
        }
        if let Some(status) = status {
            add("p.status = ?", i64::from(*status).into());
        }
        let key = |micros: i64| Value::Blob(first_id(micros.max(0)).into_bytes().to_vec());
        if let Some(since) = since {
            add("p.id >= ?", key(since.saturating_sub(CLOCK_SLACK)));
            add("p.time >= ?", (*since).into());
        }
        if let Some(until) = until {
            add("p.id < ?", key(until.saturating_add(CLOCK_SLACK)));
            add("p.time < ?", (*until).into());
        }
        if let Some(id) = id {
            add("p.id = ?", Value::Blob(id.into_bytes().to_vec()));
        }
        if let Some(ExportSlice { after, through, first_id, day }) = slice {
            add("p.epoch > ?", (*after).into());
            add("p.epoch <= ?", (*through).into());
            add("p.id >= ?", Value::Blob(first_id.into_bytes().to_vec()));
            if let Some(day) = day {
                add("p.id >= ?", key(day.saturating_mul(DAY)));
                add("p.id < ?", key(day.saturating_add(1).saturating_mul(DAY)));
            }
        }
        let clause = conditions.join(" AND ");
        (if clause.is_empty() { clause } else { format!(" WHERE {clause}") }, values)
    }
}

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
        let query = "SELECT kind, label, number, time, prediction_id, row, received FROM feedback
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
        let query = "SELECT row, kind, label, number, time FROM feedback
            WHERE prediction_id = ?1 ORDER BY row, kind";
        let mut statement = self.transaction.prepare(query)?;
        let rows = statement.query_map([id.as_bytes()], |row| {
            let (label, number): (Option<String>, Option<f64>) = (row.get(2)?, row.get(3)?);
            let truth = label.map_or_else(|| number.into(), serde_json::Value::from);
            Ok((row.get(0)?, row.get(1)?, truth, row.get(4)?))
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
    let id = Uuid::from_slice(row.get_ref(4)?.as_blob()?);
    let (row, received) = (row.get(5)?, row.get(6)?);
    Ok(id.ok().map(|prediction_id| FeedbackRow { prediction_id, row, truth, time, received }))
}

fn record(row: &Row<'_>, joined: bool) -> rusqlite::Result<StoredRecord> {
    let id = row.get_ref(0)?.as_blob()?;
    let feedback = if joined {
        StoredFeedback { label: row.get(21)?, value: row.get(22)?, reward: row.get(23)? }
    } else {
        StoredFeedback::default()
    };
    Ok(StoredRecord {
        id: Uuid::from_slice(id).unwrap_or_default(),
        row: row.get(1)?,
        time: row.get(2)?,
        model: row.get(3)?,
        version: row.get(4)?,
        route: row.get(5)?,
        component: row.get(6)?,
        experiment: row.get(7)?,
        variant: row.get(8)?,
        cache: row.get(9)?,
        status: row.get(10)?,
        latency_us: row.get(11)?,
        sample: row.get(20)?,
        trace_id: row.get(12)?,
        inputs: row.get(13)?,
        outputs: row.get(14)?,
        attributes: row.get(15)?,
        omitted: row.get(16)?,
        unit: row.get(17)?,
        propensity: row.get(18)?,
        failed_over: row.get(19)?,
        feedback,
    })
}

impl StoredRecord {
    /// Appends the record as one JSON object.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        let Self {
            id,
            row,
            time,
            model,
            version,
            route,
            component,
            experiment,
            variant,
            unit,
            propensity,
            failed_over,
            cache,
            status,
            latency_us,
            sample,
            trace_id,
            inputs,
            outputs,
            attributes,
            omitted,
            feedback,
        } = self;
        let mut first = true;
        let mut key = |name: &str, into: &mut Vec<u8>| {
            into.push(if std::mem::take(&mut first) { b'{' } else { b',' });
            json::write(name, into);
            into.push(b':');
        };
        let mut member = |name: &str, value: &dyn JsonMember, into: &mut Vec<u8>| {
            key(name, into);
            value.write(into);
        };
        member("id", &id.to_string(), into);
        member("row", row, into);
        member("time", &format(*time), into);
        member("model", model, into);
        member("version", version, into);
        member("route", route, into);
        member("component", component, into);
        member("experiment", experiment, into);
        member("variant", variant, into);
        member("unit", unit, into);
        member("propensity", propensity, into);
        member("failed_over", failed_over, into);
        member("cache", cache, into);
        member("status", status, into);
        member("latency_us", latency_us, into);
        member("sample", sample, into);
        member("trace_id", trace_id, into);
        member("inputs", &RawJson(inputs), into);
        member("outputs", &RawJson(outputs), into);
        member("attributes", &RawJson(attributes), into);
        member("omitted", &RawJson(omitted.as_deref().unwrap_or("[]")), into);
        if !feedback.is_empty() {
            let StoredFeedback { label, value, reward } = feedback;
            let mut members = serde_json::Map::new();
            members.extend(label.clone().map(|label| ("label".to_owned(), label.into())));
            members.extend(value.map(|value| ("value".to_owned(), value.into())));
            members.extend(reward.map(|reward| ("reward".to_owned(), reward.into())));
            member("feedback", &serde_json::Value::Object(members), into);
        }
        into.push(b'}');
    }
}

/// The value of a member of a JSON object.
trait JsonMember {
    fn write(&self, into: &mut Vec<u8>);
}

impl<T: serde::Serialize> JsonMember for T {
    fn write(&self, into: &mut Vec<u8>) {
        json::write(self, into);
    }
}

/// Stored JSON, which is written unchanged.
struct RawJson<'a>(&'a str);

impl JsonMember for RawJson<'_> {
    fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.0.as_bytes());
    }
}
