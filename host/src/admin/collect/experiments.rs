//! Metrics of experiments: assignments, shadows, and what the last look at each found.

use std::sync::Arc;

use spinfer_experiment::{CONTROL, Exclusion};
use spinfer_statistics::confidence_sequence::Interval;

use crate::experiment::Arm;
use crate::experiment::agreement::AgreementCounts;
use crate::experiment::assessment::VerdictState;
use crate::host::Host;
use crate::metrics::exposition::Exposition;
use crate::metrics::table;

pub(super) fn expose(host: &Host, text: &mut Exposition) {
    assignments(host, text);
    assessments(host, text);
}

/// Assignments, exclusions, and the copies for shadows.
fn assignments(host: &Host, text: &mut Exposition) {
    let experiments = || {
        host.experiments().flat_map(|router| {
            let experiments = router.experiments().iter();
            experiments.map(|experiment| (experiment, router.arms(&experiment.name)))
        })
    };
    let arms = |shadow: bool| {
        experiments().flat_map(move |(experiment, arms)| {
            let arms = experiment.variants.iter().zip(arms);
            arms.filter(move |(variant, _)| variant.shadow == shadow)
                .map(|(variant, arm)| (experiment.name.as_str(), variant.name.as_str(), arm))
        })
    };
    let mut assigned = text.family(&table::EXPERIMENT_ASSIGNMENTS);
    for (experiment, variant, arm) in arms(false) {
        assigned.value(&[experiment, variant], arm.assignments.get());
    }
    let mut excluded = text.family(&table::EXPERIMENT_EXCLUDED);
    for router in host.experiments() {
        for experiment in router.experiments() {
            for exclusion in Exclusion::ALL {
                if let Some(count) = router.excluded(&experiment.name, exclusion) {
                    excluded.value(&[&experiment.name, exclusion.name()], count.get());
                }
            }
        }
    }
    let mut failed_over = text.family(&table::EXPERIMENT_FAILED_OVER);
    for (experiment, variant, arm) in arms(false) {
        failed_over.value(&[experiment, variant], arm.failed_over.get());
    }
    agreement(arms(true), text);
    let mut shadows = text.family(&table::EXPERIMENT_SHADOWS);
    for (experiment, variant, arm) in arms(true) {
        let copies = &arm.copies;
        for (outcome, count) in
            [("served", &copies.served), ("failed", &copies.failed), ("skipped", &copies.skipped)]
        {
            shadows.value(&[experiment, variant, outcome], count.get());
        }
    }
}

/// How far shadows agree with the variants that serve the clients.
fn agreement<'a>(
    shadows: impl Iterator<Item = (&'a str, &'a str, &'a Arc<Arm>)> + Clone,
    text: &mut Exposition,
) {
    let counts = |arm: &Arm| arm.copies.agreement.counts();
    let mut compared = text.family(&table::EXPERIMENT_COMPARED);
    for (experiment, variant, arm) in shadows.clone() {
        let AgreementCounts { compared: count, incomparable, .. } = counts(arm);
        compared.value(&[experiment, variant, "compared"], count);
        compared.value(&[experiment, variant, "incomparable"], incomparable);
    }
    let mut labels = text.family(&table::EXPERIMENT_LABELS);
    for (experiment, variant, arm) in shadows.clone() {
        let AgreementCounts { labelled, agreeing, .. } = counts(arm);
        labels.value(&[experiment, variant, "equal"], agreeing);
        labels.value(&[experiment, variant, "different"], labelled - agreeing);
    }
    let mut mean = text.family(&table::EXPERIMENT_DIFFERENCE_MEAN);
    for (experiment, variant, arm) in shadows.clone() {
        if let Some(difference) = counts(arm).mean_difference() {
            mean.value(&[experiment, variant], difference);
        }
    }
    let mut max = text.family(&table::EXPERIMENT_DIFFERENCE_MAX);
    for (experiment, variant, arm) in shadows {
        let counts = counts(arm);
        if counts.numbers > 0 {
            max.value(&[experiment, variant], counts.difference_max);
        }
    }
}

/// What the last look at each experiment found.
fn assessments(host: &Host, text: &mut Exposition) {
    let all: Vec<_> = host
        .experiments()
        .flat_map(|router| router.experiments().iter().map(move |experiment| (router, experiment)))
        .filter_map(|(router, experiment)| {
            Some((experiment.name.as_str(), router.assessment(&experiment.name)?))
        })
        .collect();
    let mut verdicts = text.family(&table::EXPERIMENT_VERDICT);
    for (experiment, found) in &all {
        for state in VerdictState::ALL {
            let is_present = u8::from(found.verdict.state == state);
            verdicts.value(&[experiment, state.name()], is_present);
        }
    }
    let mut units = text.family(&table::EXPERIMENT_UNITS);
    for (experiment, found) in &all {
        for variant in &found.variants {
            units.value(&[experiment, &variant.name], variant.units);
        }
    }
    let mut differences = text.family(&table::EXPERIMENT_DIFFERENCE);
    for (experiment, found) in &all {
        for variant in &found.variants {
            let Some(comparison) = &variant.comparison else { continue };
            let Interval { estimate, lower, upper } = comparison.difference;
            for (bound, value) in [("estimate", estimate), ("lower", lower), ("upper", upper)] {
                differences.value(&[experiment, &variant.name, bound], value);
            }
        }
    }
    let mut guardrails = text.family(&table::EXPERIMENT_GUARDRAIL);
    for (experiment, found) in &all {
        for status in &found.guardrails {
            let labels = [*experiment, &status.variant, &status.guardrail];
            guardrails.value(&labels, status.evidence);
        }
    }
    let mut rolled_back = text.family(&table::EXPERIMENT_ROLLED_BACK);
    for (experiment, found) in &all {
        for variant in found.variants.iter().filter(|variant| variant.name != CONTROL) {
            let is_out = u8::from(found.rolled_back.contains(&variant.name));
            rolled_back.value(&[experiment, &variant.name], is_out);
        }
    }
    let mut steps = text.family(&table::EXPERIMENT_STEP);
    for (experiment, found) in &all {
        if let Some([step, _]) = found.step {
            steps.value(&[experiment], step as u64);
        }
    }
}
