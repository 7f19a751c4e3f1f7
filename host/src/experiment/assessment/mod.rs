//! What is known of an experiment at one look: its variants, the verdict, and the guardrails. Computed
//! from the counts of all nodes.

mod metrics;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{CONTROL, Experiment, Metric, MetricKind, Variant};
use spinfer_experiment::progress::Epoch;
use spinfer_experiment::{Change, Kind};
use spinfer_statistics::comparison::{Comparison, Estimator};
use spinfer_statistics::confidence_sequence::Interval;
use spinfer_statistics::moments::PairMoments;
use spinfer_statistics::sample_ratio::{RatioTest, SplitCounts, ratio_test};
use spinfer_statistics::verdict::{Decision, Strata, comparisons, decide};

pub(super) use metrics::unit_strata;
pub(crate) use metrics::{moments_name, unit_metrics};
pub use verdict::{Verdict, VerdictState};

use super::guardrails::GuardrailStatus;
use super::nodes::AllCounts;
use metrics::{settings, strata};
use verdict::verdict;

/// The result of a look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// Milliseconds of Unix time.
    pub time: u64,
    pub verdict: Verdict,
    /// What the verdict is about; `None` without a metric.
    pub metric: Option<String>,
    /// Probability of a false winner.
    pub alpha: f64,
    pub minimum_sample: u64,
    /// Whether units were assigned in the configured shares; `None` without units.
    pub ratio: Option<RatioTest>,
    /// In the order of the file, without shadows.
    pub variants: Vec<VariantAssessment>,
    pub guardrails: Vec<GuardrailStatus>,
    /// Variants that a guardrail took out of traffic.
    pub rolled_back: Vec<String>,
    /// The step of a canary, from 1, and the number of steps.
    pub step: Option<[usize; 2]>,
    /// What is left of the hold time of the step, in milliseconds; `None` once the canary is
    /// complete.
    #[serde(default)]
    pub step_left: Option<u64>,
    /// The covariate that the comparisons are adjusted for (CUPED).
    #[serde(default)]
    pub covariate: Option<String>,
}

/// What is known of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantAssessment {
    pub name: String,
    /// Predictions of its units, as logged.
    pub predictions: u64,
    /// Number of units that were assigned to it first.
    pub units: u64,
    /// Requests of units that it served, on all nodes.
    pub requests: u64,
    pub errors: u64,
    /// Quantiles 0.5, 0.95 and 0.99 of the latency, in seconds.
    pub latency: Option<[f64; 3]>,
    /// Means over the units with feedback, by name.
    pub means: BTreeMap<String, LabelMean>,
    /// Compared with control, by the metric of the verdict.
    pub comparison: Option<Comparison>,
}

/// The mean of a metric over the units that have it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelMean {
    pub units: u64,
    pub mean: f64,
}

/// Assesses `experiment` by the `counts` of all nodes, at `time`, in milliseconds of Unix time, with
/// the time for which the step of a canary has been `held`.
pub(crate) fn assess(
    experiment: &Experiment,
    change: &Change,
    epochs: &[Epoch],
    counts: &AllCounts,
    guardrails: Vec<GuardrailStatus>,
    (time, held): (u64, Duration),
) -> Assessment {
    let variants: Vec<&Variant> = experiment.assignable().map(|(_, variant)| variant).collect();
    let treatments: Vec<&Variant> =
        variants.iter().copied().filter(|variant| variant.name != CONTROL).collect();
    let ratio = ratio(&variants, epochs, counts);
    let compared = experiment.metric.as_ref().map(|metric| {
        let settings = settings(experiment, metric);
        let strata = |variant: &str| {
            let mut strata = strata(counts, metric, variant);
            strata.resize(epochs.len(), PairMoments::default());
            strata
        };
        let all: Vec<Strata> = treatments.iter().map(|variant| strata(&variant.name)).collect();
        let found = comparisons(&strata(CONTROL), &all, &settings);
        // A covariate or a size of almost 0 leaves no number.
        let found: Vec<_> = found.into_iter().map(|one| one.filter(is_finite)).collect();
        // A variant that was rolled back is no candidate. The others stay compared at alpha / k.
        let is_left = |index: &usize| !change.rolled_back.contains_key(&treatments[*index].name);
        let left: Vec<usize> = (0..treatments.len()).filter(is_left).collect();
        let compared: Vec<_> = left.iter().map(|index| found[*index]).collect();
        let decision = match decide(&compared, &settings) {
            Decision::Treatment(index) => Decision::Treatment(left[index]),
            other => other,
        };
        (decision, found)
    });
    let (decision, found) = match compared {
        Some((decision, found)) => (Some(decision), found),
        None => (None, vec![None; treatments.len()]),
    };
    let decided = decision.zip(experiment.metric.as_ref());
    let names: Vec<&str> = treatments.iter().map(|variant| &*variant.name).collect();
    let verdict = verdict(experiment, change, ratio.as_ref(), decided, (&names, &found));
    let metrics = unit_metrics(experiment);
    let variants = variants.iter().map(|variant| {
        let index = names.iter().position(|name| *name == variant.name);
        let comparison = index.and_then(|index| found[index]);
        variant_assessment(&variant.name, counts, &metrics, comparison)
    });
    let step = match &experiment.kind {
        Kind::Canary { steps } => {
            change.step.map(|step| [(step.index + 1).min(steps.len()), steps.len()])
        }
        _ => None,
    };
    let step_left = match (&experiment.kind, change.step) {
        (Kind::Canary { steps }, Some(step)) => steps.get(step.index).map(|current| {
            let left = current.hold.saturating_sub(held);
            u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
        }),
        _ => None,
    };
    let adjusted = experiment
        .metric
        .as_ref()
        .filter(|metric| matches!(settings(experiment, metric).estimator, Estimator::Adjusted));
    let covariate = adjusted.and_then(|metric| metric.covariate.clone());
    Assessment {
        time,
        step_left,
        covariate,
        verdict,
        metric: experiment.metric.as_ref().map(|metric| metric.kind.to_string()),
        alpha: experiment.alpha,
        minimum_sample: experiment.minimum_sample,
        ratio,
        variants: variants.collect(),
        guardrails,
        rolled_back: change.rolled_back.keys().cloned().collect(),
        step,
    }
}

