//! Whether a variant is worse than control by more than a limit, tested again and again while
//! requests arrive: of each arm, how many outcomes were bad (an error, a slow response).
//!
//! One look is an e-variable for two Bernoulli streams (Turner, Ly and Grünwald 2024, "Generic
//! E-variables for exact sequential k-sample tests that allow for optional stopping", Journal of
//! Statistical Planning and Inference 230): the likelihood of the batch with the rates `a*`, `b*`
//! that earlier batches suggest, over that with the rates `a`, `b = a + δ` that fit those best
//! among the rates that the limit `δ` allows. Its mean is at most 1 if the true rates are within the
//! limit, whatever the sizes of the batch: with `λ = n_b (b* - b) / (b (1 - b))`, which the minimum
//! over `a` makes equal to `n_a (a - a*) / (a (1 - a))`, its logarithm's bound is
//! `λ (true b - true a - δ) <= 0`.
//!
//! **A look in which one arm has no outcome** is no batch yet. There is no bet on one arm alone: for
//! each rate of the variant some rate of control is within the limit, so only 1 has a mean of at
//! most 1 for all of them. Nor does control's rate so far help, as it may have changed with the
//! variant's. The outcomes wait until those of the other arm arrive, and are one batch with them. Its
//! end depends on the numbers of outcomes, not on how many are bad, so given the numbers it is a
//! batch as above, provided that its bet is based on what was known *before its first outcome*, and
//! that rates stay the same while it waits. After [`Detector`]'s patience it is discarded, which
//! depends on the numbers only, too: a variant is not compared with control at another time.
//!
//! Looks are accumulated as in the CUSUM e-detector of Shin, Ramdas and Rinaldo (2024), "E-detectors:
//! a nonparametric framework for sequential change detection": `M = max(M, 1) · E`, with an alarm at
//! `M >= 1 / α`. While the variant is within the limit, the mean number of batches until a false alarm
//! is at least `1 / α`, and so is that of looks, which have at most one batch each. Both hold exactly,
//! for any number of requests, if that number does not depend on the outcomes of its own batch.

use serde::{Deserialize, Serialize};

use crate::float;

/// Outcomes of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    pub bad: u64,
    /// Number of outcomes, bad ones among them.
    pub of: u64,
}

impl Outcomes {
    /// Share of bad outcomes; 0 without any.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.of == 0 { 0.0 } else { float(self.bad.min(self.of)) / float(self.of) }
    }

    /// An estimate of the rate that is never 0 or 1 (Krichevsky and Trofimov 1981).
    fn estimate(self) -> f64 {
        (float(self.bad.min(self.of)) + 0.5) / (float(self.of) + 1.0)
    }
}

/// The accumulated evidence that a variant exceeds its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detector {
    /// `δ`: maximum increase of the rate of bad outcomes over control's, 0 or more.
    limit: f64,
    /// Natural logarithm of `1 / α`.
    threshold: f64,
    /// Natural logarithm of `M`.
    evidence: f64,
    /// Maximum number of looks of a batch.
    patience: u32,
    waiting: Option<Batch>,
}

/// Outcomes of one arm that wait for those of the other.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Batch {
    /// Outcomes of each arm before the batch.
    known: [Outcomes; 2],
    outcomes: [Outcomes; 2],
    looks: u32,
}

impl Detector {
    /// A detector with a false alarm at most every `looks` looks on average. Outcomes of one arm wait
    /// for those of the other for at most `patience` looks, in which rates have to stay the same.
    #[must_use]
    pub fn new(limit: f64, looks: f64, patience: u32) -> Self {
        let threshold = looks.max(1.0).ln();
        Self { limit: limit.max(0.0), threshold, evidence: 0.0, patience, waiting: None }
    }

    /// Adds the outcomes since the last look. `known` are those of each arm before, on which the bet
    /// is based; at the first look there are none, and no bet. Returns whether there is an alarm.
    pub fn look(&mut self, known: [Outcomes; 2], outcomes: [Outcomes; 2]) -> bool {
        let start = Batch { known, outcomes: [Outcomes::default(); 2], looks: 0 };
        let mut batch = self.waiting.take().unwrap_or(start);
        batch.looks += 1;
        for (sum, new) in batch.outcomes.iter_mut().zip(outcomes) {
            sum.bad = sum.bad.saturating_add(new.bad);
            sum.of = sum.of.saturating_add(new.of);
        }
        let seen = batch.outcomes.map(|outcomes| outcomes.of > 0);
        if seen == [true; 2] {
            let gain = log_e_value(self.limit, batch.known, batch.outcomes);
            self.evidence = self.evidence.max(0.0) + gain;
        } else if seen != [false; 2] && batch.looks < self.patience {
            self.waiting = Some(batch);
        }
        self.is_alarm()
    }

