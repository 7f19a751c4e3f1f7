//! Quality of predictions whose ground truth is known: [`Classification`], [`Regression`] and
//! [`Reward`] are running aggregates. What was added can be removed again, so that corrected
//! feedback replaces the earlier one and expired records stop counting.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A sum of floating-point numbers with the rounding error carried along (Neumaier 1974): millions
/// of additions and removals do not drift.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        let total = self.sum + value;
        self.compensation += if self.sum.abs() >= value.abs() {
            (self.sum - total) + value
        } else {
            (value - total) + self.sum
        };
        self.sum = total;
    }

    fn value(self) -> f64 {
        self.sum + self.compensation
    }
}

/// `sum / n`; none without observations.
#[expect(clippy::cast_precision_loss, reason = "a mean: exact up to 2^53 observations")]
fn mean(sum: Sum, n: u64) -> Option<f64> {
    (n > 0).then(|| sum.value() / n as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio: exact up to 2^53 observations")]
fn ratio(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// Predicted classes against true ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classification {
    classes: BTreeMap<String, Counts>,
    n: u64,
    correct: u64,
    brier: Sum,
    brier_n: u64,
}

/// Of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Observations of this class.
    support: u64,
    /// Predictions of this class.
    predicted: u64,
    /// Both.
    correct: u64,
}

/// How well one class is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassQuality {
    pub class: String,
    /// Observations of this class.
    pub support: u64,
    /// Predictions of this class.
    pub predicted: u64,
    /// Share of the predictions of this class that are right; none: it was never predicted.
    pub precision: Option<f64>,
    /// Share of the observations of this class that were predicted; none: there were none.
    pub recall: Option<f64>,
}

impl Classification {
    /// One observation of class `truth` for which `predicted` was predicted. `probabilities`: those
    /// of all classes and the index of the true one, where they are known.
    pub fn add(&mut self, truth: &str, predicted: &str, probabilities: Option<(&[f64], usize)>) {
        self.n += 1;
        self.correct += u64::from(truth == predicted);
        let counts = self.classes.entry(truth.to_owned()).or_default();
        counts.support += 1;
        counts.correct += u64::from(truth == predicted);
        self.classes.entry(predicted.to_owned()).or_default().predicted += 1;
        if let Some(score) = probabilities.and_then(|(all, truth)| brier(all, truth)) {
            self.brier.add(score);
            self.brier_n += 1;
        }
    }

    /// Takes back an [`add`](Self::add) of the same observation.
    pub fn remove(&mut self, truth: &str, predicted: &str, probabilities: Option<(&[f64], usize)>) {
        let correct = u64::from(truth == predicted);
        self.n = self.n.saturating_sub(1);
        self.correct = self.correct.saturating_sub(correct);
        if let Some(counts) = self.classes.get_mut(truth) {
            counts.support = counts.support.saturating_sub(1);
            counts.correct = counts.correct.saturating_sub(correct);
        }
        if let Some(counts) = self.classes.get_mut(predicted) {
            counts.predicted = counts.predicted.saturating_sub(1);
        }
        self.classes.retain(|_, counts| *counts != Counts::default());
        if let Some(score) = probabilities.and_then(|(all, truth)| brier(all, truth)) {
            self.brier.add(-score);
            self.brier_n = self.brier_n.saturating_sub(1);
        }
    }

    /// Adds every observation of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.correct += other.correct;
        for (class, counts) in &other.classes {
            let sum = self.classes.entry(class.clone()).or_default();
            sum.support += counts.support;
            sum.predicted += counts.predicted;
            sum.correct += counts.correct;
        }
        self.brier.add(other.brier.value());
        self.brier_n += other.brier_n;
    }

    /// Number of observations.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Number of classes among observations and predictions.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Whether `class` is among them.
    #[must_use]
    pub fn has_class(&self, class: &str) -> bool {
        self.classes.contains_key(class)
    }

    /// Share of right predictions.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.correct, self.n)
    }

    /// Each class that was observed or predicted, in the order of their names.
    #[must_use]
    pub fn per_class(&self) -> Vec<ClassQuality> {
        let quality = |(class, counts): (&String, &Counts)| ClassQuality {
            class: class.clone(),
            support: counts.support,
            predicted: counts.predicted,
            precision: ratio(counts.correct, counts.predicted),
            recall: ratio(counts.correct, counts.support),
        };
        self.classes.iter().map(quality).collect()
    }

    /// Mean of the classes' precisions, each class with the same weight. A class that was never
    /// predicted counts as 0, as in scikit-learn (`average="macro"`, `zero_division=0`).
    #[must_use]
    pub fn macro_precision(&self) -> Option<f64> {
        self.macro_average(|counts| ratio(counts.correct, counts.predicted))
    }

    /// Mean of the classes' recalls, likewise.
    #[must_use]
    pub fn macro_recall(&self) -> Option<f64> {
        self.macro_average(|counts| ratio(counts.correct, counts.support))
    }

    fn macro_average(&self, of: impl Fn(&Counts) -> Option<f64>) -> Option<f64> {
        let mut sum = Sum::default();
        self.classes.values().for_each(|counts| sum.add(of(counts).unwrap_or(0.0)));
        mean(sum, self.classes.len() as u64)
    }

    /// The Brier score over all classes, from 0 (best) to 2, of the observations whose
    /// probabilities are known: [`brier_n`](Self::brier_n).
    #[must_use]
    pub fn brier(&self) -> Option<f64> {
        mean(self.brier, self.brier_n)
    }

    /// Number of observations whose probabilities are known.
    #[must_use]
    pub fn brier_n(&self) -> u64 {
        self.brier_n
    }
}