fn is_finite(comparison: &Comparison) -> bool {
    let Comparison { means, difference: Interval { estimate, lower, upper }, .. } = comparison;
    means.iter().chain([estimate, lower, upper]).all(|number| number.is_finite())
}

fn variant_assessment(
    name: &str,
    counts: &AllCounts,
    metrics: &[Metric],
    comparison: Option<Comparison>,
) -> VariantAssessment {
    let units = counts.units.get(name);
    let requests = counts.requests.get(name).map(|requests| &requests.total);
    let latency = requests.and_then(|total| {
        let quantile = |q| total.latency_quantile(q);
        Some([quantile(0.5)?, quantile(0.95)?, quantile(0.99)?])
    });
    let kinds = [MetricKind::Accuracy, MetricKind::ValueError, MetricKind::Reward];
    let means = kinds.into_iter().filter_map(|kind| {
        let strata = unit_strata(counts, metrics, kind, name)?;
        let all = strata.iter().fold(PairMoments::default(), |all, cell| all.merged(cell));
        let mean = LabelMean { units: all.n, mean: all.mean_value };
        (all.n > 0).then(|| (kind.to_string(), mean))
    });
    VariantAssessment {
        name: name.to_owned(),
        predictions: units.map_or(0, |units| units.predictions),
        units: units.map_or(0, |units| units.units.iter().sum()),
        requests: requests.map_or(0, |total| total.requests()),
        errors: requests.map_or(0, |total| total.errors.min(total.requests())),
        latency,
        means: means.collect(),
        comparison,
    }
}

