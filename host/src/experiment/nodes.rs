//! What the nodes of an experiment know of it, shared in the router's key-value store. Each node
//! writes its own counts, and adds those of the others to them. Nothing is ever added in the store, so
//! a node that dies or starts again leaves no count twice.
//!
//! - Units are counted in the prediction log's file. Their totals have the id of that file.
//! - Requests are counted by the process. Their totals have an id of the process, and stay after
//!   its exit.
//!
//! What another program may have written is used as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use spinfer_experiment::key;
use spinfer_experiment::progress::{Epoch, MAX_EPOCHS};
use spinfer_statistics::moments::PairMoments;
use tracing::warn;

use super::ledger::{parse_list, to_json};
use super::outcomes::OutcomeCounts;
use crate::prediction_log::unit_totals::VariantUnits;
use crate::storage::key_value::{GrantedStore, StoreError};

/// Maximum number of files and processes whose counts are read. The oldest are deleted.
const MAX_SOURCES: usize = 128;
/// Maximum count of a source: sums over all sources and periods are exact as floats.
const MAX_COUNT: u64 = 1 << 40;
/// Maximum mean of a source. Squares of differences, and their sums over [`MAX_COUNT`] units, are far
/// from the largest float.
const MAX_MEAN: f64 = 1e60;
/// Maximum sum of squares of a source.
const MAX_SQUARES: f64 = 1e140;

/// The counts of one source, as stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceCounts {
    /// Start of each period of equal allocations, in milliseconds of Unix time.
    pub epochs: Vec<u64>,
    /// What the moments of units are of, in their order: hosts of other settings have others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
    /// Of a prediction log, by variant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, VariantUnits>,
    /// Of a process, by variant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, VariantRequests>,
}

/// The requests of one variant that were assigned by chance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VariantRequests {
    /// All of them.
    pub total: OutcomeCounts,
    /// Moments of errors and latencies, by period.
    pub errors: Vec<PairMoments>,
    pub latencies: Vec<PairMoments>,
}

/// The counts of all sources together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AllCounts {
    pub units: BTreeMap<String, VariantUnits>,
    pub requests: BTreeMap<String, VariantRequests>,
}

impl SourceCounts {
    /// Reads counts as stored; `None` if they are none, or cannot be right.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().filter(Self::is_valid)
    }

    fn is_valid(&self) -> bool {
        let Self { epochs, metrics, units, requests } = self;
        let are_moments = |moments: &Vec<PairMoments>| {
            moments.len() == epochs.len() && moments.iter().all(is_plausible)
        };
        let are_units = |of: &VariantUnits| {
            of.predictions <= MAX_COUNT
                && of.units.len() == epochs.len()
                && of.units.iter().all(|count| *count <= MAX_COUNT)
                && of.moments.len() == metrics.len()
                && of.moments.iter().all(are_moments)
        };
        let are_requests = |of: &VariantRequests| {
            of.total.is_valid()
                && of.total.requests() <= MAX_COUNT
                && are_moments(&of.errors)
                && are_moments(&of.latencies)
        };
        epochs.len() <= MAX_EPOCHS
            && units.values().all(are_units)
            && requests.values().all(are_requests)
    }
}

fn is_plausible(moments: &PairMoments) -> bool {
    let PairMoments { n, mean_value, mean_companion, value_squares, companion_squares, products } =
        moments;
    moments.is_valid()
        && *n <= MAX_COUNT
        && [mean_value, mean_companion].into_iter().all(|mean| mean.abs() <= MAX_MEAN)
        && [value_squares, companion_squares, products]
            .into_iter()
            .all(|squares| squares.abs() <= MAX_SQUARES)
}

