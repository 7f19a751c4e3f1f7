//! What the nodes of an experiment know of it, shared in the router's key-value store. Each node
//! writes its own counts, and adds those of the others to them. Nothing is ever added in the store, so
//! a node that dies or starts again leaves no count twice.
//!
//! - Units are counted in the prediction log's file. Their totals have the id of that file.
//! - Requests are counted by the process. Their totals have an id of the process, and stay after
//!   its exit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spinfer_experiment::key;
use spinfer_experiment::progress::Epoch;
use spinfer_statistics::moments::PairMoments;

use super::outcomes::OutcomeCounts;
use crate::prediction_log::unit_totals::VariantUnits;
use crate::storage::key_value::{GrantedStore, StoreError};

/// Maximum number of files and processes whose counts are read. The oldest are deleted.
const MAX_SOURCES: usize = 128;

/// The counts of one source, as stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceCounts {
    /// Start of each period of equal allocations, in milliseconds of Unix time.
    pub epochs: Vec<u64>,
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
pub(super) struct VariantRequests {
    /// All of them.
    pub total: OutcomeCounts,
    /// Moments of errors and latencies, by period.
    pub errors: Vec<PairMoments>,
    pub latencies: Vec<PairMoments>,
}

/// The counts of all sources together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AllCounts {
    pub units: BTreeMap<String, VariantUnits>,
    pub requests: BTreeMap<String, VariantRequests>,
}

impl AllCounts {
    /// Merges `sources` for the present `epochs` and a number of `metrics`. What is not valid, as
    /// another program may have written it, is left out.
    pub(super) fn merge<'a>(
        sources: impl Iterator<Item = &'a SourceCounts>,
        epochs: &[Epoch],
        metrics: usize,
    ) -> Self {
        let mut all = Self::default();
        for SourceCounts { epochs: own, units, requests } in sources {
            // Index of each of the source's periods among the present ones.
            let index = |from: &u64| epochs.iter().position(|epoch| epoch.from == *from);
            let index: Vec<Option<usize>> = own.iter().map(index).collect();
            let merge = |into: &mut Vec<PairMoments>, from: &[PairMoments]| {
                into.resize(epochs.len(), PairMoments::default());
                for (at, moments) in index.iter().zip(from).filter(|(_, m)| m.is_valid()) {
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
                total.moments.resize_with(metrics, Vec::new);
                for (into, from) in total.moments.iter_mut().zip(&source.moments) {
                    merge(into, from);
                }
                for moments in &mut total.moments {
                    moments.resize(epochs.len(), PairMoments::default());
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
        let mut ids: Vec<String> = stored
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok())
            .unwrap_or_default();
        ids.truncate(MAX_SOURCES);
        let mut entries = Vec::new();
        for (id, counts_of) in &own {
            let is_listed = ids.contains(id);
            if !is_listed || self.written.get(id) != Some(counts_of) {
                entries.push((counts(id), json(counts_of)?));
            }
            if !is_listed {
                ids.push(id.clone());
            }
        }
        store.set_many(entries).await?;
        let excess = ids.len().saturating_sub(MAX_SOURCES);
        let forgotten: Vec<String> = ids.drain(..excess).map(|id| counts(&id)).collect();
        let listed = json(&ids)?;
        if stored.as_ref() != Some(&listed) && store.swap(list, stored, listed).await? {
            store.delete_many(forgotten).await?;
        }
        let others: Vec<String> = ids.into_iter().filter(|id| !own.contains_key(id)).collect();
        let found = store.get_many(others.iter().map(|id| counts(id)).collect()).await?;
        let parsed = others
            .into_iter()
            .zip(found)
            .filter_map(|(id, (_, value))| Some((id, serde_json::from_slice(&value?).ok()?)));
        self.others = parsed.collect();
        self.written = own;
        Ok(())
    }

    /// Removes all counts of `experiment` from the store.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn remove(store: &GrantedStore, experiment: &str) -> Result<(), StoreError> {
        let list = format!("{}/sources", key(experiment));
        let stored = store.get(list.clone()).await?;
        let ids: Vec<String> = stored
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok())
            .unwrap_or_default();
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

fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f64]) -> PairMoments {
        let mut moments = PairMoments::default();
        values.iter().for_each(|value| moments.add(*value, 0.0));
        moments
    }

    fn source(epochs: &[u64], values: &[&[f64]]) -> SourceCounts {
        let units = VariantUnits {
            predictions: 3,
            units: values.iter().map(|values| values.len() as u64).collect(),
            moments: vec![values.iter().map(|values| moments(values)).collect()],
        };
        SourceCounts {
            epochs: epochs.to_vec(),
            units: BTreeMap::from([("control".to_owned(), units)]),
            requests: BTreeMap::new(),
        }
    }

    #[test]
    fn sources_are_merged_by_period() {
        let epoch = |from| Epoch { from, shares: BTreeMap::new() };
        let epochs = [epoch(0), epoch(10)];
        let sources =
            [source(&[0, 10], &[&[1.0], &[2.0, 4.0]]), source(&[5, 10], &[&[100.0], &[6.0]])];
        let all = AllCounts::merge(sources.iter(), &epochs, 1);
        let control = &all.units["control"];
        assert_eq!((control.predictions, &*control.units), (6, &[1, 3][..]));
        assert_eq!(control.moments[0][1], moments(&[2.0, 4.0]).merged(&moments(&[6.0])));
        assert_eq!(control.moments[0][0].mean_value, 1.0);
    }

    #[test]
    fn invalid_moments_are_left_out() {
        let mut broken = source(&[0], &[&[1.0, 2.0]]);
        broken.units.get_mut("control").unwrap().moments[0][0].value_squares = f64::NAN;
        let epochs = [Epoch::default()];
        let all = AllCounts::merge([broken, source(&[0], &[&[5.0]])].iter(), &epochs, 1);
        assert_eq!(all.units["control"].moments[0][0], moments(&[5.0]));
    }
}
