//! Status of the experiments of a host, and their changes by an operator.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{CONTROL, SUM_TOLERANCE, Start};
use spinfer_experiment::progress::{Event, EventKind, Rollback};
use spinfer_experiment::{Change, Exclusion, Experiment, Kind, Variant, key};

use super::agreement::AgreementCounts;
use super::assessment::Assessment;
use super::ledger::{self, OPERATOR, commit, parse_list};
use super::router::ExperimentRouter;
use super::supervisor::{PastLook, first_of_new_run, looks_key};
use super::text::percent;
use super::{FILE, STORE};

/// The share of one of the 10,000 buckets of units: a smaller one has none.
const BUCKET: f64 = 1e-4;

/// The current status of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentStatus {
    pub name: String,
    /// Public name of the model.
    pub model: String,
    /// Id of the router component.
    pub router: String,
    /// Source of the unit, such as `header x-user-id`.
    pub unit: String,
    pub force: Option<String>,
    /// `experiment`, `canary`, `shadow` or `bandit`.
    pub kind: String,
    /// False for an experiment that waits for an operator to start it.
    pub started: bool,
    pub stopped: bool,
    pub winner: Option<String>,
    /// Requests that this node has served by control since its start, since they are not in the
    /// experiment, by the reason.
    pub excluded: BTreeMap<String, u64>,
    pub variants: Vec<VariantStatus>,
    /// Variants that a guardrail took out of traffic.
    #[serde(default)]
    pub rolled_back: BTreeMap<String, Rollback>,
    /// The last look: verdict, numbers and guardrails. `None` before the first, and for shadows.
    #[serde(default)]
    pub assessment: Option<Assessment>,
    /// Why the change in the store is not in effect, and that the mounted file has changed since the
    /// host started; `None` if neither is so.
    pub problem: Option<String>,
}

/// The current status of a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantStatus {
    pub name: String,
    pub component: String,
    pub model: Option<String>,
    pub shadow: bool,
    /// Share of the units, from 0 to 1.
    pub allocation: f64,
    /// Share in the router's file.
    pub configured: f64,
    /// Requests that this node has assigned to the variant, or copied for it, since its start.
    pub requests: u64,
    /// Requests of the variant that this node has served by control since its start, since the
    /// variant could not.
    pub failed_over: u64,
    /// Of a shadow: how far its predictions agree with those that clients were served.
    pub agreement: Option<AgreementStatus>,
}

/// The comparisons of a shadow on this node, since its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgreementStatus {
    #[serde(flatten)]
    pub counts: AgreementCounts,
    /// Share of the rows with labels whose labels are equal, from 0 to 1.
    pub rate: Option<f64>,
    /// Mean absolute difference of two numbers.
    pub mean_difference: Option<f64>,
}

impl From<AgreementCounts> for AgreementStatus {
    fn from(counts: AgreementCounts) -> Self {
        Self { rate: counts.rate(), mean_difference: counts.mean_difference(), counts }
    }
}

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

/// The status of every experiment of `routers`.
pub async fn all(routers: impl Iterator<Item = &ExperimentRouter>) -> Vec<ExperimentStatus> {
    let mut all = Vec::new();
    for router in routers {
        for experiment in router.experiments() {
            all.push(status(router, experiment).await);
        }
    }
    all
}

/// An experiment with its history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentDetail {
    #[serde(flatten)]
    pub status: ExperimentStatus,
    /// The intervals of the past, oldest first.
    pub looks: Vec<PastLook>,
    /// What happened, oldest first.
    pub journal: Vec<Event>,
}

/// The experiment `name` with its history.
///
/// # Errors
/// Fails if the experiment does not exist, or the store fails.
pub async fn detail(
    routers: impl Iterator<Item = &ExperimentRouter> + Clone,
    name: &str,
) -> Result<ExperimentDetail, ChangeError> {
    let (router, experiment) = find(routers, name)?;
    let failed =
        |error: crate::storage::key_value::StoreError| ChangeError::Store(error.to_string());
    let (mut looks, mut journal) = (Vec::new(), Vec::new());
    if let Some(store) = router.store() {
        let stored = store.get(looks_key(experiment)).await.map_err(failed)?;
        looks = parse_list(stored.as_deref());
        journal = ledger::journal(store, name).await.map_err(failed)?;
    }
    Ok(ExperimentDetail { status: status(router, experiment).await, looks, journal })
}