/// `sum over k of (p_k - o_k)^2`, where `o` is 1 for the true class and 0 for the others (Brier 1950,
/// "Verification of forecasts expressed in terms of probability", equation 2). None where a
/// probability is not a number, or `truth` is no class.
fn brier(probabilities: &[f64], truth: usize) -> Option<f64> {
    if truth >= probabilities.len() || !probabilities.iter().all(|p| p.is_finite()) {
        return None;
    }
    let outcome = |index| if index == truth { 1.0 } else { 0.0 };
    Some(probabilities.iter().enumerate().map(|(k, p)| (p - outcome(k)).powi(2)).sum())
}

/// Predicted numbers against true ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regression {
    n: u64,
    absolute: Sum,
    squared: Sum,
}

impl Regression {
    /// One observation. Nothing is added if the error is not finite.
    pub fn add(&mut self, truth: f64, predicted: f64) {
        let error = predicted - truth;
        if (error * error).is_finite() {
            self.n += 1;
            self.absolute.add(error.abs());
            self.squared.add(error * error);
        }
    }

    /// Takes back an [`add`](Self::add) of the same observation.
    pub fn remove(&mut self, truth: f64, predicted: f64) {
        let error = predicted - truth;
        if (error * error).is_finite() {
            self.n = self.n.saturating_sub(1);
            self.absolute.add(-error.abs());
            self.squared.add(-(error * error));
        }
    }

    /// Adds every observation of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.absolute.add(other.absolute.value());
        self.squared.add(other.squared.value());
    }

    /// Number of observations.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Mean absolute error, in the unit of the prediction.
    #[must_use]
    pub fn mean_absolute_error(&self) -> Option<f64> {
        mean(self.absolute, self.n)
    }

    /// Square root of the mean squared error, in the unit of the prediction.
    #[must_use]
    pub fn root_mean_squared_error(&self) -> Option<f64> {
        // What removals leave of rounding may be below zero.
        mean(self.squared, self.n).map(|mean| mean.max(0.0).sqrt())
    }
}

/// Rewards of predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reward {
    n: u64,
    sum: Sum,
}

impl Reward {
    /// One observation. Nothing is added if it is not finite.
    pub fn add(&mut self, reward: f64) {
        if reward.is_finite() {
            self.n += 1;
            self.sum.add(reward);
        }
    }

    /// Takes back an [`add`](Self::add) of the same observation.
    pub fn remove(&mut self, reward: f64) {
        if reward.is_finite() {
            self.n = self.n.saturating_sub(1);
            self.sum.add(-reward);
        }
    }

