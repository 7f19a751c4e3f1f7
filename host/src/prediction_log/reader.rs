//! Reads the file, one record after the other, in the order of their ids: of one host, that of their
//! times. Memory does not grow with the number of records.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params_from_iter};
use uuid::Uuid;

use super::json;
use super::schema::{self, Error};
use super::times::{first_id, format};

/// Records whose id was made up to so long before or after their time are found by time, in
/// microseconds.
const CLOCK_SLACK: i64 = 60 * 1_000_000;

/// One record, as it is stored.
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
    pub cache: String,
    pub status: i64,
    pub latency_us: i64,
    pub trace_id: Option<String>,
    /// A JSON object.
    pub inputs: String,
    /// A JSON object.
    pub outputs: String,
    /// A JSON object.
    pub attributes: String,
    /// A JSON array.
    pub omitted: Option<String>,
    pub feedback: StoredFeedback,
}

/// The feedback for a record.
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

/// Which records are read. What is none, is any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub model: Option<String>,
    pub version: Option<String>,
    pub component: Option<String>,
    pub experiment: Option<String>,
    pub variant: Option<String>,
    pub status: Option<u16>,
    /// The first time, in microseconds of Unix time.
    pub since: Option<i64>,
    /// The first time that is too late.
    pub until: Option<i64>,
    pub id: Option<Uuid>,
}

const COLUMNS: &str = "p.id, p.row, p.time, s.model, s.version, s.route, s.component,
    nullif(s.experiment, ''), nullif(s.variant, ''), p.cache, p.status, p.latency_us, p.trace_id,
    p.inputs, p.outputs, p.attributes, p.omitted";
const FEEDBACK: &str = ", l.label, v.number, r.number";
const TABLES: &str = " FROM predictions p JOIN sources s ON s.id = p.source";
const JOIN_FEEDBACK: &str = "
    LEFT JOIN feedback l ON l.prediction_id = p.id AND l.row = p.row AND l.kind = 'label'
    LEFT JOIN feedback v ON v.prediction_id = p.id AND v.row = p.row AND v.kind = 'value'
    LEFT JOIN feedback r ON r.prediction_id = p.id AND r.row = p.row AND r.kind = 'reward'";

impl Filter {
    /// ` WHERE ...`, and its parameters.
    pub(super) fn clause(&self) -> (String, Vec<Value>) {
        let Self { model, version, component, experiment, variant, status, since, until, id } =
            self;
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
        let clause = conditions.join(" AND ");
        (if clause.is_empty() { clause } else { format!(" WHERE {clause}") }, values)
    }
}

/// The file, open to be read.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// The log as it was at one moment: what is written or deleted meanwhile is not seen.
#[derive(Debug)]
pub struct Snapshot<'a> {
    transaction: Transaction<'a>,
    has_feedback: bool,
}

impl Reader {
    /// The file at `path`; none if nothing was ever logged there.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let connection = schema::open_to_read(path)?;
        Ok(connection.map(|connection| Self { connection, path: path.to_owned() }))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn snapshot(&mut self) -> Result<Snapshot<'_>, Error> {
        let behavior = TransactionBehavior::Deferred;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        // The first query begins it.
        let query = "SELECT EXISTS (SELECT 1 FROM feedback)";
        let has_feedback = transaction.query_row(query, [], |row| row.get(0))?;
        Ok(Snapshot { transaction, has_feedback })
    }
}

impl Snapshot<'_> {
    pub(super) fn connection(&self) -> &Connection {
        &self.transaction
    }

    /// Gives `take` every record that fits, oldest first.
    pub fn each<E: From<Error>>(
        &self,
        filter: &Filter,
        take: impl FnMut(StoredRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read(filter, " ORDER BY p.id, p.row", take)
    }

    /// The newest `count` records that fit, oldest first.
    pub fn last(&self, filter: &Filter, count: u32) -> Result<Vec<StoredRecord>, Error> {
        let mut records = Vec::new();
        let order = format!(" ORDER BY p.id DESC, p.row DESC LIMIT {count}");
        self.read(filter, &order, |record| {
            records.push(record);
            Ok::<_, Error>(())
        })?;
        records.reverse();
        Ok(records)
    }

    fn read<E: From<Error>>(
        &self,
        filter: &Filter,
        order: &str,
        mut take: impl FnMut(StoredRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let (clause, values) = filter.clause();
        let joined = self.has_feedback;
        let (columns, join) = if joined { (FEEDBACK, JOIN_FEEDBACK) } else { ("", "") };
        let query = format!("SELECT {COLUMNS}{columns}{TABLES}{join}{clause}{order}");
        let mut statement = self.transaction.prepare(&query).map_err(Error::from)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(Error::from)?;
        while let Some(row) = rows.next().map_err(Error::from)? {
            take(record(row, joined).map_err(Error::from)?)?;
        }
        Ok(())
    }

    /// How many records fit.
    pub fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let (clause, values) = filter.clause();
        let query = format!("SELECT count(*){TABLES}{clause}");
        let count: i64 =
            self.transaction.query_row(&query, params_from_iter(values), |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// The models and versions of which there are records that fit `filter`'s names.
    pub fn models(&self, filter: &Filter) -> Result<Vec<(String, String)>, Error> {
        let names = Filter { since: None, until: None, status: None, id: None, ..filter.clone() };
        let (clause, values) = names.clause();
        let there = "EXISTS (SELECT 1 FROM predictions p WHERE p.source = s.id)";
        let and = if clause.is_empty() { " WHERE " } else { " AND " };
        // Few sources, each found early: their records are all over the table.
        let query = format!(
            "SELECT DISTINCT s.model, s.version FROM sources s{clause}{and}{there} ORDER BY 1, 2"
        );
        let mut statement = self.transaction.prepare(&query)?;
        let rows =
            statement.query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The feedback for the prediction `id`, whether there is a record or not: row, kind, what it
    /// is, when it was known.
    pub fn feedback(&self, id: Uuid) -> Result<Vec<(i64, String, serde_json::Value, i64)>, Error> {
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

fn record(row: &Row<'_>, joined: bool) -> rusqlite::Result<StoredRecord> {
    let id = row.get_ref(0)?.as_blob()?;
    let feedback = if joined {
        StoredFeedback { label: row.get(17)?, value: row.get(18)?, reward: row.get(19)? }
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
        trace_id: row.get(12)?,
        inputs: row.get(13)?,
        outputs: row.get(14)?,
        attributes: row.get(15)?,
        omitted: row.get(16)?,
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
            cache,
            status,
            latency_us,
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
        let mut member = |name: &str, value: &dyn Member, into: &mut Vec<u8>| {
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
        member("cache", cache, into);
        member("status", status, into);
        member("latency_us", latency_us, into);
        member("trace_id", trace_id, into);
        member("inputs", &Raw(inputs), into);
        member("outputs", &Raw(outputs), into);
        member("attributes", &Raw(attributes), into);
        member("omitted", &Raw(omitted.as_deref().unwrap_or("[]")), into);
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

/// What a member of a JSON object is.
trait Member {
    fn write(&self, into: &mut Vec<u8>);
}

impl<T: serde::Serialize> Member for T {
    fn write(&self, into: &mut Vec<u8>) {
        json::write(self, into);
    }
}

/// JSON that is stored: written as it is.
struct Raw<'a>(&'a str);

impl Member for Raw<'_> {
    fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.0.as_bytes());
    }
}
