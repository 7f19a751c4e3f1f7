//! Takes a variant that breaches a guardrail out of traffic.

use spinfer_experiment::Change;
use spinfer_experiment::progress::{EventKind, Rollback};

use super::Stored;
use super::runs::Run;
use super::watches::{first_in_traffic, guarded};
use crate::experiment::guardrails::GuardrailStatus;
use crate::experiment::ledger::{commit, event, now};
use crate::experiment::text::breach;
use crate::storage::key_value::{GrantedStore, StoreError};

/// Attempts to store a rollback while others change the experiment.
const ATTEMPTS: usize = 10;

impl Run<'_> {
    /// Takes the variant of a breached guardrail out of traffic. Returns the change in effect.
    pub(super) async fn roll_back(
        &self,
        store: &GrantedStore,
        mut stored: Stored,
        status: &GuardrailStatus,
    ) -> Result<Change, StoreError> {
        let experiment = self.experiment;
        let guardrail = experiment.guardrails.iter().find(|g| g.to_string() == status.guardrail);
        let epochs = stored.change.epochs(experiment);
        let first = first_in_traffic(&epochs, &status.variant);
        let since = epochs.get(first).map_or(0, |epoch| epoch.from);
        let reason = breach(status, guardrail, since);
        for _ in 0..ATTEMPTS {
            let Stored { json, change, .. } = stored;
            // An operator may have stopped the experiment meanwhile.
            if !guarded(experiment, &change).contains_key(&status.variant) {
                return Ok(change);
            }
            let rollback = Rollback { reason: reason.clone(), time: now() };
            let after =
                change.roll_back(experiment, &status.variant, rollback).map_err(StoreError)?;
            let detail = format!("{}: {reason}", status.variant);
            let event = event(&self.actor, EventKind::RolledBack, detail);
            if let Some(after) = commit(store, experiment, (json, &change), after, event).await? {
                return Ok(after);
            }
            stored = self.stored(store).await?;
        }
        Err(StoreError(format!("the experiment was changed concurrently {ATTEMPTS} times")))
    }
}
