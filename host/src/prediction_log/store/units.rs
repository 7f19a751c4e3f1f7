//! What is known of each unit of each experiment, updated in the transactions that write records and
//! feedback: the aggregates of an experiment are exact after a crash, whatever the order in which
//! feedback arrives, is corrected, or contradicts itself.
//!
//! A unit belongs to the variant of its first record. Records under another variant, after a ramp
//! has moved the unit, do not count: to leave such units out would favour those that never return.
//!
//! A row is of one run of its experiment. When the experiment is restarted under its name with other
//! variants, the rows of the earlier run are removed, and feedback of its records does not count.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use crate::prediction_log::quality::{Observation, QualityGroup};
use crate::prediction_log::record::{ColumnValues, LogEntry, Predictions};
use crate::prediction_log::times::micros;

/// Maximum number of units in the file: about 150 MB. Those without a record for the longest time
/// are removed first.
const MAX_UNITS: u32 = 1_000_000;

const EXPOSE: &str = "INSERT INTO experiment_units
    (experiment, unit, variant, first, last, predictions, covariate, run)
    VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET predictions = predictions + ?5, last = max(last, ?4),
        first = min(first, ?4)
    WHERE variant = ?3";
const FIND_UNIT: &str = "SELECT unit, failed_over, time FROM predictions
    WHERE id = ?1 AND row = ?2 AND unit IS NOT NULL
        AND (propensity IS NOT NULL OR failed_over IS NOT NULL)";
/// A record from before the first of the unit is one of an earlier run.
const OBSERVE: &str = "UPDATE experiment_units SET
    labels = labels + ?4, correct = correct + ?5,
    numbers = numbers + ?6, absolute_error = absolute_error + ?7,
    rewards = rewards + ?8, reward = reward + ?9
    WHERE experiment = ?1 AND unit = ?2 AND variant = ?3 AND first <= ?10";

/// Removes the units of earlier runs: `runs` has the present one of each experiment.
pub(in crate::prediction_log) fn forget_earlier_runs(
    connection: &Connection,
    runs: &BTreeMap<String, String>,
) -> rusqlite::Result<()> {
    let delete = "DELETE FROM experiment_units WHERE experiment = ?1 AND run <> ?2";
    let mut statement = connection.prepare_cached(delete)?;
    for (experiment, run) in runs {
        statement.execute([experiment, run])?;
    }
    Ok(())
}

/// Adds `rows` new records of `entry` to its unit, if a router has drawn its variant. A request that
/// control served for an unavailable variant belongs to that variant.
pub(super) fn expose(
    transaction: &Transaction<'_>,
    entry: &LogEntry,
    rows: u64,
) -> rusqlite::Result<()> {
    let Some(exposure) = &entry.context.exposure else { return Ok(()) };
    let is_drawn = exposure.propensity.is_some() || exposure.failed_over.is_some();
    let Some(unit) = exposure.unit.as_ref().filter(|_| is_drawn) else { return Ok(()) };
    let variant = exposure.failed_over.as_ref().unwrap_or(&exposure.variant);
    let covariate = exposure.covariate.as_ref();
    let covariate = covariate.and_then(|name| first_number(&entry.predictions, name));
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let time = micros(entry.context.time);
    let mut statement = transaction.prepare_cached(EXPOSE)?;
    statement.execute(params![
        &*exposure.experiment,
        &**unit,
        &**variant,
        time,
        rows,
        covariate,
        &*exposure.run
    ])?;
    Ok(())
}

/// The value of the input `name` in the first row, if it is a number.
fn first_number(predictions: &Predictions, name: &str) -> Option<f64> {
    predictions.inputs.iter().find_map(|columns| {
        let index = columns.names.iter().position(|known| known == name)?;
        let number = match &columns.values {
            ColumnValues::Fp32(values) => values.get(index).map(|value| f64::from(*value)),
            ColumnValues::Fp64(values) => values.get(index).copied(),
            #[expect(clippy::cast_precision_loss, reason = "a covariate, rounded beyond 2^53")]
            ColumnValues::Int64(values) => values.get(index).map(|value| *value as f64),
            ColumnValues::Boolean(values) => values.get(index).map(|v| f64::from(u8::from(*v))),
            ColumnValues::Text(_) => None,
        };
        number.filter(|number| number.is_finite())
    })
}

/// Adds the `observation` of a record to its unit, or removes it.
pub(super) fn observe(
    transaction: &Transaction<'_>,
    (id, row): (Uuid, u32),
    group: &QualityGroup,
    observation: &Observation,
    added: bool,
) -> rusqlite::Result<()> {
    if group.experiment.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(FIND_UNIT)?;
    let found = statement.query_row(params![id.as_bytes(), row], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, i64>(2)?))
    });
    let Some((unit, failed_over, time)) = found.optional()? else { return Ok(()) };
    let variant = failed_over.as_ref().unwrap_or(&group.variant);
    let sign = if added { 1 } else { -1 };
    let [mut labels, mut correct, mut numbers, mut rewards] = [0; 4];
    let [mut error, mut reward] = [0.0; 2];
    match observation {
        Observation::Class { truth, predicted, .. } => {
            (labels, correct) = (sign, if truth == predicted { sign } else { 0 });
        }
        Observation::Number { truth, predicted } => {
            (numbers, error) = (sign, f64::from(sign) * (truth - predicted).abs());
        }
        Observation::Reward(value) => (rewards, reward) = (sign, f64::from(sign) * value),
    }
    transaction.prepare_cached(OBSERVE)?.execute(params![
        group.experiment,
        unit,
        variant,
        labels,
        correct,
        numbers,
        error,
        rewards,
        reward,
        time
    ])?;
    Ok(())
}

/// Removes the units without a record since `expired`, in microseconds of Unix time, and those beyond
/// the maximum number.
pub(in crate::prediction_log) fn expire(
    connection: &Connection,
    expired: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM experiment_units WHERE last < ?1")?
        .execute([expired])?;
    let count: u32 =
        connection.query_row("SELECT count(*) FROM experiment_units", [], |row| row.get(0))?;
    if count > MAX_UNITS {
        let oldest = "DELETE FROM experiment_units WHERE (experiment, unit) IN
            (SELECT experiment, unit FROM experiment_units ORDER BY last LIMIT ?1)";
        connection.prepare_cached(oldest)?.execute([count - MAX_UNITS])?;
    }
    Ok(())
}
