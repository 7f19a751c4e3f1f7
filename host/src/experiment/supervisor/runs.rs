//! The runs of an experiment: its stored change, and whether that is of an earlier experiment of the
//! same name, with other variants.

use spinfer_experiment::progress::{Epoch, EventKind};
use spinfer_experiment::{Change, Experiment, key};

use super::Stored;
use super::looks::looks_key;
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

/// What an operator does about the run of another host in the store.
pub(in crate::experiment) const ANOTHER_RUN: &str = "another host has started this experiment with \
     other variants or another unit; restart this host with the same experiments.toml";

/// The run of an experiment that this process supervises.
pub(super) struct Run<'h> {
    pub(super) experiment: &'h Experiment,
    /// This node, in the journal.
    pub(super) actor: String,
    /// Whether this process has found the run in the store, or begun it. From then on it replaces no
    /// other: two hosts with different files would replace each other's at every look.
    has_joined: bool,
}

impl<'h> Run<'h> {
    pub(super) fn new(experiment: &'h Experiment, process: &str) -> Self {
        Self { experiment, actor: format!("node {process}"), has_joined: false }
    }

    /// The stored change; `None` if the run has just begun, and the next look is its first.
    ///
    /// # Errors
    /// The store fails, or has the run of another host.
    pub(super) async fn look(
        &mut self,
        store: &GrantedStore,
    ) -> Result<Option<Stored>, StoreError> {
        let mut stored = self.stored(store).await?;
        if !self.has_joined {
            self.join(store, &mut stored).await?;
        }
        if stored.is_of_earlier_run {
            self.begin(store, stored).await?;
            return Ok(None);
        }
        Ok(Some(stored))
    }

    /// Reads the stored change. One that cannot be read is replaced.
    ///
    /// # Errors
    /// As for [`Self::look`].
    pub(super) async fn stored(&self, store: &GrantedStore) -> Result<Stored, StoreError> {
        let experiment = self.experiment;
        let json = store.get(key(&experiment.name)).await?;
        let Some(text) = &json else {
            return Ok(Stored { json, change: Change::default(), is_of_earlier_run: false });
        };
        let parsed: Option<Change> = serde_json::from_slice(text).ok();
        let is_of_another_run =
            parsed.as_ref().is_some_and(|change| change.is_of_another_run(experiment));
        if self.has_joined && is_of_another_run {
            return Err(StoreError(ANOTHER_RUN.to_owned()));
        }
        let parsed = parsed.filter(|change| change.allocations(experiment).is_ok());
        let is_of_earlier_run = parsed.is_none();
        let change = parsed.unwrap_or_else(|| first_of_new_run(experiment, now()));
        Ok(Stored { change, json, is_of_earlier_run })
    }

    /// Compares the stored digest with that of this experiment. Without a change of this experiment,
    /// another digest means that the variants are others than those that the units were assigned to.
    async fn join(&mut self, store: &GrantedStore, stored: &mut Stored) -> Result<(), StoreError> {
        let digest = self.experiment.digest();
        let recorded = store.get(digest_key(self.experiment)).await?;
        let is_recorded = recorded.as_deref() == Some(digest.as_bytes());
        if stored.is_of_earlier_run {
            return Ok(());
        }
        if !is_recorded && recorded.is_some() && stored.change.digest.is_none() {
            let shares = stored.change.shares(self.experiment);
            let epochs = vec![Epoch { from: now(), shares }];
            // A change without a digest applies to any variants.
            stored.change = Change { digest: Some(digest), epochs, ..stored.change.clone() };
            stored.is_of_earlier_run = true;
            return Ok(());
        }
        if !is_recorded {
            store.set(digest_key(self.experiment), digest.into_bytes()).await?;
        }
        self.has_joined = true;
        Ok(())
    }

