//! The guardrails of the treatments: what each sees at a look.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use spinfer_experiment::format::{CONTROL, GuardrailMetric, MetricKind};
use spinfer_experiment::progress::Epoch;
use spinfer_experiment::{Change, Experiment};
use spinfer_statistics::verdict::Strata;

use super::Supervised;
use crate::drift::report::{Status, VersionReport};
use crate::experiment::assessment::{unit_metrics, unit_strata};
use crate::experiment::guardrails::{GuardrailStatus, LookInput, Watch};
use crate::experiment::ledger::now;
use crate::experiment::nodes::AllCounts;
use crate::experiment::outcomes::OutcomeCounts;
use crate::host::Host;
use crate::prediction_log::times;

impl Supervised<'_> {
    /// The guardrails of every treatment in traffic; none of a stopped experiment.
    pub(super) fn guardrails(
        &mut self,
        host: &Host,
        change: &Change,
        counts: &AllCounts,
        batches: &BTreeMap<String, OutcomeCounts>,
    ) -> Vec<GuardrailStatus> {
        let experiment = self.experiment;
        let (now, metrics) = (Instant::now(), unit_metrics(experiment));
        let guarded = guarded(experiment, change);
        let epochs = change.epochs(experiment);
        let batch = |variant: &str| batches.get(variant).cloned().unwrap_or_default();
        let mut all = Vec::new();
        for (variant, watches) in &mut self.watches {
            // Out of traffic, it starts anew once it is back.
            if !guarded.contains_key(variant) {
                watches.iter_mut().for_each(Watch::reset);
                continue;
            }
            let requests = [batch(CONTROL), batch(variant)];
            let first = first_in_traffic(&epochs, variant);
            let since = epochs.get(first).map_or(0, |epoch| epoch.from);
            for watch in watches {
                let kind = match watch.guardrail().metric {
                    GuardrailMetric::Accuracy => Some(MetricKind::Accuracy),
                    GuardrailMetric::Reward => Some(MetricKind::Reward),
                    _ => None,
                };
                let strata = kind.and_then(|kind| {
                    let of = |variant: &str| {
                        let strata = unit_strata(counts, &metrics, kind, variant)?;
                        Some(strata.into_iter().skip(first).collect::<Strata>())
                    };
                    Some([of(CONTROL)?, of(variant)?])
                });
                let units = strata.as_ref().map(|[control, variant]| [control, variant]);
                let drift = match watch.guardrail().metric {
                    GuardrailMetric::Drift => drift(host, experiment, variant, since),
                    _ => None,
                };
                all.push(watch.look(variant, now, &requests, &LookInput { units, drift, since }));
            }
        }
        all
    }
}

/// The shares of the variants that guardrails may take out of traffic. A stopped experiment has none:
/// that its winner serves all units is an operator's decision.
pub(super) fn guarded(experiment: &Experiment, change: &Change) -> BTreeMap<String, f64> {
    if change.stopped { BTreeMap::new() } else { change.shares(experiment) }
}

/// Index of the period since which `variant` has been in traffic without a gap: its guardrails start
/// anew there. The present period, if it is out of traffic.
pub(super) fn first_in_traffic(epochs: &[Epoch], variant: &str) -> usize {
    let last_without = epochs.iter().rposition(|epoch| !epoch.shares.contains_key(variant));
    let first = last_without.map_or(0, |index| index + 1);
    first.min(epochs.len().saturating_sub(1))
}

/// The largest drift scores of control and of `variant`, and whether the variant is in alarm and
/// control is not. `None` without scores of both, and while the window of the variant contains
/// records from before `since`, in milliseconds of Unix time.
fn drift(
    host: &Host,
    experiment: &Experiment,
    variant: &str,
    since: u64,
) -> Option<([f64; 2], bool)> {
    let of = |name: &str| {
        let (_, variant) = experiment.variant(name)?;
        let model = variant.model.as_ref().unwrap_or(&experiment.model);
        let models = &host.component(&variant.component)?.spec().models;
        let version = models.iter().find(|mounted| mounted.name == *model)?.version.clone()?;
        let report = host.drift().report(SystemTime::now(), Some(model));
        let found = report.versions.into_iter().find(|report| report.version == version)?;
        let VersionReport { status, features, outputs, window, .. } = found;
        let scores = features.iter().chain(&outputs).filter_map(|field| field.psi);
        Some((
            scores.reduce(f64::max)?,
            status == Status::Drift,
            window.from,
            window.half_life_seconds,
        ))
    };
    let ((control, control_alarm, ..), (score, alarm, from, half_life)) =
        (of(CONTROL)?, of(variant)?);
    // Of a decayed window, little weight is left after five half-lives.
    let decayed = half_life.is_some_and(|seconds| {
        let passed = Duration::from_millis(now().saturating_sub(since));
        passed.as_secs_f64() >= 5.0 * seconds
    });
    let from = from.and_then(|from| times::parse(&from)).and_then(|from| u64::try_from(from).ok());
    if !decayed && from.unwrap_or(0) < since.saturating_mul(1_000) {
        return None;
    }
    Some(([control, score], alarm && !control_alarm))
}
