//! Changes of an experiment by an operator: what is accepted, and what the journal has of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{CONTROL, SUM_TOLERANCE};
use spinfer_experiment::progress::{EventKind, Rollback};
use spinfer_experiment::{Change, Experiment, Kind, Variant, key};

use super::STORE;
use super::ledger::{self, OPERATOR, commit};
use super::router::ExperimentRouter;
use super::status::{ExperimentStatus, describe, find, is_started, parse};
use super::supervisor::{ANOTHER_RUN, first_of_new_run, remove_numbers};
use super::text::percent;
use crate::storage::key_value::{GrantedStore, StoreError};

/// The share of one of the 10,000 buckets of units: a smaller one has none.
const BUCKET: f64 = 1e-4;

/// A requested change of an experiment. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocationUpdate {
    /// Shares of variants. A variant that is not named keeps its share; control has the rest,
    /// unless it is named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allocations: BTreeMap<String, f64>,
    /// True starts an experiment that waits for it, or one that is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    /// True stops the experiment, false resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<bool>,
    /// The variant that serves every unit once stopped. Requires `stopped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
}

/// Why an experiment was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("experiment `{name}` does not exist; available experiments: {known}")]
    Unknown { name: String, known: String },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Conflict(String),
    #[error("the key-value store: {0}")]
    Store(String),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// Changes the experiment `name` in the store, from which every node that shares it reads the
/// change.
///
/// # Errors
/// Fails if the experiment does not exist, the update is invalid, or another change happened
/// concurrently.
pub async fn change(
    routers: impl Iterator<Item = &ExperimentRouter> + Clone,
    name: &str,
    update: &AllocationUpdate,
) -> Result<ExperimentStatus, ChangeError> {
    let (router, experiment) = find(routers, name)?;
    let store = router.store().ok_or_else(|| {
        let id = &router.service().spec().id;
        ChangeError::Conflict(format!(
            "component `{id}` is granted no key-value store `{STORE}`, which stores changes; write \
             key_value_stores = [\"{STORE}\"] under [component.{id}]"
        ))
    })?;
    let is_supervised = router.assessment(name).is_some();
    let after = store_update(store, experiment, update, is_supervised).await?;
    Ok(describe(router, experiment, &after, router.check_file().await))
}

/// Stores the change of `experiment` by `update`. A stored value that is no valid change of it is not
/// in effect, and is replaced; but a host that has supervised the experiment, `is_supervised`, does not
/// end the run that another host has begun since.
async fn store_update(
    store: &GrantedStore,
    experiment: &Experiment,
    update: &AllocationUpdate,
    is_supervised: bool,
) -> Result<Change, ChangeError> {
    let name = &experiment.name;
    let seen = store.get(key(name)).await?;
    let (before, is_new_run) = match seen.as_deref().map(|json| (json, parse(experiment, json))) {
        None => (Change::default(), false),
        Some((_, Ok(change))) => (change, false),
        Some((json, Err(_))) => {
            let stored: Option<Change> = serde_json::from_slice(json).ok();
            if is_supervised && stored.is_some_and(|change| change.is_of_another_run(experiment)) {
                return Err(ChangeError::Conflict(ANOTHER_RUN.to_owned()));
            }
            (first_of_new_run(experiment, ledger::now()), true)
        }
    };
    let after = apply(experiment, &before, update)?;
    let detail = detail_of(experiment, &before, &after, update);
    let event = ledger::event(OPERATOR, kind_of(update), detail);
    let committed = commit(store, experiment, (seen, &before), after, event).await;
    let after = committed?.ok_or_else(|| {
        ChangeError::Conflict(format!("experiment `{name}` was changed concurrently; try again"))
    })?;
    if is_new_run {
        remove_numbers(store, experiment).await?;
    }
    Ok(after)
}

