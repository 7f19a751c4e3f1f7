//! Changes of an experiment while the application serves: other allocations, or its end. A change
//! is stored as JSON in the router's key-value store, under [`key`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::format::{CONTROL, Experiment, check_allocation, check_sum};
use crate::progress::{Epoch, Event, Rollback, StepProgress};

/// The key of an experiment's change in the key-value store.
#[must_use]
pub fn key(experiment: &str) -> String {
    format!("spinfer/experiments/{experiment}")
}

/// A change of an experiment. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The share of each variant, from 0 to 1. Empty: the shares of the file apply.
    #[serde(default)]
    pub allocations: BTreeMap<String, f64>,
    /// [`Experiment::digest`] of the experiment that it is a change of. One of another experiment,
    /// which had the same name before, is refused. `None`: of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether an operator has started the experiment, if it is to be started by one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub started: bool,
    /// Whether the experiment is over. The winner, or else control, then serves every unit.
    #[serde(default)]
    pub stopped: bool,
    /// The variant that serves every unit of an experiment that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
    /// Variants that a guardrail took out of traffic. Only an operator brings one back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rolled_back: BTreeMap<String, Rollback>,
    /// The step of a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepProgress>,
    /// The periods of equal allocations so far; none before the first change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<Epoch>,
    /// What this change is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
}

impl Change {
    /// Whether it is a change of an experiment of the same name with other variants.
    #[must_use]
    pub fn is_of_another_run(&self, experiment: &Experiment) -> bool {
        self.digest.as_ref().is_some_and(|digest| *digest != experiment.digest())
    }

    /// The share of each variant of `experiment`, in its order.
    ///
    /// # Errors
    /// If it is a change of another experiment, a variant does not exist or is a shadow, or the
    /// shares do not sum to 1.
    pub fn allocations(&self, experiment: &Experiment) -> Result<Vec<f64>, String> {
        if self.is_of_another_run(experiment) {
            return Err(format!(
                "the stored change is of another run of experiment `{}`, with other variants or another \
                 unit, and is ignored",
                experiment.name
            ));
        }
        let shares = |name: &str| self.allocations.get(name).copied();
        for name in self.allocations.keys().chain(&self.winner) {
            find(experiment, name)?;
        }
        for (name, share) in &self.allocations {
            check_allocation(*share).map_err(|problem| format!("variant `{name}`: {problem}"))?;
        }
        if self.allocations.is_empty() {
            return Ok(experiment.variants.iter().map(|variant| variant.allocation).collect());
        }
        let all = experiment.variants.iter().map(|variant| shares(&variant.name).unwrap_or(0.0));
        let all: Vec<_> = all.collect();
        check_sum(experiment.assignable().map(|(index, _)| all[index]))?;
        Ok(all)
    }

    /// Sets the shares of some variants. The other variants keep theirs, and control has the rest
    /// unless it is among them.
    ///
    /// # Errors
    /// If a variant does not exist or is a shadow, or the shares do not sum to 1.
    pub fn ramp(
        &self,
        experiment: &Experiment,
        shares: &BTreeMap<String, f64>,
    ) -> Result<Self, String> {
        let before = self.allocations(experiment)?;
        let before = experiment.assignable().map(|(i, variant)| (variant.name.clone(), before[i]));
        let mut all: BTreeMap<_, _> = before.collect();
        for (name, share) in shares {
            let name = find(experiment, name)?;
            let share = check_allocation(*share);
            all.insert(name.into(), share.map_err(|p| format!("variant `{name}`: {p}"))?);
        }
        if !shares.contains_key(CONTROL) {
            let others: f64 = all.iter().filter(|(name, _)| *name != CONTROL).map(|(_, s)| s).sum();
            if others > 1.0 + crate::format::SUM_TOLERANCE {
                return Err(format!(
                    "the allocations of the treatments sum to {others}, which leaves nothing for \
                     `{CONTROL}`"
                ));
            }
            // Floats are not exact: 1 - 0.1 - 0.2 is 0.7000000000000001.
            let rest = ((1.0 - others).max(0.0) * 1e12).round() / 1e12;
            all.insert(CONTROL.to_owned(), rest);
        }
        let ramped = Self { allocations: all, ..self.clone() };
        ramped.allocations(experiment)?;
        Ok(ramped)
    }
}