    /// Whether outcomes of one arm wait for those of the other. What counts as bad must not change
    /// until then.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    #[must_use]
    pub fn is_alarm(&self) -> bool {
        self.evidence >= self.threshold
    }

    /// Evidence so far as a share of the evidence that raises the alarm, from 0 on.
    #[must_use]
    pub fn level(&self) -> f64 {
        (self.evidence / self.threshold).max(0.0)
    }
}

/// Natural logarithm of the e-variable of one batch, control first; 0 if there is nothing to bet on.
#[must_use]
pub fn log_e_value(limit: f64, known: [Outcomes; 2], batch: [Outcomes; 2]) -> f64 {
    let [a, b] = known.map(Outcomes::estimate);
    if known.iter().chain(&batch).any(|outcomes| outcomes.of == 0) || b - a <= limit {
        return 0.0;
    }
    let [n_a, n_b] = batch.map(|outcomes| float(outcomes.of));
    // The divergence is convex in the rate of control, with its minimum where this is 0.
    let slope = |rate: f64| {
        let shifted = rate + limit;
        n_a * (rate - a) / (rate * (1.0 - rate)) + n_b * (shifted - b) / (shifted * (1.0 - shifted))
    };
    // At `a` only the second term, negative, is left, and at `b - δ` only the first, positive.
    let (mut low, mut high) = (a, b - limit);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if slope(middle) < 0.0 { low = middle } else { high = middle }
    }
    let rate = 0.5 * (low + high);
    let gain = |outcomes: Outcomes, alternative: f64, null: f64| {
        let (bad, of) = (float(outcomes.bad.min(outcomes.of)), float(outcomes.of));
        bad * (alternative / null).ln() + (of - bad) * ((1.0 - alternative) / (1.0 - null)).ln()
    };
    gain(batch[0], a, rate) + gain(batch[1], b, rate + limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use statrs::function::factorial::ln_binomial;

    use super::*;

    fn outcomes(bad: u64, of: u64) -> Outcomes {
        Outcomes { bad, of }
    }

    #[test]
    fn one_error_is_no_alarm() {
        let mut detector = Detector::new(0.0, 1000.0, 60);
        assert!(!detector.look([outcomes(0, 1000); 2], [outcomes(0, 10), outcomes(1, 10)]));
        assert_eq!(detector.level(), 0.0);
    }

    #[test]
    fn clear_difference_is_an_alarm_and_a_small_one_is_not() {
        let run = |bad: u64| {
            let mut detector = Detector::new(0.01, 1e7, 60);
            let mut known = [Outcomes::default(); 2];
            (1..=100).find(|_| {
                let batch = [outcomes(0, 100), outcomes(bad, 100)];
                let alarm = detector.look(known, batch);
                for (known, batch) in known.iter_mut().zip(batch) {
                    *known = outcomes(known.bad + batch.bad, known.of + batch.of);
                }
                alarm
            })
        };
        assert_eq!(run(5), Some(8));
        assert_eq!(run(1), None);
    }

    #[test]
    fn evidence_falls_to_zero_after_a_breach() {
        let mut detector = Detector::new(0.0, 1e7, 60);
        let known = [outcomes(10, 1000), outcomes(100, 1000)];
        detector.look(known, [outcomes(1, 50), outcomes(5, 50)]);
        assert!(detector.level() > 0.0);
        for _ in 0..3 {
            detector.look(known, [outcomes(1, 100), outcomes(1, 100)]);
        }
        assert_eq!(detector.level(), 0.0);
    }

    const NONE: Outcomes = Outcomes { bad: 0, of: 0 };

    #[test]
    fn outcomes_of_one_arm_wait_for_the_other() {
        let known = [outcomes(0, 100), outcomes(20, 100)];
        let mut at_once = Detector::new(0.01, 1e7, 60);
        at_once.look(known, [outcomes(0, 9), outcomes(5, 7)]);
        let mut waiting = Detector::new(0.01, 1e7, 60);
        // What is known changes, but not what the batch that waits is compared by.
        let changed = [outcomes(0, 100), outcomes(90, 100)];
        for (known, batch) in [
            (known, [NONE, outcomes(2, 3)]),
            (changed, [NONE; 2]),
            (changed, [NONE, outcomes(3, 4)]),
        ] {
            waiting.look(known, batch);
            assert!(waiting.is_waiting() && waiting.level() == 0.0, "{waiting:?}");
        }
        waiting.look(changed, [outcomes(0, 9), NONE]);
        assert!(waiting.level() > 0.1, "{waiting:?}");
        assert_eq!(waiting, at_once);
    }

    #[test]
    fn outcomes_that_waited_too_long_are_no_evidence() {
        let known = [outcomes(0, 100), outcomes(20, 100)];
        let mut detector = Detector::new(0.01, 1e7, 3);
        for _ in 0..3 {
            detector.look(known, [NONE, outcomes(2, 3)]);
        }
        assert!(!detector.is_waiting());
        detector.look(known, [outcomes(0, 9), NONE]);
        assert!(detector.is_waiting() && detector.level() == 0.0, "{detector:?}");
    }

    /// Every request of the variant fails, its clients leave, and no look has requests of both.
    #[test]
    fn variant_that_loses_its_traffic_to_errors_is_an_alarm() {
        let mut detector = Detector::new(0.01, 8_640_000.0, 60);
        let mut known = [outcomes(0, 500), outcomes(0, 50)];
        let alarm = (0_u64..200).find(|look| {
            // One in 2, 3, 4 ... looks.
            let errors = (1..20).map(|gaps| gaps * (gaps + 3) / 2).any(|at| at == *look);
            let batch = if errors { [NONE, outcomes(1, 1)] } else { [outcomes(0, 5), NONE] };
            let alarm = detector.look(known, batch);
            for (known, batch) in known.iter_mut().zip(batch) {
                *known = outcomes(known.bad + batch.bad, known.of + batch.of);
            }
            alarm
        });
        let errors = known[1].bad;
        assert!(alarm.is_some() && (4..=12).contains(&errors), "{alarm:?} {errors}");
    }

    proptest! {
        /// The mean over all outcomes of a batch that waits, with what the looks before have shown.
        #[test]
        fn e_value_of_a_batch_that_waits_has_a_mean_of_at_most_one(
            limit in 0.0_f64..0.2,
            known in (0_u64..50, 0_u64..50),
            sizes in (1_u64..8, 1_u64..8, 1_u64..8),
            rate in 0.001_f64..0.75,
        ) {
            let known = [outcomes(known.0, 50), outcomes(known.1, 50)];
            let (first, second, control) = sizes;
            let binomial = |bad: u64, of: u64, rate: f64| {
                let [hits, misses] = [bad, of - bad].map(|count| i32::try_from(count).unwrap());
                ln_binomial(of, bad).exp() * rate.powi(hits) * (1.0 - rate).powi(misses)
            };
            let mut mean = 0.0;
            for x in 0..=first {
                for y in 0..=second {
                    for a in 0..=control {
                        let mut detector = Detector::new(limit, 1e7, 60);
                        detector.look(known, [NONE, outcomes(x, first)]);
                        let later = [known[0], outcomes(known[1].bad + x, 50 + first)];
                        detector.look(later, [outcomes(a, control), outcomes(y, second)]);
                        mean += detector.evidence.exp()
                            * binomial(x, first, rate + limit)
                            * binomial(y, second, rate + limit)
                            * binomial(a, control, rate);
                    }
                }
            }
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }

        /// The mean over all possible batches, for rates at and within the limit.
        #[test]
        fn e_value_has_a_mean_of_at_most_one(
            limit in 0.0_f64..0.2,
            known in (0_u64..50, 0_u64..50),
            sizes in (1_u64..12, 1_u64..12),
            rate in 0.001_f64..0.75,
            below in 0.0_f64..0.05,
        ) {
            let known = [outcomes(known.0, 50), outcomes(known.1, 50)];
            let rates = [rate, (rate + limit - below).max(0.0)];
            let probability = |bad: u64, of: u64, rate: f64| {
                let [hits, misses] = [bad, of - bad].map(|count| i32::try_from(count).unwrap());
                ln_binomial(of, bad).exp() * rate.powi(hits) * (1.0 - rate).powi(misses)
            };
            let mut mean = 0.0;
            for a in 0..=sizes.0 {
                for b in 0..=sizes.1 {
                    let e = log_e_value(limit, known, [outcomes(a, sizes.0), outcomes(b, sizes.1)]);
                    mean += e.exp() * probability(a, sizes.0, rates[0]) * probability(b, sizes.1, rates[1]);
                }
            }
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }
    }
}
