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
mod tests {
    use super::*;
    use crate::experiment::fixtures;
    use crate::experiment::supervisor::looks_key;

    fn experiment() -> Experiment {
        experiment_with("")
    }

    fn experiment_with(keys: &str) -> Experiment {
        fixtures::experiment(keys, 0.1)
    }

    fn update(before: &Change, json: &str) -> Result<Change, ChangeError> {
        apply(&experiment(), before, &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn manual_experiment_is_started_once_and_again_after_a_stop() {
        let experiment = experiment_with("start = \"manual\"");
        let update = |before: &Change, json: &str| {
            apply(&experiment, before, &serde_json::from_str(json).unwrap())
        };
        let start = r#"{"started": true}"#;
        let started = update(&Change::default(), start).unwrap();
        assert!(started.started && is_running(&experiment, &started));
        let conflict = update(&started, start).unwrap_err();
        assert_eq!(conflict.to_string(), "experiment `iris` is running already");
        let stopped = update(&started, r#"{"stopped": true, "winner": "treatment"}"#).unwrap();
        assert!(!is_running(&experiment, &stopped));
        assert_eq!(update(&stopped, start).unwrap(), started);
        for (json, part) in [
            (r#"{"started": false}"#, "ends by `\"stopped\": true`"),
            (r#"{"started": true, "stopped": true}"#, "is a start or a stop; remove one"),
        ] {
            let error = update(&Change::default(), json).unwrap_err();
            assert!(matches!(&error, ChangeError::Invalid(message) if message.contains(part)));
        }
    }

    #[test]
    fn automatic_experiment_is_running_from_its_start() {
        let conflict = update(&Change::default(), r#"{"started": true}"#).unwrap_err();
        assert_eq!(conflict.to_string(), "experiment `iris` is running already");
    }

    #[test]
    fn rolled_back_variant_returns_by_a_resume_that_names_its_share_only() {
        let rollback = Rollback { reason: "guardrail error_rate".into(), time: 1 };
        let running = Change::default().roll_back(&experiment(), "treatment", rollback).unwrap();
        let stopped = Change { stopped: true, ..running.clone() };
        for (before, json) in [
            (&running, r#"{"started": true}"#),
            (&running, r#"{"stopped": false}"#),
            (&running, r#"{"allocations": {"treatment": 0.1}}"#),
            (&running, r#"{"stopped": true, "winner": "treatment"}"#),
            (&stopped, r#"{"stopped": true, "winner": "treatment"}"#),
            (&stopped, r#"{"started": true}"#),
            (&stopped, r#"{"stopped": false}"#),
        ] {
            let error = update(before, json).unwrap_err();
            let part = "`spinfer experiment ramp iris treatment=<share> --resume` brings it back";
            assert!(
                matches!(&error, ChangeError::Conflict(message) if message.contains(part)),
                "{json}: {error}"
            );
        }
        let resume = r#"{"allocations": {"treatment": 0.1}, "stopped": false}"#;
        for before in [&running, &stopped] {
            let after = update(before, resume).unwrap();
            assert!(after.rolled_back.is_empty() && !after.stopped);
            assert_eq!(after.allocations["treatment"], 0.1);
        }
    }

    #[test]
    fn ramp_of_a_bandit_below_its_minimum_is_refused_with_the_bound() {
        let bandit = experiment_with("kind = \"bandit\"\nminimum_allocation = 0.1");
        let ramp = |share: f64| {
            let allocations = BTreeMap::from([("treatment".to_owned(), share)]);
            let update = AllocationUpdate { allocations, ..AllocationUpdate::default() };
            apply(&bandit, &Change::default(), &update)
        };
        assert_eq!(ramp(0.1).unwrap().allocations["treatment"], 0.1);
        assert_eq!(ramp(0.9).unwrap().allocations["control"], 0.1);
        for share in [0.0, 0.05, 0.95] {
            let error = ramp(share).unwrap_err().to_string();
            assert!(error.contains("below the minimum_allocation of the bandit, 0.1"), "{error}");
        }
    }

    #[test]
    fn ramp_of_a_canary_that_leaves_control_no_units_is_refused_with_the_command_that_does_so() {
        let canary = fixtures::canary("[{ allocation = 0.1, hold = \"1h\" }]");
        let update =
            |json: &str| apply(&canary, &Change::default(), &serde_json::from_str(json).unwrap());
        for json in [
            r#"{"allocations": {"treatment": 1}}"#,
            r#"{"allocations": {"treatment": 0.99999}}"#,
            r#"{"allocations": {"control": 0, "treatment": 1}}"#,
            r#"{"allocations": {"treatment": 1}, "stopped": false}"#,
        ] {
            let error = update(json).unwrap_err();
            assert!(matches!(&error, ChangeError::Invalid(_)), "{error}");
            let part = "`spinfer experiment promote iris treatment` ends it";
            assert!(error.to_string().contains(part), "{json}: {error}");
        }
        let ramped = update(r#"{"allocations": {"treatment": 0.9999}}"#).unwrap();
        assert_eq!(ramped.allocations["control"], 0.0001);
        let promoted = update(r#"{"stopped": true, "winner": "treatment"}"#).unwrap();
        assert_eq!(promoted.winner.as_deref(), Some("treatment"));
    }

    #[test]
    fn resume_and_promotion_are_named_in_the_journal() {
        let experiment = experiment();
        let detail = |before: &Change, json: &str| {
            let update: AllocationUpdate = serde_json::from_str(json).unwrap();
            let after = apply(&experiment, before, &update).unwrap();
            detail_of(&experiment, before, &after, &update)
        };
        let stopped = Change { stopped: true, ..Change::default() };
        let promote = r#"{"stopped": true, "winner": "treatment"}"#;
        assert_eq!(detail(&Change::default(), promote), "promoted treatment: treatment 100.0 %");
        let resumed = detail(&stopped, r#"{"stopped": false}"#);
        assert_eq!(resumed, "resumed: control 90.0 %, treatment 10.0 %");
    }

    #[test]
    fn change_is_one_of_the_present_variants() {
        let ramped = update(&Change::default(), r#"{"allocations": {"treatment": 0.25}}"#).unwrap();
        assert_eq!(ramped.digest, Some(experiment().digest()));
        let json = serde_json::to_vec(&ramped).unwrap();
        assert_eq!(parse(&experiment(), &json), Ok(ramped));
        let mut restarted = experiment();
        restarted.variants[1].component = "other".into();
        let problem = parse(&restarted, &json).unwrap_err();
        assert!(
            problem.contains("another run of experiment `iris`, with other variants"),
            "{problem}"
        );
    }

    #[tokio::test]
    async fn update_ends_the_run_of_another_host_only_before_the_first_look() {
        let store = GrantedStore::in_memory();
        let mut other = experiment();
        other.variants[1].component = "other".into();
        let stored = Change { digest: Some(other.digest()), ..Change::default() };
        let stored = serde_json::to_vec(&stored).unwrap();
        store.set(key("iris"), stored.clone()).await.unwrap();
        let shares = BTreeMap::from([("treatment".to_owned(), 0.25)]);
        let update = AllocationUpdate { allocations: shares, ..AllocationUpdate::default() };
        // Of an even earlier run with the variants of now.
        let looks = looks_key(&experiment());
        store.set(looks.clone(), b"[]".to_vec()).await.unwrap();
        let conflict = store_update(&store, &experiment(), &update, true).await.unwrap_err();
        assert_eq!(conflict, ChangeError::Conflict(ANOTHER_RUN.to_owned()));
        assert_eq!(store.get(key("iris")).await.unwrap(), Some(stored));
        let after = store_update(&store, &experiment(), &update, false).await.unwrap();
        assert_eq!(after.digest, Some(experiment().digest()));
        assert!(!store.exists(looks).await.unwrap(), "its numbers do not count");
    }

    #[test]
    fn experiment_is_ramped_stopped_and_resumed() {
        let ramped = update(&Change::default(), r#"{"allocations": {"treatment": 0.25}}"#).unwrap();
        assert_eq!(ramped.allocations["control"], 0.75);
        let stopped = update(&ramped, r#"{"stopped": true, "winner": "treatment"}"#).unwrap();
        assert_eq!((stopped.stopped, stopped.winner.as_deref()), (true, Some("treatment")));
        assert_eq!(stopped.allocations, ramped.allocations);
        let again = update(&stopped, r#"{"stopped": false}"#).unwrap();
        assert_eq!(again, ramped);
    }

    #[test]
    fn invalid_update_is_rejected() {
        let stopped = Change { stopped: true, ..Change::default() };
        let conflict = update(&stopped, r#"{"allocations": {"treatment": 0.25}}"#).unwrap_err();
        assert!(
            matches!(&conflict, ChangeError::Conflict(message) if message.contains("--resume"))
        );
        for (json, part) in [
            ("{}", "the update is empty"),
            (r#"{"winner": "treatment"}"#, "only a stopped experiment has one"),
            (r#"{"stopped": true, "winner": "other"}"#, "no variant `other`"),
            (r#"{"allocations": {"treatment": 1.5}}"#, "1.5 is not a share"),
            (r#"{"allocations": {"treatment": 0.5, "control": 0.6}}"#, "sum to 1.1"),
        ] {
            let error = update(&Change::default(), json).unwrap_err();
            assert!(
                matches!(&error, ChangeError::Invalid(message) if message.contains(part)),
                "{error}"
            );
        }
    }
}
