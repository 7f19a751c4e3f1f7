//! Status of the experiments of a host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::Start;
use spinfer_experiment::progress::{Event, Rollback};
use spinfer_experiment::{Change, Exclusion, Experiment, key};

use super::FILE;
use super::agreement::AgreementCounts;
use super::assessment::Assessment;
use super::ledger::{self, parse_list};
use super::router::ExperimentRouter;
use super::supervisor::{PastLook, looks_key};
use super::update::ChangeError;

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
    /// Why the change in the store is not in effect, why the host does not supervise the experiment, and
    /// that the mounted file has changed since the host started; `None` if none is so.
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
    let (mut looks, mut journal) = (Vec::new(), Vec::new());
    if let Some(store) = router.store() {
        let stored = store.get(looks_key(experiment)).await?;
        looks = parse_list(stored.as_deref());
        journal = ledger::journal(store, name).await?;
    }
    Ok(ExperimentDetail { status: status(router, experiment).await, looks, journal })
}

/// The experiment `name` and its router.
pub(super) fn find<'a>(
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

/// Whether it does not wait for an operator.
pub(super) fn is_started(experiment: &Experiment, change: &Change) -> bool {
    change.started || experiment.start == Start::Automatic
}

async fn status(router: &ExperimentRouter, experiment: &Experiment) -> ExperimentStatus {
    let stored = match router.store() {
        Some(store) => store.get(key(&experiment.name)).await.map_err(|error| error.to_string()),
        None => Ok(None),
    };
    // Without the store, that is the problem of the last look, too.
    let of_look = stored.is_ok().then(|| router.problem(&experiment.name)).flatten();
    let change = stored.and_then(|json| match json {
        Some(json) => parse(experiment, &json),
        None => Ok(Change::default()),
    });
    let ignored = |problem| format!("{problem}; showing the allocations of {FILE}");
    let (change, ignored) = match change {
        Ok(change) => (change, None),
        Err(problem) => (Change::default(), Some(ignored(problem))),
    };
    let of_file = router.check_file().await;
    let problems: Vec<String> = ignored.into_iter().chain(of_look).chain(of_file).collect();
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    describe(router, experiment, &change, problem)
}

/// Parses a stored change of `experiment`, and checks it.
pub(super) fn parse(experiment: &Experiment, json: &[u8]) -> Result<Change, String> {
    let change: Change = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    change.allocations(experiment)?;
    Ok(change)
}

/// The status of `experiment` with `change` in effect.
pub(super) fn describe(
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