/// The change `before`, overridden by `update`.
fn apply(
    experiment: &Experiment,
    before: &Change,
    update: &AllocationUpdate,
) -> Result<Change, ChangeError> {
    let AllocationUpdate { allocations, started, stopped, winner } = update;
    let name = &experiment.name;
    if *update == AllocationUpdate::default() {
        return Err(ChangeError::Invalid(
            "the update is empty; write `allocations`, `started`, or `stopped` with an optional \
             `winner`"
                .to_owned(),
        ));
    }
    if winner.is_some() && *stopped != Some(true) {
        return Err(ChangeError::Invalid(
            "`winner`: only a stopped experiment has one; write `\"stopped\": true`, too".into(),
        ));
    }
    let mut after = Change { digest: Some(experiment.digest()), ..before.clone() };
    match started {
        None => {}
        Some(true) if stopped.is_some() => {
            return Err(ChangeError::Invalid(
                "`started` and `stopped`: an update is a start or a stop; remove one".to_owned(),
            ));
        }
        Some(true) if is_running(experiment, before) && before.rolled_back.is_empty() => {
            return Err(ChangeError::Conflict(format!("experiment `{name}` is running already")));
        }
        Some(true) => {
            (after.started, after.stopped, after.winner) = (true, false, None);
        }
        Some(false) => {
            return Err(ChangeError::Invalid(
                "`started`: an experiment ends by `\"stopped\": true`; write that".to_owned(),
            ));
        }
    }
    if after.stopped && stopped.is_none() {
        return Err(ChangeError::Conflict(format!(
            "experiment `{name}` is stopped; `spinfer experiment start`, or `ramp --resume`, resumes it"
        )));
    }
    let is_out = |variant: &str, rollback: &Rollback| {
        ChangeError::Conflict(format!(
            "variant `{variant}` of experiment `{name}` was rolled back ({}); `spinfer experiment \
             ramp {name} {variant}=<share> --resume` brings it back",
            rollback.reason
        ))
    };
    if let Some(winner) = winner
        && let Some(rollback) = before.rolled_back.get(winner)
    {
        return Err(is_out(winner, rollback));
    }
    if let Some(stopped) = *stopped {
        after.stopped = stopped;
        after.winner.clone_from(winner);
    }
    let resumes = *started == Some(true) || *stopped == Some(false);
    let is_back = |name: &String| allocations.get(name).is_some_and(|share| *share > 0.0);
    if resumes && after.rolled_back.keys().any(is_back) {
        after.rolled_back.retain(|name, _| !is_back(name));
        after.step = None;
    } else if let Some((variant, rollback)) = after.rolled_back.first_key_value() {
        // Of a stopped experiment, those that it resumes with.
        let others = experiment.assignable().map(|(_, other)| &other.name);
        let mut others = others.filter(|other| *other != CONTROL && *other != variant);
        let resumed = Change { stopped: false, ..before.clone() }.shares(experiment);
        let has_others = others.any(|other| resumed.contains_key(other));
        // Resumed with nothing but control, or resumed although it was not stopped.
        let is_void = resumes && allocations.is_empty() && (!before.stopped || !has_others);
        if is_void || after.rolled_back.keys().any(is_back) {
            return Err(is_out(variant, rollback));
        }
    }
    if !allocations.is_empty() {
        after = after.ramp(experiment, allocations).map_err(ChangeError::Invalid)?;
        check_ramp(experiment, &after)?;
    }
    after.allocations(experiment).map_err(ChangeError::Invalid)?;
    Ok(after)
}

/// Checks the allocations after a ramp by the kind of the experiment.
fn check_ramp(experiment: &Experiment, change: &Change) -> Result<(), ChangeError> {
    let share = |name: &str| change.allocations.get(name).copied().unwrap_or(0.0);
    match &experiment.kind {
        Kind::Bandit { minimum_allocation } => {
            check_minimum(experiment, change, *minimum_allocation)
        }
        Kind::Canary { .. } if share(CONTROL) + SUM_TOLERANCE < BUCKET => {
            let name = &experiment.name;
            let mut treatments = experiment.assignable().map(|(_, variant)| &variant.name);
            let treatment = treatments.find(|name| *name != CONTROL).map_or("", String::as_str);
            Err(ChangeError::Invalid(format!(
                "experiment `{name}` is a canary: without units of `{CONTROL}` its steps are skipped, \
                 and no guardrail can compare; `spinfer experiment promote {name} {treatment}` ends it \
                 with `{treatment}` for all units, and a ramp takes at most 0.9999"
            )))
        }
        Kind::Canary { .. } | Kind::Experiment | Kind::Shadow => Ok(()),
    }
}

/// Checks that no variant of a bandit that is in traffic has less than the `minimum` allocation.
fn check_minimum(
    experiment: &Experiment,
    change: &Change,
    minimum: f64,
) -> Result<(), ChangeError> {
    for (_, Variant { name, .. }) in experiment.assignable() {
        let share = change.allocations.get(name).copied().unwrap_or(0.0);
        if share + SUM_TOLERANCE < minimum && !change.rolled_back.contains_key(name) {
            return Err(ChangeError::Invalid(format!(
                "variant `{name}`: {share} is below the minimum_allocation of the bandit, {minimum}; \
                 write at least {minimum}, also for what remains for `{CONTROL}`"
            )));
        }
    }
    Ok(())
}

/// What an update is in the journal.
fn kind_of(update: &AllocationUpdate) -> EventKind {
    match (update.started, update.stopped) {
        (Some(true), _) | (_, Some(false)) => EventKind::Started,
        (_, Some(true)) => EventKind::Stopped,
        _ => EventKind::Ramped,
    }
}

/// What an update is in the journal, with the shares after it.
fn detail_of(
    experiment: &Experiment,
    before: &Change,
    after: &Change,
    update: &AllocationUpdate,
) -> String {
    let shares = shares_text(experiment, after);
    let resumes = update.started == Some(true) || update.stopped == Some(false);
    match &update.winner {
        Some(winner) => format!("promoted {winner}: {shares}"),
        None if resumes && (before.stopped || !before.rolled_back.is_empty()) => {
            format!("resumed: {shares}")
        }
        None => shares,
    }
}

/// `control 80.0 %, treatment 20.0 %`
fn shares_text(experiment: &Experiment, change: &Change) -> String {
    let shares = change.shares(experiment);
    let shares = shares.iter().map(|(name, share)| format!("{name} {}", percent(*share)));
    shares.collect::<Vec<_>>().join(", ")
}

/// Whether units decide assignments.
fn is_running(experiment: &Experiment, change: &Change) -> bool {
    is_started(experiment, change) && !change.stopped
}

#[cfg(test)]
mod tests;