    /// Replaces the change of an earlier run, so that its units are not counted, and removes the
    /// numbers of an even earlier one with the same variants.
    async fn begin(&mut self, store: &GrantedStore, stored: Stored) -> Result<(), StoreError> {
        let Stored { json, change, .. } = stored;
        let experiment = self.experiment;
        let detail = "the variants, or the unit, are others than those of the earlier experiment of \
                      this name, whose numbers do not count";
        let event = event(&self.actor, EventKind::Started, detail.to_owned());
        let after = change.clone();
        // If another node was first, the next look reads what it has stored.
        if commit(store, experiment, (json, &change), after, event).await?.is_some() {
            store.set(digest_key(experiment), experiment.digest().into_bytes()).await?;
            self.has_joined = true;
            remove_numbers(store, experiment).await?;
        }
        Ok(())
    }
}

/// Removes what an earlier run with the same variants has left: counts, looks and the hold time.
///
/// # Errors
/// The store fails.
pub(in crate::experiment) async fn remove_numbers(
    store: &GrantedStore,
    experiment: &Experiment,
) -> Result<(), StoreError> {
    Sources::remove(store, &run_name(experiment)).await?;
    store.delete_many(vec![looks_key(experiment), held_key(experiment)]).await
}

/// The change from which an experiment starts whose name an earlier one had: units of before `time`
/// are not counted.
pub(in crate::experiment) fn first_of_new_run(experiment: &Experiment, time: u64) -> Change {
    let shares = Change::default().shares(experiment);
    let (digest, epochs) = (Some(experiment.digest()), vec![Epoch { from: time, shares }]);
    Change { digest, epochs, ..Change::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::fixtures;
    use crate::experiment::ledger::journal;

    /// The experiment `iris` whose treatment is `component`.
    fn experiment(component: &str) -> Experiment {
        let mut experiment = fixtures::experiment("", 0.1);
        experiment.variants[1].component = component.into();
        experiment
    }

    async fn is_started_by(run: &mut Run<'_>, store: &GrantedStore) -> bool {
        run.look(store).await.unwrap().is_none()
    }

    async fn is_of_another(run: &mut Run<'_>, store: &GrantedStore) -> bool {
        run.look(store).await.is_err_and(|error| error.to_string() == ANOTHER_RUN)
    }

    #[tokio::test]
    async fn running_host_leaves_the_run_of_one_with_other_variants_alone() {
        let (store, [old, new]) = (GrantedStore::in_memory(), ["b", "c"].map(experiment));
        let (mut first, mut second) = (Run::new(&old, "1"), Run::new(&new, "2"));
        assert!(!is_started_by(&mut first, &store).await);
        assert!(is_started_by(&mut second, &store).await);
        let stored = store.get(key("iris")).await.unwrap();
        for _ in 0..3 {
            assert!(is_of_another(&mut first, &store).await);
            assert!(!is_started_by(&mut second, &store).await);
        }
        assert_eq!(store.get(key("iris")).await.unwrap(), stored);
        assert_eq!(journal(&store, "iris").await.unwrap().len(), 1);
        // Started again with the old file.
        let mut third = Run::new(&old, "3");
        assert!(is_started_by(&mut third, &store).await);
        assert!(!is_started_by(&mut first, &store).await, "its own run again");
        assert!(is_of_another(&mut second, &store).await);
        assert_eq!(journal(&store, "iris").await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn of_hosts_that_start_at_once_each_starts_its_run_once() {
        let store = GrantedStore::in_memory();
        let [before, one, other] = ["b", "c", "d"].map(experiment);
        assert!(!is_started_by(&mut Run::new(&before, "0"), &store).await);
        let (mut first, mut second) = (Run::new(&one, "1"), Run::new(&other, "2"));
        assert!(is_started_by(&mut first, &store).await);
        assert!(is_started_by(&mut second, &store).await);
        assert!(is_of_another(&mut first, &store).await);
        assert!(!is_started_by(&mut second, &store).await);
        assert_eq!(journal(&store, "iris").await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn running_host_replaces_a_change_that_cannot_be_read() {
        let (store, experiment) = (GrantedStore::in_memory(), experiment("b"));
        let mut run = Run::new(&experiment, "1");
        assert!(!is_started_by(&mut run, &store).await);
        store.set(key("iris"), b"7".to_vec()).await.unwrap();
        assert!(is_started_by(&mut run, &store).await);
        assert!(!is_started_by(&mut run, &store).await);
    }
}
