//! The verdict of an experiment, in words with its numbers.

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{CONTROL, Experiment, Metric, Start};
use spinfer_experiment::progress::MAX_EPOCHS;
use spinfer_experiment::{Change, Kind};
use spinfer_statistics::comparison::Comparison;
use spinfer_statistics::confidence_sequence::Interval;
use spinfer_statistics::sample_ratio::RatioTest;
use spinfer_statistics::verdict::Decision;

use super::metrics::of_requests;
use crate::experiment::text::{evidence, number, signed, unit_count};

/// The verdict, with its numbers as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub state: VerdictState,
    /// The winner, or the variant that was rolled back.
    pub variant: Option<String>,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictState {
    Running,
    /// It waits for an operator.
    NotStarted,
    Winner,
    NoDifference,
    /// The units were not assigned in the configured shares.
    Invalid,
    RolledBack,
}

impl VerdictState {
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::NotStarted,
        Self::Winner,
        Self::NoDifference,
        Self::Invalid,
        Self::RolledBack,
    ];

    /// Name as a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NotStarted => "not_started",
            Self::Winner => "winner",
            Self::NoDifference => "no_difference",
            Self::Invalid => "invalid",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// `winner treatment: accuracy 0.91, control 0.87; difference +0.04 (+0.01 to +0.07)`
impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            VerdictState::Running => "running",
            VerdictState::NotStarted => "not started",
            VerdictState::Winner => "winner",
            VerdictState::NoDifference => "no difference",
            VerdictState::Invalid => "invalid",
            VerdictState::RolledBack => "rolled back",
        };
        f.write_str(state)?;
        if let Some(variant) = &self.variant {
            write!(f, " {variant}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

pub(super) fn verdict(
    experiment: &Experiment,
    change: &Change,
    ratio: Option<&RatioTest>,
    decided: Option<(Decision, &Metric)>,
    (names, found): (&[&str], &[Option<Comparison>]),
) -> Verdict {
    let verdict = |state, variant: Option<&str>, detail| Verdict {
        state,
        variant: variant.map(str::to_owned),
        detail,
    };
    let is_left = |index: &usize| !change.rolled_back.contains_key(names[*index]);
    let left: Vec<usize> = (0..names.len()).filter(is_left).collect();
    if left.is_empty()
        && let Some((variant, rollback)) = change.rolled_back.iter().max_by_key(|(_, r)| r.time)
    {
        return verdict(VerdictState::RolledBack, Some(variant), rollback.reason.clone());
    }
    if experiment.start == Start::Manual && !change.started && !change.stopped {
        let detail = format!("`spinfer experiment start {}` starts it", experiment.name);
        return verdict(VerdictState::NotStarted, None, detail);
    }
    // Without the earliest periods, what is guaranteed over all looks does not hold.
    if change.epochs.len() >= MAX_EPOCHS {
        let detail = format!("{MAX_EPOCHS} or more periods of allocations: no verdict");
        return verdict(VerdictState::Running, None, detail);
    }
    if let Some(ratio) = ratio.filter(|ratio| ratio.is_mismatch()) {
        let detail = format!(
            "ratio mismatch: {} are not in the configured shares, evidence {} (invalid from 1000), \
             chi-squared p = {:.1e}",
            unit_count(ratio.units),
            evidence(ratio.log_evidence),
            ratio.chi_squared_p
        );
        return verdict(VerdictState::Invalid, None, detail);
    }
    let Some((decision, metric)) = decided else {
        let detail = match experiment.kind {
            _ if change.stopped => "stopped, without a metric",
            Kind::Canary { .. } => "guardrails decide",
            _ => "no metric; write metric = { kind = \"accuracy\" }",
        };
        return verdict(VerdictState::Running, None, detail.to_owned());
    };
    let described = |index: usize| {
        found[index].as_ref().map(|comparison| describe(metric, comparison)).unwrap_or_default()
    };
    match decision {
        Decision::Treatment(index) => {
            verdict(VerdictState::Winner, Some(names[index]), described(index))
        }
        Decision::Control => {
            let all: Vec<_> = left
                .iter()
                .map(|index| format!("{}: {}", names[*index], described(*index)))
                .collect();
            verdict(VerdictState::Winner, Some(CONTROL), all.join("; "))
        }
        Decision::NoDifference { bounded_by } => {
            let detail = format!("{} differs by at most {}", metric.kind, number(bounded_by));
            verdict(VerdictState::NoDifference, None, detail)
        }
        Decision::Running => {
            let detail = match left.iter().find_map(|index| found[*index].as_ref()) {
                Some(comparison) => describe(metric, comparison),
                None => format!(
                    "fewer than {} with {} in a variant",
                    unit_count(experiment.minimum_sample),
                    metric.kind
                ),
            };
            verdict(VerdictState::Running, None, detail)
        }
    }
}

/// `accuracy 0.912, control 0.874; difference +0.038 (+0.012 to +0.064) of 900 and 880 units`
fn describe(metric: &Metric, comparison: &Comparison) -> String {
    let Comparison { means: [control, treatment], difference, units: [of_control, of_treatment] } =
        comparison;
    let Interval { estimate, lower, upper } = *difference;
    let what = if of_requests(metric.kind) { "requests" } else { "units" };
    format!(
        "{} {}, control {}; difference {} ({} to {}) of {of_treatment} and {of_control} {what}",
        metric.kind,
        number(*treatment),
        number(*control),
        signed(estimate),
        signed(lower),
        signed(upper)
    )
}
