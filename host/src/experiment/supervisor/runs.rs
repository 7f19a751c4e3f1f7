//! The runs of an experiment: its stored change, and whether that is of an earlier experiment of the
//! same name, with other variants.

use spinfer_experiment::progress::{Epoch, EventKind};
use spinfer_experiment::{Change, Experiment, key};

use super::looks::looks_key;
use super::{Stored, Supervised};
use crate::experiment::ledger::{commit, event, now};
use crate::experiment::nodes::Sources;
use crate::storage::key_value::{GrantedStore, StoreError};

/// The part of the keys of all numbers of an experiment: its name, and the digest of its variants.
/// Numbers of an earlier experiment of the same name, with other variants, are not mixed in.
pub(super) fn run_name(experiment: &Experiment) -> String {
    format!("{}/{}", experiment.name, experiment.digest())
}

/// The key of the digest of the experiment that the numbers of this name are of.
fn digest_key(experiment: &Experiment) -> String {
    format!("{}/digest", key(&experiment.name))
}

/// The key of how long the present step of a canary has been held.
pub(super) fn held_key(experiment: &Experiment) -> String {
    format!("{}/held", key(&run_name(experiment)))
}

impl Supervised<'_> {
    pub(super) async fn stored(&self, store: &GrantedStore) -> Result<Stored, StoreError> {
        let experiment = self.experiment;
        let json = store.get(key(&experiment.name)).await?;
        let Some(text) = &json else {
            return Ok(Stored { json, change: Change::default(), is_of_earlier_run: false });
        };
        let parsed = serde_json::from_slice(text).ok();
        let parsed = parsed.filter(|change: &Change| change.allocations(experiment).is_ok());
        let is_of_earlier_run = parsed.is_none();
        let change = parsed.unwrap_or_else(|| first_of_new_run(experiment, now()));
        Ok(Stored { change, json, is_of_earlier_run })
    }

    /// Compares the stored digest with that of this experiment. Without a change of this experiment,
    /// another digest means that the variants are others than those that the units were assigned to.
    pub(super) async fn recognise(
        &mut self,
        store: &GrantedStore,
        stored: &mut Stored,
    ) -> Result<(), StoreError> {
        let digest = self.experiment.digest();
        let recorded = store.get(digest_key(self.experiment)).await?;
        if recorded.as_deref() != Some(digest.as_bytes()) {
            if recorded.is_some() && !stored.is_of_earlier_run && stored.change.digest.is_none() {
                let shares = stored.change.shares(self.experiment);
                let epochs = vec![Epoch { from: now(), shares }];
                // A change without a digest applies to any variants.
                stored.change = Change { digest: Some(digest), epochs, ..stored.change.clone() };
                stored.is_of_earlier_run = true;
                return Ok(());
            }
            store.set(digest_key(self.experiment), digest.into_bytes()).await?;
        }
        self.is_recorded = !stored.is_of_earlier_run;
        Ok(())
    }

    /// Replaces the change of an earlier experiment, so that its units are not counted, and removes
    /// the numbers of an even earlier one with the same variants.
    pub(super) async fn begin(
        &self,
        store: &GrantedStore,
        stored: Stored,
    ) -> Result<(), StoreError> {
        let Stored { json, change, .. } = stored;
        let run = run_name(self.experiment);
        let detail = "the variants are others than those of the earlier experiment of this name, \
                      whose numbers do not count";
        let event = event(&self.actor(), EventKind::Started, detail.to_owned());
        let after = change.clone();
        // If another node was first, the next look reads what it has stored.
        if commit(store, self.experiment, (json, &change), after, event).await?.is_some() {
            Sources::remove(store, &run).await?;
            let keys = vec![looks_key(self.experiment), held_key(self.experiment)];
            store.delete_many(keys).await?;
        }
        Ok(())
    }
}

/// The change from which an experiment starts whose name an earlier one had: units of before `time`
/// are not counted.
pub(in crate::experiment) fn first_of_new_run(experiment: &Experiment, time: u64) -> Change {
    let shares = Change::default().shares(experiment);
    let (digest, epochs) = (Some(experiment.digest()), vec![Epoch { from: time, shares }]);
    Change { digest, epochs, ..Change::default() }
}
