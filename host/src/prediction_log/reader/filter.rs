//! Which records are read, as a condition of SQL and as a predicate.

use rusqlite::types::Value;
use uuid::Uuid;

use super::DAY;
use super::record::StoredRecord;
use crate::prediction_log::times::first_id;

/// Maximum difference between the time of a record and the time in its id, in microseconds, for
/// records to be found by time.
const CLOCK_SLACK: i64 = 60 * 1_000_000;

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
    pub(in crate::prediction_log) fn clause(&self) -> (String, Vec<Value>) {
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
