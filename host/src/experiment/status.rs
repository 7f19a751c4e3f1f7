//! What an operator sees of the experiments of a host, and changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spinfer_experiment::{Change, Experiment, key};
use tracing::info;

use super::router::ExperimentRouter;
use super::{FILE, STORE};

/// An experiment, as it is at present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentStatus {
    pub name: String,
    /// The public name of its model.
    pub model: String,
    /// The component that assigns.
    pub router: String,
    /// `header x-user-id`
    pub unit: String,
    pub force: Option<String>,
    pub stopped: bool,
    pub winner: Option<String>,
    pub variants: Vec<VariantStatus>,
    /// Why the change in the store is not in effect, if it is not.
    pub problem: Option<String>,
}

/// A variant, as it is at present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantStatus {
    pub name: String,
    pub component: String,
    pub model: Option<String>,
    pub shadow: bool,
    /// Its share of the units, from 0 to 1.
    pub allocation: f64,
    /// The same in the router's file.
    pub configured: f64,
    /// Requests that this node assigned to it, or copied for it, since it started.
    pub requests: u64,
}

/// What is to be changed of an experiment. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Shares of variants. One that is not named keeps its share, and control has the rest unless it
    /// is named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allocations: BTreeMap<String, f64>,
    /// True ends the experiment, false has it go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<bool>,
    /// With `stopped`: the variant that serves every unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
}

/// Why an experiment is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    #[error("there is no experiment `{name}`; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Conflict(String),
    #[error("the key-value store: {0}")]
    Store(String),
}

/// Every experiment of `routers`.
pub async fn all(routers: impl Iterator<Item = &ExperimentRouter>) -> Vec<ExperimentStatus> {
    let mut all = Vec::new();
    for router in routers {
        for experiment in router.experiments() {
            all.push(status(router, experiment).await);
        }
    }
    all
}

/// Changes the experiment `name`: in the store, where every node that shares it finds it. Another change
/// at the same time is a conflict.
pub async fn change(
    routers: impl Iterator<Item = &ExperimentRouter> + Clone,
    name: &str,
    update: &Update,
) -> Result<ExperimentStatus, Unchanged> {
    let found = routers.clone().find_map(|router| Some((router, router.experiments().get(name)?)));
    let Some((router, experiment)) = found else {
        let all = routers.flat_map(|router| router.experiments());
        let known: Vec<_> = all.map(|experiment| experiment.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Unchanged::Unknown { name: name.to_owned(), known });
    };
    let store = router.store().ok_or_else(|| {
        let id = &router.service().spec().id;
        Unchanged::Conflict(format!(
            "component `{id}` is granted no key-value store `{STORE}`, in which changes are; write \
             key_value_stores = [\"{STORE}\"] under [component.{id}]"
        ))
    })?;
    let failed = |error: crate::storage::key_value::Error| Unchanged::Store(error.to_string());
    let seen = store.get(key(name)).await.map_err(failed)?;
    // What is no change of this experiment is not in effect, and is replaced.
    let before = seen.as_deref().and_then(|json| parse(experiment, json).ok()).unwrap_or_default();
    let after = updated(experiment, &before, update)?;
    let json = serde_json::to_vec(&after).map_err(|error| Unchanged::Store(error.to_string()))?;
    if !store.swap(key(name), seen, json).await.map_err(failed)? {
        return Err(Unchanged::Conflict(format!(
            "experiment `{name}` was changed by someone else at the same time; try again"
        )));
    }
    info!(experiment = name, change = ?after, "an experiment is changed");
    Ok(told(router, experiment, &after, None))
}

/// `before` with `update` put over it.
fn updated(experiment: &Experiment, before: &Change, update: &Update) -> Result<Change, Unchanged> {
    let Update { allocations, stopped, winner } = update;
    let name = &experiment.name;
    if *update == Update::default() {
        return Err(Unchanged::Invalid(
            "nothing is to be changed; give `allocations`, or `stopped` with or without a `winner`"
                .to_owned(),
        ));
    }
    if winner.is_some() && *stopped != Some(true) {
        return Err(Unchanged::Invalid(
            "`winner`: an experiment that goes on has none; give `\"stopped\": true`, too".into(),
        ));
    }
    if before.stopped && stopped.is_none() {
        return Err(Unchanged::Conflict(format!(
            "experiment `{name}` is stopped; `spinfer experiment ramp --resume` has it go on"
        )));
    }
    let mut after = before.clone();
    if let Some(stopped) = *stopped {
        after.stopped = stopped;
        after.winner.clone_from(winner);
    }
    if !allocations.is_empty() {
        after = after.ramp(experiment, allocations).map_err(Unchanged::Invalid)?;
    }
    after.allocations(experiment).map_err(Unchanged::Invalid)?;
    Ok(after)
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
    match change {
        Ok(change) => told(router, experiment, &change, None),
        Err(problem) => told(router, experiment, &Change::default(), Some(problem)),
    }
}

/// A change of `experiment`.
fn parse(experiment: &Experiment, json: &[u8]) -> Result<Change, String> {
    let change: Change = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    change.allocations(experiment)?;
    Ok(change)
}

fn told(
    router: &ExperimentRouter,
    experiment: &Experiment,
    change: &Change,
    problem: Option<String>,
) -> ExperimentStatus {
    let Experiment { name, model, unit, force, variants } = experiment;
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
            }
        });
    ExperimentStatus {
        name: name.clone(),
        model: model.clone(),
        router: router.service().spec().id.clone(),
        unit: unit.to_string(),
        force: force.clone(),
        stopped: change.stopped,
        winner: change.winner.clone(),
        variants: variants.collect(),
        problem: problem.map(|problem| format!("{problem}; the allocations of {FILE} are shown")),
    }
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::Experiments;

    use super::*;

    fn experiment() -> Experiment {
        let text = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"a\" }\n\
            [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"a\"\nallocation = 0.9\n\
            [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"b\"\nallocation = 0.1\n";
        Experiments::parse(text).unwrap().get("iris").unwrap().clone()
    }

    fn update(before: &Change, json: &str) -> Result<Change, Unchanged> {
        updated(&experiment(), before, &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn an_experiment_is_ramped_stopped_and_resumed() {
        let ramped = update(&Change::default(), r#"{"allocations": {"treatment": 0.25}}"#).unwrap();
        assert_eq!(ramped.allocations["control"], 0.75);
        let stopped = update(&ramped, r#"{"stopped": true, "winner": "treatment"}"#).unwrap();
        assert_eq!((stopped.stopped, stopped.winner.as_deref()), (true, Some("treatment")));
        assert_eq!(stopped.allocations, ramped.allocations);
        let again = update(&stopped, r#"{"stopped": false}"#).unwrap();
        assert_eq!(again, ramped);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let stopped = Change { stopped: true, ..Change::default() };
        let conflict = update(&stopped, r#"{"allocations": {"treatment": 0.25}}"#).unwrap_err();
        assert!(matches!(&conflict, Unchanged::Conflict(said) if said.contains("--resume")));
        for (json, part) in [
            ("{}", "nothing is to be changed"),
            (r#"{"winner": "treatment"}"#, "an experiment that goes on has none"),
            (r#"{"stopped": true, "winner": "other"}"#, "no variant `other`"),
            (r#"{"allocations": {"treatment": 1.5}}"#, "1.5 is not a share"),
            (r#"{"allocations": {"treatment": 0.5, "control": 0.6}}"#, "sum to 1.1"),
        ] {
            let error = update(&Change::default(), json).unwrap_err();
            assert!(matches!(&error, Unchanged::Invalid(said) if said.contains(part)), "{error}");
        }
    }
}
