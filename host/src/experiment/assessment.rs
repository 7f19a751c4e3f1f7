//! What is known of an experiment at one look: its variants, the verdict, and the guardrails. Computed
//! from the counts of all nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{
    CONTROL, Experiment, Guardrail, GuardrailMetric, Metric, MetricKind, Per, Start, Variant,
    duration_text,
};
use spinfer_experiment::progress::{Epoch, MAX_EPOCHS};
use spinfer_experiment::{Change, Kind};
use spinfer_statistics::comparison::{Comparison, Estimator, Scale};
use spinfer_statistics::confidence_sequence::Interval;
use spinfer_statistics::moments::PairMoments;
use spinfer_statistics::sample_ratio::{RatioTest, SplitCounts, ratio_test};
use spinfer_statistics::verdict::{Decision, Strata, VerdictSettings, comparisons, decide};

use super::guardrails::GuardrailStatus;
use super::nodes::AllCounts;
use crate::prediction_log::times;

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

/// The metrics that are aggregated by unit: that of the verdict first, if it is one of them, then
/// all, for guardrails and for display.
pub(crate) fn unit_metrics(experiment: &Experiment) -> Vec<Metric> {
    let plain = |kind| Metric { kind, per: Per::Unit, margin: None, covariate: None };
    let all = [MetricKind::Accuracy, MetricKind::ValueError, MetricKind::Reward].map(plain);
    let own = experiment.metric.iter().filter(|metric| !of_requests(metric.kind)).cloned();
    own.chain(all).collect()
}

/// What the moments of `metric` are of, as hosts tell each other: `accuracy per unit with age`.
pub(crate) fn moments_name(metric: &Metric) -> String {
    let per = match metric.per {
        Per::Unit => "unit",
        Per::Prediction => "prediction",
    };
    match &metric.covariate {
        Some(covariate) => format!("{} per {per} with {covariate}", metric.kind),
        None => format!("{} per {per}", metric.kind),
    }
}

/// Whether a metric is counted where requests are served, and not from the log.
fn of_requests(kind: MetricKind) -> bool {
    matches!(kind, MetricKind::ErrorRate | MetricKind::Latency)
}

/// The strata of a metric of the units, by its kind.
pub(super) fn unit_strata(
    counts: &AllCounts,
    metrics: &[Metric],
    kind: MetricKind,
    variant: &str,
) -> Option<Strata> {
    // The last one is the plain mean.
    let index = metrics.iter().rposition(|metric| metric.kind == kind)?;
    counts.units.get(variant)?.moments.get(index).cloned()
}

/// The strata that the verdict compares.
fn strata(counts: &AllCounts, metric: &Metric, variant: &str) -> Strata {
    let requests = || counts.requests.get(variant);
    let found = match metric.kind {
        MetricKind::ErrorRate => requests().map(|requests| requests.errors.clone()),
        MetricKind::Latency => requests().map(|requests| requests.latencies.clone()),
        _ => counts.units.get(variant).and_then(|units| units.moments.first().cloned()),
    };
    found.unwrap_or_default()
}

fn settings(experiment: &Experiment, metric: &Metric) -> VerdictSettings {
    let estimator = match (metric.per, &metric.covariate) {
        _ if of_requests(metric.kind) => Estimator::Mean,
        (Per::Prediction, _) => Estimator::Ratio,
        (Per::Unit, Some(_)) => Estimator::Adjusted,
        (Per::Unit, None) => Estimator::Mean,
    };
    let is_share = matches!(metric.kind, MetricKind::Accuracy | MetricKind::ErrorRate);
    VerdictSettings {
        alpha: experiment.alpha,
        minimum_sample: experiment.minimum_sample,
        margin: metric.margin,
        higher_is_better: metric.kind.more_is_better(),
        estimator,
        scale: if is_share { Scale::Share } else { Scale::Number },
    }
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
        (decide(&found, &settings), found)
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

fn verdict(
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
    let remaining = names.iter().filter(|name| !change.rolled_back.contains_key(**name)).count();
    if remaining == 0
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
            let all: Vec<_> = (0..names.len())
                .map(|index| format!("{}: {}", names[index], described(index)))
                .collect();
            verdict(VerdictState::Winner, Some(CONTROL), all.join("; "))
        }
        Decision::NoDifference { bounded_by } => {
            let detail = format!("{} differs by at most {}", metric.kind, number(bounded_by));
            verdict(VerdictState::NoDifference, None, detail)
        }
        Decision::Running => {
            let first = found.iter().flatten().next();
            let detail = match first {
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

/// A number with four significant digits.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let digits = value.abs().log10().floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0 to 12"
    )]
    let decimals = (3.0 - digits).clamp(0.0, 12.0) as usize;
    format!("{value:.decimals$}")
}

/// A share in per cent, with one decimal: `12.5 %`; `<0.1 %` for what would be 0.0 % and is not 0.
pub(crate) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.0005 {
        return "<0.1 %".to_owned();
    }
    format!("{:.1} %", 100.0 * share)
}

/// `1 unit`, `2 units`
pub(crate) fn unit_count(count: u64) -> String {
    if count == 1 { "1 unit".to_owned() } else { format!("{count} units") }
}

