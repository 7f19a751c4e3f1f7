//! What is compared: the metrics of an experiment, and the moments that they are computed of.

use spinfer_experiment::format::{Experiment, Metric, MetricKind, Per};
use spinfer_statistics::comparison::{Estimator, Scale};
use spinfer_statistics::verdict::{Strata, VerdictSettings};

use crate::experiment::nodes::AllCounts;

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
pub(super) fn of_requests(kind: MetricKind) -> bool {
    matches!(kind, MetricKind::ErrorRate | MetricKind::Latency)
}

/// The strata of a metric of the units, by its kind.
pub(in crate::experiment) fn unit_strata(
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
pub(super) fn strata(counts: &AllCounts, metric: &Metric, variant: &str) -> Strata {
    let requests = || counts.requests.get(variant);
    let found = match metric.kind {
        MetricKind::ErrorRate => requests().map(|requests| requests.errors.clone()),
        MetricKind::Latency => requests().map(|requests| requests.latencies.clone()),
        _ => counts.units.get(variant).and_then(|units| units.moments.first().cloned()),
    };
    found.unwrap_or_default()
}

pub(super) fn settings(experiment: &Experiment, metric: &Metric) -> VerdictSettings {
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