impl AllCounts {
    /// Merges valid `sources` for the present `epochs` and the moments of `metrics`.
    pub(crate) fn merge<'a>(
        sources: impl Iterator<Item = &'a SourceCounts>,
        epochs: &[Epoch],
        metrics: &[String],
    ) -> Self {
        let mut all = Self::default();
        for SourceCounts { epochs: own, metrics: of, units, requests } in sources {
            // Index of each of the source's periods among the present ones.
            let index = |from: &u64| epochs.iter().position(|epoch| epoch.from == *from);
            let index: Vec<Option<usize>> = own.iter().map(index).collect();
            let merge = |into: &mut Vec<PairMoments>, from: &[PairMoments]| {
                into.resize(epochs.len(), PairMoments::default());
                for (at, moments) in index.iter().zip(from).filter(|(_, m)| is_plausible(m)) {
                    if let Some(at) = *at {
                        into[at] = into[at].merged(moments);
                    }
                }
            };
            for (variant, source) in units {
                let total = all.units.entry(variant.clone()).or_default();
                total.predictions = total.predictions.saturating_add(source.predictions);
                total.units.resize(epochs.len(), 0);
                for (at, count) in index.iter().zip(&source.units) {
                    if let Some(at) = *at {
                        total.units[at] = total.units[at].saturating_add(*count);
                    }
                }
                total.moments.resize_with(metrics.len(), Vec::new);
                for (into, metric) in total.moments.iter_mut().zip(metrics) {
                    let at = of.iter().position(|known| known == metric);
                    let from = at.and_then(|at| source.moments.get(at));
                    merge(into, from.map_or(&[], Vec::as_slice));
                }
            }
            for (variant, source) in requests {
                let total = all.requests.entry(variant.clone()).or_default();
                total.total.add(&source.total);
                merge(&mut total.errors, &source.errors);
                merge(&mut total.latencies, &source.latencies);
            }
        }
        all
    }
}

/// The sources of one experiment, as one node sees them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// What this node has written last.
    written: BTreeMap<String, SourceCounts>,
    /// What others have written.
    others: BTreeMap<String, SourceCounts>,
    /// Ids of those whose counts cannot be read; logged once.
    unreadable: BTreeSet<String>,
}

