//! Counts the records that the prediction log has and the saved windows lack: after a crash those of
//! the last seconds, without saved windows those of a whole window.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::Monitor;
use super::settings::WindowShape;
use crate::prediction_log::Observer;
use crate::prediction_log::reader::{Filter, LogReader, StoredRecord};
use crate::prediction_log::record::{
    CacheOutcome, ColumnValues, Columns, LogEntry, Predictions, RequestContext,
};
use crate::prediction_log::schema::SchemaError;

/// Maximum number of records read for one version. They are in memory while they are counted, about
/// 1 kB each.
const MAX_RECORDS: u32 = 10_000;
/// Number of half-lives from which records are read. Those before have less than 1/16 of the weight.
const FILLED_HALF_LIVES: u32 = 4;

/// Counts the last records of each version that its window lacks, and that are not too old for it at
/// the time `now`.
pub(super) fn fill(monitor: &Monitor, log: &Path, now: SystemTime) -> Result<(), SchemaError> {
    let Some(mut reader) = LogReader::open(log)? else { return Ok(()) };
    let snapshot = reader.snapshot()?;
    let watched: Vec<_> = monitor.watched().collect();
    for (model, version, settings, latest) in watched {
        let (records, age) = match settings.window {
            WindowShape::Recent { records, age } => (records, age),
            WindowShape::Decayed { half_life } => (MAX_RECORDS, half_life * FILLED_HALF_LIVES),
        };
        let oldest = now.checked_sub(age).unwrap_or(UNIX_EPOCH);
        // Those until the latest are in the window that was saved.
        let after = latest.map_or(UNIX_EPOCH, |latest| latest + Duration::from_micros(1));
        let since = oldest.max(after).duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let filter = Filter {
            model: Some(model.to_owned()),
            version: Some(version.to_owned()),
            since: i64::try_from(since).ok(),
            ..Filter::default()
        };
        for record in snapshot.last(&filter, records.min(MAX_RECORDS))? {
            monitor.observe(&entry(record));
        }
    }
    Ok(())
}

/// A stored record as an entry of one row. Of its context, only what drift detection reads matters.
fn entry(record: StoredRecord) -> LogEntry {
    let StoredRecord { id, time, model, version, component, inputs, outputs, sample, .. } = record;
    let time = UNIX_EPOCH + Duration::from_micros(u64::try_from(time).unwrap_or_default());
    let context = RequestContext {
        id,
        time,
        route: Arc::from(""),
        component: Arc::from(component),
        exposure: None,
        cache: CacheOutcome::Bypass,
        status: 200,
        latency: Duration::ZERO,
        // Records of earlier versions have none.
        sample: sample.unwrap_or(1.0),
        trace_id: None,
    };
    let predictions = Predictions {
        model: model.into(),
        version: version.into(),
        rows: 1,
        inputs: columns(&inputs),
        outputs: columns(&outputs),
        omitted: Vec::new(),
        attributes: Vec::new(),
    };
    LogEntry { context: Arc::new(context), first_row: 0, predictions: Arc::new(predictions) }
}

/// The members of a JSON object as columns of one value.
fn columns(object: &str) -> Vec<Columns> {
    let members: Map<String, Value> = serde_json::from_str(object).unwrap_or_default();
    let column = |(name, value): (String, Value)| {
        let values = match value {
            Value::Null => ColumnValues::Fp64(vec![f64::NAN]),
            Value::Bool(value) => ColumnValues::Boolean(vec![value]),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => ColumnValues::Int64(vec![integer]),
                None => ColumnValues::Fp64(vec![number.as_f64().unwrap_or(f64::NAN)]),
            },
            Value::String(text) => ColumnValues::Text(vec![text]),
            // The log contains none.
            Value::Array(_) | Value::Object(_) => return None,
        };
        Some(Columns { names: vec![name].into(), values })
    };
    members.into_iter().filter_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_values_are_read_with_their_types() {
        let columns = columns(r#"{"a": 1, "b": 1.5, "c": null, "d": "x", "e": true}"#);
        let values: Vec<_> = columns.iter().map(|column| &column.values).collect();
        assert_eq!(values[0], &ColumnValues::Int64(vec![1]));
        assert_eq!(values[1], &ColumnValues::Fp64(vec![1.5]));
        assert!(matches!(values[2], ColumnValues::Fp64(v) if v[0].is_nan()));
        assert_eq!(values[3], &ColumnValues::Text(vec!["x".into()]));
        assert_eq!(values[4], &ColumnValues::Boolean(vec![true]));
    }
}