/// Checks that `name` is a variant that units are assigned to.
fn find<'n>(experiment: &Experiment, name: &'n str) -> Result<&'n str, String> {
    if experiment.assignable().any(|(_, variant)| variant.name == *name) {
        return Ok(name);
    }
    if experiment.variants.iter().any(|variant| variant.name == *name) {
        return Err(format!(
            "variant `{name}` of experiment `{}` is a shadow, which receives copies and no share; \
             variants with a share: {}",
            experiment.name,
            experiment.names()
        ));
    }
    Err(format!(
        "experiment `{}` assigns to no variant `{}`; it has {}",
        experiment.name,
        name.escape_debug(),
        experiment.names()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Experiments, Kind, Unit};

    fn experiment() -> Experiment {
        let text = r#"
            [experiments.iris]
            model = "iris"
            unit = { header = "x-user-id" }
            [[experiments.iris.variants]]
            name = "control"
            component = "a"
            allocation = 0.7
            [[experiments.iris.variants]]
            name = "treatment"
            component = "b"
            allocation = 0.2
            [[experiments.iris.variants]]
            name = "other"
            component = "c"
            allocation = 0.1
            [[experiments.iris.variants]]
            name = "candidate"
            component = "d"
            shadow = true
        "#;
        Experiments::parse(text).unwrap().get("iris").unwrap().clone()
    }

    fn shares(shares: &[(&str, f64)]) -> BTreeMap<String, f64> {
        shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect()
    }

    #[test]
    fn a_ramp_takes_the_share_from_control() {
        let experiment = experiment();
        let ramped = Change::default().ramp(&experiment, &shares(&[("treatment", 0.3)])).unwrap();
        let expected = shares(&[("control", 0.6), ("treatment", 0.3), ("other", 0.1)]);
        assert_eq!(ramped.allocations, expected);
        let all = shares(&[("control", 0.0), ("treatment", 1.0), ("other", 0.0)]);
        assert_eq!(ramped.ramp(&experiment, &all).unwrap().allocations, all);
    }

    #[test]
    fn invalid_shares_are_refused() {
        let experiment = experiment();
        for (given, part) in [
            (&[("treatment", 0.95)][..], "leaves nothing for `control`"),
            (&[("control", 0.5)], "sum to 0.8"),
            (&[("treatment", -0.1)], "variant `treatment`: -0.1 is not a share"),
            (&[("treatment", f64::NAN)], "NaN is not a share"),
            (&[("candidate", 0.1)], "variant `candidate` of experiment `iris` is a shadow"),
            (&[("none", 0.1)], "no variant `none`; it has control, treatment, other"),
        ] {
            let error = Change::default().ramp(&experiment, &shares(given)).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_change_of_an_earlier_experiment_of_the_same_name_is_refused() {
        let before = experiment();
        let shares = shares(&[("treatment", 0.5), ("other", 0.1)]);
        let change = Change { digest: Some(before.digest()), ..Change::default() };
        let change = change.ramp(&before, &shares).unwrap();
        let edits: [fn(&mut Experiment); 6] = [
            |experiment| experiment.variants[1].component = "b2".into(),
            |experiment| experiment.variants[1].model = Some("other".into()),
            |experiment| experiment.kind = Kind::Bandit { minimum_allocation: 0.01 },
            |experiment| experiment.variants.swap(1, 2),
            |experiment| drop(experiment.variants.pop()),
            |experiment| experiment.unit = Unit::Cookie("x-user-id".into()),
        ];
        for edit in edits {
            let mut after = before.clone();
            edit(&mut after);
            let problem = change.allocations(&after).unwrap_err();
            assert!(
                problem.contains("another run of experiment `iris`, with other variants"),
                "{problem}"
            );
        }
        let mut after = before;
        (after.variants[0].allocation, after.variants[1].allocation) = (0.6, 0.3);
        (after.holdout, after.alpha) = (0.1, 0.01);
        assert_eq!(change.allocations(&after).unwrap(), [0.4, 0.5, 0.1, 0.0]);
    }

    #[test]
    fn a_change_of_another_experiment_is_refused() {
        let experiment = experiment();
        let change = |json: &str| {
            let change: Result<Change, _> = serde_json::from_str(json);
            change.map_err(|e| e.to_string())?.allocations(&experiment)
        };
        assert_eq!(change("{}").unwrap(), [0.7, 0.2, 0.1, 0.0]);
        let half = r#"{"allocations": {"control": 0.5, "other": 0.5}, "stopped": false}"#;
        assert_eq!(change(half).unwrap(), [0.5, 0.0, 0.5, 0.0]);
        for (json, part) in [
            (r#"{"allocations": {"control": 0.5}}"#, "sum to 0.5"),
            (r#"{"winner": "candidate"}"#, "is a shadow"),
            (r#"{"share": 1}"#, "unknown field"),
        ] {
            let error = change(json).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