impl Sources {
    /// Writes this node's `own` counts, those that have changed, and reads those of the others.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn exchange(
        &mut self,
        store: &GrantedStore,
        experiment: &str,
        own: BTreeMap<String, SourceCounts>,
    ) -> Result<(), StoreError> {
        let list = format!("{}/sources", key(experiment));
        let counts = |id: &str| format!("{}/stats/{id}", key(experiment));
        let stored = store.get(list.clone()).await?;
        let mut ids: Vec<String> = parse_list(stored.as_deref());
        ids.truncate(MAX_SOURCES);
        let mut entries = Vec::new();
        for (id, counts_of) in &own {
            let is_listed = ids.contains(id);
            if !is_listed || self.written.get(id) != Some(counts_of) {
                entries.push((counts(id), to_json(counts_of)?));
            }
            if !is_listed {
                ids.push(id.clone());
            }
        }
        store.set_many(entries).await?;
        let excess = ids.len().saturating_sub(MAX_SOURCES);
        let forgotten: Vec<String> = ids.drain(..excess).map(|id| counts(&id)).collect();
        let listed = to_json(&ids)?;
        if stored.as_ref() != Some(&listed) && store.swap(list, stored, listed).await? {
            store.delete_many(forgotten).await?;
        }
        let others: Vec<String> = ids.into_iter().filter(|id| !own.contains_key(id)).collect();
        let found = store.get_many(others.iter().map(|id| counts(id)).collect()).await?;
        self.others.clear();
        for (id, (_, value)) in others.into_iter().zip(found) {
            let Some(value) = value else { continue };
            match SourceCounts::parse(&value) {
                Some(counts) => drop(self.others.insert(id, counts)),
                None => self.report(experiment, id),
            }
        }
        self.written = own;
        Ok(())
    }

    /// Logs, once, that the counts of a source are left out.
    fn report(&mut self, experiment: &str, id: String) {
        if !self.unreadable.contains(&id) && self.unreadable.len() < MAX_SOURCES {
            warn!(
                experiment,
                source = %id.escape_debug(),
                "the stored counts of another host cannot be read: they are left out"
            );
            self.unreadable.insert(id);
        }
    }

    /// Removes all counts of `experiment` from the store.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn remove(store: &GrantedStore, experiment: &str) -> Result<(), StoreError> {
        let list = format!("{}/sources", key(experiment));
        let stored = store.get(list.clone()).await?;
        let ids: Vec<String> = parse_list(stored.as_deref());
        let counts = ids.iter().take(MAX_SOURCES);
        let counts = counts.map(|id| format!("{}/stats/{id}", key(experiment)));
        store.delete_many(counts.chain([list]).collect()).await
    }

    /// Uses only this node's counts, without a store.
    pub(super) fn alone(&mut self, own: BTreeMap<String, SourceCounts>) {
        self.written = own;
    }

    /// The counts of every source.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &SourceCounts)> {
        self.written.iter().chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f64]) -> PairMoments {
        let mut moments = PairMoments::default();
        values.iter().for_each(|value| moments.add(*value, 0.0));
        moments
    }

    fn metrics(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn source(epochs: &[u64], values: &[&[f64]]) -> SourceCounts {
        let units = VariantUnits {
            predictions: 3,
            units: values.iter().map(|values| values.len() as u64).collect(),
            moments: vec![values.iter().map(|values| moments(values)).collect()],
        };
        let requests = VariantRequests {
            total: OutcomeCounts::default(),
            errors: values.iter().map(|values| moments(values)).collect(),
            latencies: vec![PairMoments::default(); epochs.len()],
        };
        SourceCounts {
            epochs: epochs.to_vec(),
            metrics: metrics(&["accuracy"]),
            units: BTreeMap::from([("control".to_owned(), units)]),
            requests: BTreeMap::from([("control".to_owned(), requests)]),
        }
    }

    #[test]
    fn sources_are_merged_by_period() {
        let epoch = |from| Epoch { from, shares: BTreeMap::new() };
        let epochs = [epoch(0), epoch(10)];
        let sources =
            [source(&[0, 10], &[&[1.0], &[2.0, 4.0]]), source(&[5, 10], &[&[100.0], &[6.0]])];
        let all = AllCounts::merge(sources.iter(), &epochs, &metrics(&["accuracy"]));
        let control = &all.units["control"];
        assert_eq!((control.predictions, &*control.units), (6, &[1, 3][..]));
        assert_eq!(control.moments[0][1], moments(&[2.0, 4.0]).merged(&moments(&[6.0])));
        assert_eq!(control.moments[0][0].mean_value, 1.0);
    }

    #[test]
    fn moments_of_another_metric_are_not_mixed_in() {
        let mut other = source(&[0], &[&[7.0]]);
        other.metrics = metrics(&["reward"]);
        let (sources, epochs) = ([other, source(&[0], &[&[5.0]])], [Epoch::default()]);
        let all = AllCounts::merge(sources.iter(), &epochs, &metrics(&["accuracy", "reward"]));
        let control = &all.units["control"];
        assert_eq!(control.units, [2]);
        assert_eq!(control.moments, [[moments(&[5.0])], [moments(&[7.0])]]);
    }

    #[test]
    fn counts_that_cannot_be_right_are_left_out_as_a_whole() {
        let valid = source(&[0, 10], &[&[1.0], &[2.0, 4.0]]);
        let read = |counts: &SourceCounts| SourceCounts::parse(&to_json(counts).unwrap());
        assert_eq!(read(&valid).as_ref(), Some(&valid));
        let units = |counts: &mut SourceCounts, edit: fn(&mut VariantUnits)| {
            counts.units.values_mut().for_each(edit);
        };
        let edits: [&dyn Fn(&mut SourceCounts); 9] = [
            &|counts| counts.epochs.push(20),
            &|counts| counts.metrics.push("reward".into()),
            &|counts| units(counts, |units| units.units.truncate(1)),
            &|counts| units(counts, |units| units.units[0] = u64::MAX),
            &|counts| units(counts, |units| units.predictions = u64::MAX),
            &|counts| units(counts, |units| units.moments[0].truncate(1)),
            &|counts| units(counts, |units| units.moments[0][1].value_squares = -1.0),
            &|counts| units(counts, |units| units.moments[0][1].mean_value = 1e300),
            &|counts| {
                let total = OutcomeCounts { buckets: vec![1; 3], ..OutcomeCounts::default() };
                counts.requests.values_mut().for_each(|of| of.total = total.clone());
            },
        ];
        for (index, edit) in edits.iter().enumerate() {
            let mut broken = valid.clone();
            edit(&mut broken);
            assert_eq!(read(&broken), None, "{index}");
        }
    }

    #[tokio::test]
    async fn source_of_another_program_is_left_out_and_the_others_count() {
        let (store, mut sources) = (GrantedStore::in_memory(), Sources::default());
        for (id, json) in [("a", to_json(&source(&[0], &[&[5.0]])).unwrap()), ("b", b"7".to_vec())]
        {
            store.set(format!("{}/stats/{id}", key("iris")), json).await.unwrap();
        }
        store.set(format!("{}/sources", key("iris")), b"[\"a\",\"b\"]".to_vec()).await.unwrap();
        sources.exchange(&store, "iris", BTreeMap::new()).await.unwrap();
        assert_eq!(sources.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["a"]);
        assert_eq!(sources.unreadable, BTreeSet::from(["b".to_owned()]));
    }
}