    /// Adds every observation of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sum.add(other.sum.value());
    }

    /// Number of observations.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        mean(self.sum, self.n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(value: Option<f64>, expected: f64) {
        let value = value.unwrap();
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    }

    /// Truth a a a b b c, predicted a a b b c a: confusion by hand.
    #[test]
    fn accuracy_precision_and_recall_are_those_computed_by_hand() {
        let mut quality = Classification::default();
        for (truth, predicted) in "aaabbc".chars().zip("aabbca".chars()) {
            quality.add(&truth.to_string(), &predicted.to_string(), None);
        }
        assert_eq!(quality.n(), 6);
        close(quality.accuracy(), 3.0 / 6.0);
        let [a, b, c] = &quality.per_class()[..] else { panic!("three classes") };
        assert_eq!((a.support, a.predicted, b.support, b.predicted), (3, 3, 2, 2));
        close(a.precision, 2.0 / 3.0);
        close(a.recall, 2.0 / 3.0);
        close(b.precision, 1.0 / 2.0);
        close(b.recall, 1.0 / 2.0);
        close(c.precision, 0.0);
        close(c.recall, 0.0);
        close(quality.macro_precision(), (2.0 / 3.0 + 0.5) / 3.0);
        close(quality.macro_recall(), (2.0 / 3.0 + 0.5) / 3.0);
        assert_eq!((quality.brier(), quality.brier_n()), (None, 0));
    }

    #[test]
    fn a_class_that_was_never_predicted_has_no_precision_and_counts_as_zero() {
        let mut quality = Classification::default();
        quality.add("a", "a", None);
        quality.add("b", "a", None);
        let [a, b] = &quality.per_class()[..] else { panic!("two classes") };
        close(a.precision, 0.5);
        assert_eq!((b.precision, b.recall), (None, Some(0.0)));
        close(quality.macro_precision(), 0.25);
        close(quality.macro_recall(), 0.5);
    }

    #[test]
    fn the_brier_score_is_the_one_computed_by_hand() {
        let mut quality = Classification::default();
        quality.add("a", "a", Some((&[0.7, 0.2, 0.1], 0)));
        quality.add("b", "c", Some((&[0.1, 0.3, 0.6], 1)));
        quality.add("c", "c", Some((&[0.0, 0.0, 1.0], 2)));
        let by_hand = ((0.09 + 0.04 + 0.01) + (0.01 + 0.49 + 0.36) + 0.0) / 3.0;
        close(quality.brier(), by_hand);
        quality.add("d", "a", Some((&[1.0, 0.0, 0.0], 3)));
        quality.add("a", "a", Some((&[f64::NAN, 0.0, 0.0], 0)));
        assert_eq!((quality.n(), quality.brier_n()), (5, 3));
        let mut worst = Classification::default();
        worst.add("a", "b", Some((&[0.0, 1.0], 0)));
        close(worst.brier(), 2.0);
    }

    #[test]
    fn errors_of_a_regression_are_those_computed_by_hand() {
        let mut quality = Regression::default();
        for (truth, predicted) in [(3.0, 2.5), (-0.5, 0.0), (2.0, 2.0), (7.0, 8.0)] {
            quality.add(truth, predicted);
        }
        // scikit-learn's documentation has this example: 0.5 and 0.375.
        close(quality.mean_absolute_error(), 0.5);
        close(quality.root_mean_squared_error(), 0.375_f64.sqrt());
        quality.add(f64::NAN, 1.0);
        quality.add(1e300, -1e300);
        assert_eq!(quality.n(), 4, "what is not finite does not count");
        let mut reward = Reward::default();
        [1.0, 0.0, 0.25].into_iter().for_each(|value| reward.add(value));
        close(reward.mean(), 1.25 / 3.0);
    }

    #[test]
    fn without_observations_there_are_no_results() {
        let none = Classification::default();
        assert_eq!((none.accuracy(), none.macro_precision(), none.brier()), (None, None, None));
        let none = Regression::default();
        assert_eq!((none.mean_absolute_error(), none.root_mean_squared_error()), (None, None));
        assert_eq!(Reward::default().mean(), None);
    }

    proptest! {
        #[test]
        fn what_is_removed_or_merged_is_as_if_it_had_been_so_from_the_start(
            kept in prop::collection::vec((0_usize..3, 0_usize..3, -1e6_f64..1e6), 0..30),
            removed in prop::collection::vec((0_usize..3, 0_usize..3, -1e6_f64..1e6), 0..30),
        ) {
            let name = |class: usize| ["a", "b", "c"][class];
            let probabilities = |number: f64| [number / 2e6, 0.5, -number / 2e6];
            let fill = |observations: &[(usize, usize, f64)]| {
                let (mut classes, mut numbers, mut rewards) =
                    (Classification::default(), Regression::default(), Reward::default());
                for &(truth, predicted, number) in observations {
                    let all = probabilities(number);
                    classes.add(name(truth), name(predicted), Some((&all, truth)));
                    numbers.add(number, 1.0);
                    rewards.add(number);
                }
                (classes, numbers, rewards)
            };
            let expected = fill(&kept);
            let mut all = fill(&removed);
            let (classes, numbers, rewards) = &expected;
            all.0.merge(classes);
            all.1.merge(numbers);
            all.2.merge(rewards);
            for &(truth, predicted, number) in &removed {
                let each = probabilities(number);
                all.0.remove(name(truth), name(predicted), Some((&each, truth)));
                all.1.remove(number, 1.0);
                all.2.remove(number);
            }
            prop_assert_eq!(all.0.per_class(), classes.per_class());
            prop_assert_eq!((all.0.n(), all.0.accuracy()), (classes.n(), classes.accuracy()));
            let same = |one: Option<f64>, other: Option<f64>| match (one, other) {
                (Some(one), Some(other)) => (one - other).abs() <= 1e-6 * other.abs().max(1.0),
                (one, other) => one == other,
            };
            prop_assert!(same(all.0.brier(), classes.brier()));
            prop_assert!(same(all.1.mean_absolute_error(), numbers.mean_absolute_error()));
            prop_assert!(same(all.2.mean(), rewards.mean()));
        }
    }
}
