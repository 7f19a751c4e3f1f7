//! The verdict of an experiment: a winner, no difference, or neither yet. It may be computed after
//! every unit: the probability that it ever names a winner although no treatment differs from
//! control is at most alpha.
//!
//! Each of `k` treatments is compared with control at the level `alpha / k` (Bonferroni), so all
//! confidence sequences hold at once.

use serde::{Deserialize, Serialize};

use crate::comparison::{Comparison, Estimator, Scale, compare, theta};
use crate::confidence_sequence::Boundary;
use crate::float;
use crate::moments::PairMoments;

/// How variants are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerdictSettings {
    /// Probability of a false winner, over all looks and treatments.
    pub alpha: f64,
    /// Units with an outcome that each arm needs before it is compared.
    pub minimum_sample: u64,
    /// Differences up to this one, in the metric's unit, do not matter.
    pub margin: Option<f64>,
    pub higher_is_better: bool,
    pub estimator: Estimator,
    pub scale: Scale,
}

/// The units of an arm with an outcome, by stratum of equal allocations.
pub type Strata = Vec<PairMoments>;

/// The result of the comparisons. Treatments are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nothing yet.
    Running,
    /// Every treatment is worse than control.
    Control,
    /// This treatment is better than control; of several that are, the one with the largest
    /// difference.
    Treatment(usize),
    /// No treatment differs from control by more than `bounded_by`, which is at most the margin.
    NoDifference { bounded_by: f64 },
}

/// Intervals are narrowest at this multiple of the minimum sample of two arms.
const HORIZON: f64 = 10.0;

/// Compares every treatment with control. A treatment, or control, that is too small has no
/// comparison.
#[must_use]
pub fn comparisons(
    control: &Strata,
    treatments: &[Strata],
    settings: &VerdictSettings,
) -> Vec<Option<Comparison>> {
    let VerdictSettings { alpha, minimum_sample, estimator, scale, .. } = *settings;
    let minimum = minimum_sample.max(2);
    let each = alpha / float(treatments.len().max(1) as u64);
    let boundary = Boundary::narrowest_at(2.0 * HORIZON * float(minimum), each);
    let theta = match estimator {
        Estimator::Adjusted => theta(treatments.iter().flatten().chain(control)),
        Estimator::Mean | Estimator::Ratio => 0.0,
    };
    let compared = treatments.iter().map(|treatment| {
        let found = compare(control, treatment, (estimator, scale), theta, &boundary?)?;
        found.units.iter().all(|&units| units >= minimum).then_some(found)
    });
    compared.collect()
}

/// Decides by the comparisons of all treatments.
#[must_use]
pub fn decide(comparisons: &[Option<Comparison>], settings: &VerdictSettings) -> Decision {
    let gain = |comparison: &Comparison| {
        let difference = comparison.difference;
        if settings.higher_is_better { difference } else { difference.negated() }
    };
    let known = comparisons.iter().enumerate();
    let known = known.filter_map(|(index, found)| Some((index, gain(found.as_ref()?))));
    let better = known.clone().filter(|(_, gain)| gain.lower > 0.0);
    if let Some((best, _)) = better.max_by(|(_, a), (_, b)| a.estimate.total_cmp(&b.estimate)) {
        return Decision::Treatment(best);
    }
    if comparisons.is_empty() || known.clone().count() < comparisons.len() {
        return Decision::Running;
    }
    if known.clone().all(|(_, gain)| gain.upper < 0.0) {
        return Decision::Control;
    }
    let bounded_by = known.map(|(_, gain)| gain.bound()).fold(0.0, f64::max);
    match settings.margin {
        Some(margin) if bounded_by <= margin => Decision::NoDifference { bounded_by },
        _ => Decision::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> VerdictSettings {
        VerdictSettings {
            alpha: 0.05,
            minimum_sample: 100,
            margin: Some(0.05),
            higher_is_better: true,
            estimator: Estimator::Mean,
            scale: Scale::Share,
        }
    }

    /// `right` of `of` units.
    fn arm(right: u64, of: u64) -> Strata {
        let mut moments = PairMoments::default();
        for index in 0..of {
            moments.add(if index < right { 1.0 } else { 0.0 }, 0.0);
        }
        vec![moments]
    }

    fn verdict(
        control: (u64, u64),
        treatments: &[(u64, u64)],
        settings: VerdictSettings,
    ) -> Decision {
        let treatments: Vec<_> = treatments.iter().map(|&(right, of)| arm(right, of)).collect();
        let found = comparisons(&arm(control.0, control.1), &treatments, &settings);
        decide(&found, &settings)
    }

    #[test]
    fn winner_is_the_best_of_those_that_are_better() {
        assert_eq!(verdict((500, 1000), &[(700, 1000)], settings()), Decision::Treatment(0));
        assert_eq!(
            verdict((500, 1000), &[(400, 1000), (700, 1000), (750, 1000)], settings()),
            Decision::Treatment(2)
        );
        let errors = VerdictSettings { higher_is_better: false, ..settings() };
        assert_eq!(verdict((500, 1000), &[(700, 1000)], errors), Decision::Control);
        assert_eq!(verdict((500, 1000), &[(300, 1000)], errors), Decision::Treatment(0));
    }

    #[test]
    fn control_wins_only_against_every_treatment() {
        assert_eq!(verdict((500, 1000), &[(300, 1000)], settings()), Decision::Control);
        let mixed = [(300, 1000), (490, 1000)];
        assert_eq!(verdict((500, 1000), &mixed, settings()), Decision::Running);
    }

    #[test]
    fn no_difference_needs_a_margin_and_its_bound_is_within() {
        let (a, b) = ((10_000, 20_000), (10_010, 20_000));
        let Decision::NoDifference { bounded_by } = verdict(a, &[b], settings()) else {
            panic!("not bounded");
        };
        assert!((0.01..0.05).contains(&bounded_by), "{bounded_by}");
        let none = VerdictSettings { margin: None, ..settings() };
        assert_eq!(verdict(a, &[b], none), Decision::Running);
    }

    #[test]
    fn nothing_is_decided_below_the_minimum_sample() {
        assert_eq!(verdict((0, 100), &[(100, 100)], settings()), Decision::Treatment(0));
        assert_eq!(verdict((0, 100), &[(99, 99)], settings()), Decision::Running);
        assert_eq!(verdict((0, 99), &[(100, 100)], settings()), Decision::Running);
        assert_eq!(verdict((0, 100), &[], settings()), Decision::Running);
    }
}
