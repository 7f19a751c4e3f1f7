//! The counts of an experiment: those of this node, from its requests and its log, and those of all
//! nodes.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use spinfer_experiment::progress::Epoch;

use super::{LOOK, Supervised};
use crate::experiment::assessment::{moments_name, unit_metrics};
use crate::experiment::nodes::{AllCounts, SourceCounts, VariantRequests};
use crate::experiment::outcomes::OutcomeCounts;
use crate::host::Host;
use crate::prediction_log::unit_totals::{self, SETTLING, UnitQuery, UnitTotals};

/// The units of the log are read again after this multiple of the time that reading them takes.
const READING_SHARE: u32 = 20;

/// When the units of the log are read.
#[derive(Debug, Default)]
pub(super) struct ReadingSchedule {
    /// Starts of the periods of the last attempt, and the time of the next one.
    last: Option<(Vec<u64>, Instant)>,
}

impl ReadingSchedule {
    /// Other periods are read at once. After a failure the same ones wait, too.
    fn is_due(&self, starts: &[u64], now: Instant) -> bool {
        self.last.as_ref().is_none_or(|(last, next)| last != starts || now >= *next)
    }

    /// Reading took from `start` to `end`.
    fn done(&mut self, starts: Vec<u64>, start: Instant, end: Instant) {
        let took = end.saturating_duration_since(start);
        self.last = Some((starts, start + (took * READING_SHARE).max(LOOK / 2)));
    }
}

impl Supervised<'_> {
    /// Adds the requests since the last look to the present period, unless allocations settle.
    pub(super) fn count_requests(&mut self, epochs: &[Epoch], time: u64) {
        let Some(epoch) = epochs.last() else { return };
        // A clock that was set back does not settle again.
        let settling = epoch.from..epoch.from.saturating_add(SETTLING);
        let settles = epoch.from > 0 && settling.contains(&time);
        for arm in self.router.arms(&self.experiment.name) {
            let counts = arm.outcomes.counts();
            let before = self.own_totals.insert(arm.variant.to_string(), counts.clone());
            if settles {
                continue;
            }
            let new = counts.since(&before.unwrap_or_default());
            let own = self.own.entry(arm.variant.to_string()).or_default();
            let [errors, latencies] = own.entry(epoch.from).or_default();
            *errors = errors.merged(&new.error_moments());
            *latencies = latencies.merged(&new.latency_moments());
            own.retain(|from, _| epochs.iter().any(|epoch| epoch.from == *from));
        }
    }

    /// Reads the units of the log, if it is time to.
    pub(super) async fn read_units(&mut self, host: &Host, epochs: &[Epoch]) {
        let start = Instant::now();
        let starts: Vec<u64> = epochs.iter().map(|epoch| epoch.from).collect();
        let is_due = self.reading.is_due(&starts, start);
        let Some(log) = host.prediction_log().filter(|_| is_due) else { return };
        let query = UnitQuery {
            experiment: self.experiment.name.clone(),
            run: self.experiment.digest(),
            epochs: epochs.to_vec(),
            metrics: unit_metrics(self.experiment),
        };
        let path = log.path().to_owned();
        let read = tokio::task::spawn_blocking(move || unit_totals::read(&path, &query)).await;
        // The log reports what is wrong with its file.
        if let Ok(Ok(units)) = read {
            (self.units, self.units_of) = (units, starts.clone());
        }
        self.reading.done(starts, start, Instant::now());
    }

    /// The counts that this node publishes, by source.
    pub(super) fn own_counts(&self, epochs: &[Epoch]) -> BTreeMap<String, SourceCounts> {
        let starts: Vec<u64> = epochs.iter().map(|epoch| epoch.from).collect();
        let requests = self.own_totals.iter().map(|(variant, total)| {
            let own = self.own.get(variant);
            let moments = |part: usize| {
                let of = |from| own.and_then(|own| own.get(from)).map(|parts| parts[part]);
                starts.iter().map(|from| of(from).unwrap_or_default()).collect()
            };
            let (errors, latencies) = (moments(0), moments(1));
            (variant.clone(), VariantRequests { total: total.clone(), errors, latencies })
        });
        let requests = requests.collect();
        let requests = SourceCounts { epochs: starts, requests, ..SourceCounts::default() };
        let mut own = BTreeMap::from([(self.process.clone(), requests)]);
        if let Some(UnitTotals { file, variants }) = &self.units {
            let units = variants.clone();
            let requests = BTreeMap::new();
            let (epochs, metrics) = (self.units_of.clone(), self.metrics());
            own.insert(file.clone(), SourceCounts { epochs, metrics, units, requests });
        }
        own
    }

    pub(super) fn merged(&self, epochs: &[Epoch]) -> AllCounts {
        let sources = self.sources.iter().map(|(_, counts)| counts);
        AllCounts::merge(sources, epochs, &self.metrics())
    }

    /// What the moments of units are of.
    fn metrics(&self) -> Vec<String> {
        unit_metrics(self.experiment).iter().map(moments_name).collect()
    }

    /// The requests of each variant since the last look, on all nodes. Those of a node that is seen for
    /// the first time are not new.
    pub(super) fn batches(&mut self) -> BTreeMap<String, OutcomeCounts> {
        let mut batches: BTreeMap<String, OutcomeCounts> = BTreeMap::new();
        let mut seen = HashMap::new();
        for (id, counts) in self.sources.iter() {
            let totals: BTreeMap<String, OutcomeCounts> = counts
                .requests
                .iter()
                .map(|(v, requests)| (v.clone(), requests.total.clone()))
                .collect();
            let before = self.seen.get(id);
            if *id == self.process || before.is_some() {
                for (variant, total) in &totals {
                    let before = before.and_then(|before| before.get(variant));
                    let new = before.map_or_else(|| total.clone(), |before| total.since(before));
                    batches.entry(variant.clone()).or_default().add(&new);
                }
            }
            seen.insert(id.clone(), totals);
        }
        self.seen = seen;
        batches
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn units_are_read_at_once_for_other_periods_only() {
        let (mut reading, start) = (ReadingSchedule::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(reading.is_due(&[0], at(0)));
        // Whether it has succeeded or not.
        reading.done(vec![0], at(0), at(100));
        assert!(!reading.is_due(&[0], at(1_999)));
        assert!(reading.is_due(&[0], at(2_000)));
        assert!(reading.is_due(&[0, 50], at(101)));
        reading.done(vec![0, 50], at(101), at(102));
        assert!(!reading.is_due(&[0, 50], at(600)));
        assert!(reading.is_due(&[0, 50], at(601)));
    }
}