/// The experiment `name` and its router.
fn find<'a>(
    routers: impl Iterator<Item = &'a ExperimentRouter> + Clone,
    name: &str,
) -> Result<(&'a ExperimentRouter, &'a Experiment), ChangeError> {
    let found = routers.clone().find_map(|router| Some((router, router.experiments().get(name)?)));
    found.ok_or_else(|| {
        let all = routers.flat_map(|router| router.experiments());
        let known: Vec<_> = all.map(|experiment| experiment.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ChangeError::Unknown { name: name.to_owned(), known }
    })
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
    let failed =
        |error: crate::storage::key_value::StoreError| ChangeError::Store(error.to_string());
    let seen = store.get(key(name)).await.map_err(failed)?;
    // A stored value that is no valid change of this experiment is not in effect, and is replaced.
    let before = match seen.as_deref().map(|json| parse(experiment, json)) {
        None => Change::default(),
        Some(Ok(change)) => change,
        Some(Err(_)) => first_of_new_run(experiment, ledger::now()),
    };
    let after = apply(experiment, &before, update)?;
    let detail = detail_of(experiment, &before, &after, update);
    let event = ledger::event(OPERATOR, kind_of(update), detail);
    let committed = commit(store, experiment, (seen, &before), after, event).await;
    let after = committed.map_err(failed)?.ok_or_else(|| {
        ChangeError::Conflict(format!("experiment `{name}` was changed concurrently; try again"))
    })?;
    Ok(describe(router, experiment, &after, router.check_file().await))
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

fn is_started(experiment: &Experiment, change: &Change) -> bool {
    change.started || experiment.start == Start::Automatic
}

async fn status(router: &ExperimentRouter, experiment: &Experiment) -> ExperimentStatus {
    let stored = match router.store() {
        Some(store) => store.get(key(&experiment.name)).await.map_err(|error| error.to_string()),
        None => Ok(None),
    };
    let change = stored.and_then(|json| match json {
        Some(json) => parse(experiment, &json),
        None => Ok(Change::default()),
    });
    let ignored = |problem| format!("{problem}; showing the allocations of {FILE}");
    let (change, ignored) = match change {
        Ok(change) => (change, None),
        Err(problem) => (Change::default(), Some(ignored(problem))),
    };
    let problems: Vec<String> = ignored.into_iter().chain(router.check_file().await).collect();
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    describe(router, experiment, &change, problem)
}

/// Parses a stored change of `experiment`, and checks it.
fn parse(experiment: &Experiment, json: &[u8]) -> Result<Change, String> {
    let change: Change = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    change.allocations(experiment)?;
    Ok(change)
}

fn describe(
    router: &ExperimentRouter,
    experiment: &Experiment,
    change: &Change,
    problem: Option<String>,
) -> ExperimentStatus {
    let Experiment { name, model, unit, force, kind, variants, .. } = experiment;
    let excluded = Exclusion::ALL.into_iter().filter_map(|exclusion| {
        let count = router.excluded(name, exclusion)?.get();
        (count > 0).then(|| (exclusion.name().to_owned(), count))
    });
    let configured = variants.iter().map(|variant| variant.allocation);
    let allocations =
        change.allocations(experiment).unwrap_or_else(|_| configured.clone().collect());
    let arms = router.arms(name);
    let variants =
        variants.iter().zip(allocations).zip(arms).map(|((variant, allocation), arm)| {
            let copies = [&arm.copies.served, &arm.copies.failed, &arm.copies.skipped];
            let copies: u64 = copies.iter().map(|counter| counter.get()).sum();
            VariantStatus {
                name: variant.name.clone(),
                component: variant.component.clone(),
                model: variant.model.clone(),
                shadow: variant.shadow,
                allocation,
                configured: variant.allocation,
                requests: if variant.shadow { copies } else { arm.assignments.get() },
                failed_over: arm.failed_over.get(),
                agreement: variant.shadow.then(|| arm.copies.agreement.counts().into()),
            }
        });
    ExperimentStatus {
        name: name.clone(),
        model: model.clone(),
        router: router.service().spec().id.clone(),
        unit: unit.to_string(),
        force: force.clone(),
        kind: kind.to_string(),
        started: is_started(experiment, change),
        stopped: change.stopped,
        winner: change.winner.clone(),
        excluded: excluded.collect(),
        variants: variants.collect(),
        rolled_back: change.rolled_back.clone(),
        assessment: router.assessment(name).map(|assessment| Assessment::clone(&assessment)),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::Experiments;

    use super::*;

    fn experiment() -> Experiment {
        experiment_with("")
    }

    fn experiment_with(keys: &str) -> Experiment {
        let text = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"a\" }\n\
            [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"a\"\nallocation = 0.9\n\
            [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"b\"\nallocation = 0.1\n";
        let text = text.replacen("model", &format!("{keys}\nmodel"), 1);
        Experiments::parse(&text).unwrap().get("iris").unwrap().clone()
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
        let text = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"a\" }\n\
            kind = \"canary\"\nsteps = [{ allocation = 0.1, hold = \"1h\" }]\n\
            variants = [{ name = \"control\", component = \"a\" }, \
            { name = \"treatment\", component = \"b\" }]\n";
        let canary = Experiments::parse(text).unwrap().get("iris").unwrap().clone();
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
        assert!(problem.contains("an earlier experiment `iris` with other variants"), "{problem}");
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