/// Evidence as a number, from its logarithm.
pub(crate) fn evidence(log: f64) -> String {
    let evidence = log.exp();
    if evidence > 1e6 { "over 1000000".to_owned() } else { number(evidence) }
}

fn signed(value: f64) -> String {
    if value < 0.0 { number(value) } else { format!("+{}", number(value)) }
}

/// The reason of a rollback: the guardrail, the values that breached it, and what they are computed
/// over. `since` is when the variant came into traffic, in milliseconds of Unix time; 0: at the start.
pub(super) fn breach(
    status: &GuardrailStatus,
    guardrail: Option<&Guardrail>,
    since: u64,
) -> String {
    let [control, variant] = status.values.unwrap_or_default();
    let metric = guardrail.map(|guardrail| guardrail.metric);
    let over = match (metric, guardrail) {
        (Some(GuardrailMetric::Accuracy | GuardrailMetric::Reward), _) if since == 0 => {
            "all units".to_owned()
        }
        (Some(GuardrailMetric::Accuracy | GuardrailMetric::Reward), _) => {
            format!("all units since {}", clock(since))
        }
        (Some(GuardrailMetric::Drift), _) | (_, None) => "the drift window".to_owned(),
        (_, Some(guardrail)) => duration_text(guardrail.window),
    };
    let text = |value| match metric {
        Some(GuardrailMetric::LatencyP95) => milliseconds(value),
        _ => number(value),
    };
    format!(
        "guardrail {}: {} {}, control {}, over {over}",
        status.guardrail,
        status.variant,
        text(variant),
        text(control),
    )
}

/// `2026-11-30 14:02:11`, in UTC, of milliseconds of Unix time.
pub(crate) fn clock(millis: u64) -> String {
    let micros = i64::try_from(millis.saturating_mul(1000)).unwrap_or(i64::MAX);
    let text = times::format(micros);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// A latency in seconds, as `12.35 ms`.
pub(crate) fn milliseconds(seconds: f64) -> String {
    format!("{} ms", number(1000.0 * seconds))
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::Experiments;
    use spinfer_experiment::format::GuardrailBound;
    use spinfer_experiment::progress::Rollback;

    use super::*;
    use crate::prediction_log::unit_totals::VariantUnits;

    fn experiment(metric: &str) -> Experiment {
        let text = format!(
            r#"
            [experiments.iris]
            model = "iris"
            unit = {{ header = "x-user-id" }}
            {metric}
            variants = [
                {{ name = "control", component = "a", allocation = 0.5 }},
                {{ name = "treatment", component = "b", allocation = 0.5 }},
            ]
            "#
        );
        Experiments::parse(&text).unwrap().get("iris").unwrap().clone()
    }

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
        let experiment = experiment("metric = { kind = \"accuracy\", margin = 0.05 }");
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
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.5, "0.5000"),
            (12.3456, "12.35"),
            (0.000_123_45, "0.0001234"),
            (123_456.0, "123456"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!((signed(0.25), signed(-2.0)), ("+0.2500".into(), "-2.000".into()));
        assert_eq!(signed(-0.0), "+0");
        let shares = [0.0, 0.0004, 0.001, 0.25, 1.0].map(percent);
        assert_eq!(shares, ["0.0 %", "<0.1 %", "0.1 %", "25.0 %", "100.0 %"]);
        assert_eq!((unit_count(1), unit_count(0)), ("1 unit".to_owned(), "0 units".to_owned()));
        assert_eq!((&*evidence(0.0), &*evidence(99.0)), ("1.000", "over 1000000"));
    }

    #[test]
    fn rollback_names_the_period_of_its_numbers() {
        let of = |metric, bound, since| {
            let window = std::time::Duration::from_secs(60);
            let guardrail = Guardrail { metric, bound, window, minimum: 50 };
            let status = GuardrailStatus {
                variant: "treatment".into(),
                guardrail: "guardrail".into(),
                state: super::super::guardrails::GuardrailState::Breached,
                values: Some([0.25, 0.5]),
                evidence: 1.0,
            };
            breach(&status, Some(&guardrail), since)
        };
        let decrease = GuardrailBound::MaxDecrease(0.1);
        let increase = GuardrailBound::MaxIncrease(0.1);
        let accuracy = of(GuardrailMetric::Accuracy, decrease, 1_000);
        assert!(accuracy.ends_with("over all units since 1970-01-01 00:00:01"), "{accuracy}");
        assert!(of(GuardrailMetric::Reward, decrease, 0).ends_with("over all units"));
        assert!(of(GuardrailMetric::ErrorRate, increase, 0).ends_with("over 1m"));
        assert!(of(GuardrailMetric::Drift, increase, 0).ends_with("over the drift window"));
        let latency = of(GuardrailMetric::LatencyP95, GuardrailBound::MaxRatio(1.5), 0);
        assert!(latency.contains("treatment 500.0 ms, control 250.0 ms, over 1m"), "{latency}");
    }

    #[test]
    fn experiment_that_waits_for_an_operator_is_not_started() {
        let verdict_of = |keys: &str| {
            let experiment = experiment(keys);
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