/// Tests the split of the units in the periods that more than one variant had a share in.
fn ratio(variants: &[&Variant], epochs: &[Epoch], counts: &AllCounts) -> Option<RatioTest> {
    let strata = epochs.iter().enumerate().filter(|(_, epoch)| epoch.shares.len() > 1);
    let strata = strata.map(|(index, epoch)| {
        let units = variants.iter().map(|variant| {
            let units = counts.units.get(&variant.name);
            units.and_then(|units| units.units.get(index).copied()).unwrap_or(0)
        });
        let shares = variants.iter().map(|v| epoch.shares.get(&v.name).copied().unwrap_or(0.0));
        SplitCounts { units: units.collect(), shares: shares.collect() }
    });
    ratio_test(&strata.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::progress::{MAX_EPOCHS, Rollback};

    use super::*;
    use crate::experiment::fixtures::experiment;
    use crate::prediction_log::unit_totals::VariantUnits;

    fn units(right: u64, of: u64) -> VariantUnits {
        let mut moments = PairMoments::default();
        (0..of).for_each(|index| moments.add(if index < right { 1.0 } else { 0.0 }, 0.0));
        let none = vec![PairMoments::default()];
        let plain = vec![moments];
        VariantUnits {
            predictions: of,
            units: vec![of],
            moments: vec![plain.clone(), plain, none.clone(), none],
        }
    }

    fn assessed(change: &Change, control: VariantUnits, treatment: VariantUnits) -> Assessment {
        let experiment = experiment("metric = { kind = \"accuracy\", margin = 0.05 }", 0.5);
        let all = [("control", control), ("treatment", treatment)];
        let units = all.map(|(name, units)| (name.to_owned(), units));
        let counts = AllCounts { units: BTreeMap::from(units), requests: BTreeMap::new() };
        let epochs = change.epochs(&experiment);
        assess(&experiment, change, &epochs, &counts, Vec::new(), (0, Duration::ZERO))
    }

    #[test]
    fn verdict_has_its_numbers() {
        let change = Change::default();
        let found = assessed(&change, units(500, 1000), units(700, 1000)).verdict;
        assert_eq!(
            (found.state, found.variant.as_deref()),
            (VerdictState::Winner, Some("treatment"))
        );
        let text = found.to_string();
        let start = "winner treatment: accuracy 0.7000, control 0.5000; difference +0.2000 (+0.1";
        assert!(text.starts_with(start) && text.ends_with("of 1000 and 1000 units"), "{text}");
        let found = assessed(&change, units(10, 50), units(10, 50)).verdict.to_string();
        assert_eq!(found, "running: fewer than 100 units with accuracy in a variant");
        let found = assessed(&change, units(10_000, 20_000), units(10_000, 20_000)).verdict;
        assert_eq!(found.state, VerdictState::NoDifference);
    }

    #[test]
    fn broken_split_makes_a_winner_invalid() {
        let found = assessed(&Change::default(), units(500, 1000), units(900, 1300));
        assert_eq!(found.verdict.state, VerdictState::Invalid);
        assert!(found.ratio.unwrap().chi_squared_p < 1e-6);
        assert!(found.variants[1].comparison.unwrap().difference.lower > 0.0);
    }

    #[test]
    fn dropped_periods_leave_no_verdict() {
        let of = |periods| {
            let change = Change { epochs: vec![Epoch::default(); periods], ..Change::default() };
            assessed(&change, units(500, 1000), units(700, 1000)).verdict
        };
        assert_eq!(of(MAX_EPOCHS - 1).state, VerdictState::Winner);
        let text = of(MAX_EPOCHS).to_string();
        assert_eq!(text, "running: 64 or more periods of allocations: no verdict");
    }

    #[test]
    fn rollback_of_the_last_treatment_is_the_verdict() {
        let rollback = Rollback { reason: "guardrail error_rate".into(), time: 1 };
        let rolled_back = BTreeMap::from([("treatment".to_owned(), rollback)]);
        let change = Change { rolled_back, ..Change::default() };
        let found = assessed(&change, units(500, 1000), units(700, 1000)).verdict;
        assert_eq!(found.to_string(), "rolled back treatment: guardrail error_rate");
    }

    #[test]
    fn rolled_back_variant_is_neither_the_winner_nor_in_the_verdict() {
        let mut experiment = experiment("metric = { kind = \"accuracy\", margin = 0.05 }", 0.5);
        let other = Variant { name: "other".into(), ..experiment.variants[1].clone() };
        experiment.variants.push(other);
        let names = ["control", "treatment", "other"];
        let verdict_of = |rights: [u64; 3], of: u64, rolled_back: &[&str]| {
            let all = names.into_iter().zip(rights);
            let all = all.map(|(name, right)| (name.to_owned(), units(right, of)));
            let counts = AllCounts { units: all.collect(), requests: BTreeMap::new() };
            let rollback = Rollback { reason: "guardrail error_rate".into(), time: 1 };
            let rolled_back = rolled_back.iter().map(|name| ((*name).to_owned(), rollback.clone()));
            let change = Change { rolled_back: rolled_back.collect(), ..Change::default() };
            let shares = names.map(|name| (name.to_owned(), 1.0 / 3.0));
            let epochs = [Epoch { from: 0, shares: BTreeMap::from(shares) }];
            let moment = (0, Duration::ZERO);
            assess(&experiment, &change, &epochs, &counts, Vec::new(), moment).verdict
        };
        let found = |rights, of, rolled_back: &[&str]| {
            let verdict = verdict_of(rights, of, rolled_back);
            (verdict.state, verdict.variant)
        };
        let winner = |name: &str| (VerdictState::Winner, Some(name.to_owned()));
        let out = &["treatment"][..];
        assert_eq!(found([500, 800, 700], 1000, &[]), winner("treatment"));
        assert_eq!(found([500, 800, 700], 1000, out), winner("other"));
        let same = found([10_000, 16_000, 10_000], 20_000, out);
        assert_eq!(same, (VerdictState::NoDifference, None));
        // Control is compared with those that are left, and the detail is of them.
        assert_eq!(found([700, 800, 500], 1000, out), winner("control"));
        let text = verdict_of([700, 800, 500], 1000, out).to_string();
        assert!(text.contains("other: accuracy 0.5000") && !text.contains("treatment"), "{text}");
        let text = verdict_of([500, 800, 520], 1000, out).to_string();
        assert!(text.starts_with("running: accuracy 0.5200"), "{text}");
    }

    #[test]
    fn experiment_that_waits_for_an_operator_is_not_started() {
        let verdict_of = |keys: &str| {
            let experiment = experiment(keys, 0.5);
            let (change, counts) = (Change::default(), AllCounts::default());
            let epochs = change.epochs(&experiment);
            assess(&experiment, &change, &epochs, &counts, Vec::new(), (0, Duration::ZERO))
                .verdict
                .to_string()
        };
        let manual = verdict_of("start = \"manual\"");
        assert_eq!(manual, "not started: `spinfer experiment start iris` starts it");
        assert!(verdict_of("").starts_with("running: no metric; write"));
    }
}
