//! The moments of the units of an experiment, by variant and by period of equal allocations, read
//! from the file.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{Metric, MetricKind, Per};
use spinfer_experiment::progress::Epoch;
use spinfer_statistics::moments::PairMoments;

use super::schema::{self, SchemaError};

/// Time after a change of the allocations in which new units may still be assigned by the ones
/// before: routers read the change once a second, and clocks of nodes differ. These units are in no
/// comparison. In milliseconds.
pub const SETTLING: u64 = 5_000;

/// What is computed of the units of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitQuery {
    pub experiment: String,
    /// Digest of the experiment: units of an earlier one of this name do not count.
    pub run: String,
    /// The periods, the present one last.
    pub epochs: Vec<Epoch>,
    /// The metric of the verdict, and those of guardrails.
    pub metrics: Vec<Metric>,
}

/// What the file knows of the units of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitTotals {
    /// Id of the file.
    pub file: String,
    pub variants: BTreeMap<String, VariantUnits>,
}

/// The units of one variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantUnits {
    pub predictions: u64,
    /// Number of units, by period.
    pub units: Vec<u64>,
    /// Moments of each metric, by period. The companion is the covariate, the number of predictions of
    /// the unit for a metric per prediction, or 0.
    pub moments: Vec<Vec<PairMoments>>,
}

const FILE: &str = "SELECT id FROM experiment_file ORDER BY created, id LIMIT 1";
/// Units of an experiment without a covariate are given the mean of the others.
const MEAN_COVARIATE: &str =
    "SELECT coalesce(avg(covariate), 0.0) FROM experiment_units WHERE experiment = ?1 AND run = ?2";
const UNITS: &str = "SELECT variant, first, predictions, covariate, labels, correct, numbers,
    absolute_error, rewards, reward FROM experiment_units WHERE experiment = ?1 AND run = ?2 AND first >= ?3";

/// Reads the totals of the units in the file at `path`; `None` if there is no file yet.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path, query: &UnitQuery) -> Result<Option<UnitTotals>, SchemaError> {
    let Some(connection) = schema::open_to_read(path)? else { return Ok(None) };
    let file = connection.query_row(FILE, [], |row| row.get(0))?;
    Ok(Some(UnitTotals { file, variants: totals(&connection, query)? }))
}

fn totals(
    connection: &Connection,
    query: &UnitQuery,
) -> rusqlite::Result<BTreeMap<String, VariantUnits>> {
    let UnitQuery { experiment, run, epochs, metrics } = query;
    let covariate = connection.query_row(MEAN_COVARIATE, [experiment, run], |row| row.get(0));
    let covariate: f64 = covariate?;
    let start = epochs.first().map_or(0, |epoch| epoch.from).saturating_mul(1000);
    let start = i64::try_from(start).unwrap_or(i64::MAX);
    let mut totals: BTreeMap<String, VariantUnits> = BTreeMap::new();
    let mut statement = connection.prepare(UNITS)?;
    let mut rows = statement.query(params![experiment, run, start])?;
    while let Some(row) = rows.next()? {
        let variant = row.get_ref(0)?.as_str()?;
        let Some(epoch) = epoch_of(row.get(1)?, epochs) else { continue };
        if !totals.contains_key(variant) {
            let moments = vec![vec![PairMoments::default(); epochs.len()]; metrics.len()];
            let units = vec![0; epochs.len()];
            let empty = VariantUnits { predictions: 0, units, moments };
            totals.insert(variant.to_owned(), empty);
        }
        let Some(total) = totals.get_mut(variant) else { continue };
        total.units[epoch] += 1;
        total.predictions += u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
        for (metric, moments) in metrics.iter().zip(&mut total.moments) {
            let (count, sum): (f64, f64) = match metric.kind {
                MetricKind::Accuracy => (row.get(4)?, row.get(5)?),
                MetricKind::ValueError => (row.get(6)?, row.get(7)?),
                MetricKind::Reward => (row.get(8)?, row.get(9)?),
                // Counted where requests are served: failed ones have no record.
                MetricKind::ErrorRate | MetricKind::Latency => continue,
            };
            if count <= 0.0 {
                continue;
            }
            let (value, companion) = match (metric.per, &metric.covariate) {
                (Per::Prediction, _) => (sum, count),
                (Per::Unit, Some(_)) => {
                    (sum / count, row.get::<_, Option<f64>>(3)?.unwrap_or(covariate))
                }
                (Per::Unit, None) => (sum / count, 0.0),
            };
            moments[epoch].add(value, companion);
        }
    }
    Ok(totals)
}

/// The period that a unit was first seen in, at `first` in microseconds of Unix time. `None` while
/// the allocations settle.
fn epoch_of(first: i64, epochs: &[Epoch]) -> Option<usize> {
    let first = u64::try_from(first).unwrap_or(0) / 1000;
    let index = epochs.iter().rposition(|epoch| epoch.from <= first)?;
    let from = epochs[index].from;
    (from == 0 || first - from >= SETTLING).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_belongs_to_the_period_it_was_first_seen_in_unless_it_settles() {
        let epoch = |from| Epoch { from, shares: BTreeMap::new() };
        let epochs = [epoch(0), epoch(10_000), epoch(30_000)];
        let at = |millis: i64| epoch_of(millis * 1000, &epochs);
        assert_eq!([0, 9_999].map(at), [Some(0); 2]);
        assert_eq!([10_000, 14_999].map(at), [None; 2]);
        assert_eq!([15_000, 29_999].map(at), [Some(1); 2]);
        assert_eq!([30_000, 35_000].map(at), [None, Some(2)]);
        assert_eq!(epoch_of(5_000_000, &epochs[1..]), None);
    }
}
