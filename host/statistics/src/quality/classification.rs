//! Quality of classifiers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sum::{Sum, mean, ratio};

/// Accuracy, precision, recall and Brier score of predicted classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classification {
    classes: BTreeMap<String, ClassCounts>,
    n: u64,
    correct: u64,
    brier: Sum,
    brier_n: u64,
}

/// Counts of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ClassCounts {
    /// Number of observations of this class.
    support: u64,
    /// Number of predictions of this class.
    predicted: u64,
    /// Number of observations of this class that were predicted.
    correct: u64,
}

/// Quality of the predictions of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassQuality {
    pub class: String,
    /// Number of observations of this class.
    pub support: u64,
    /// Number of predictions of this class.
    pub predicted: u64,
    /// Share of the predictions of this class that are right; `None` if it was never predicted.
    pub precision: Option<f64>,
    /// Share of the observations of this class that were predicted; `None` if there were none.
    pub recall: Option<f64>,
}

impl Classification {
    /// Adds an observation of class `truth` for which `predicted` was predicted. `probabilities`
    /// are those of all classes, with the index of the true one, if they are known.
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

    /// Removes an observation that was [added](Self::add).
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
        self.classes.retain(|_, counts| *counts != ClassCounts::default());
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

    /// Number of classes that were observed or predicted.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Whether `class` was observed or predicted.
    #[must_use]
    pub fn has_class(&self, class: &str) -> bool {
        self.classes.contains_key(class)
    }

    /// Share of right predictions, from 0 to 1.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.correct, self.n)
    }

    /// Quality of each class that was observed or predicted, by name.
    #[must_use]
    pub fn per_class(&self) -> Vec<ClassQuality> {
        let quality = |(class, counts): (&String, &ClassCounts)| ClassQuality {
            class: class.clone(),
            support: counts.support,
            predicted: counts.predicted,
            precision: ratio(counts.correct, counts.predicted),
            recall: ratio(counts.correct, counts.support),
        };
        self.classes.iter().map(quality).collect()
    }

    /// Mean precision of the classes, each with the same weight. That of a class that was never
    /// predicted is 0, as in scikit-learn (`average="macro"`, `zero_division=0`).
    #[must_use]
    pub fn macro_precision(&self) -> Option<f64> {
        self.macro_average(|counts| ratio(counts.correct, counts.predicted))
    }

    /// Mean recall of the classes, each with the same weight. That of a class that was never
    /// observed is 0.
    #[must_use]
    pub fn macro_recall(&self) -> Option<f64> {
        self.macro_average(|counts| ratio(counts.correct, counts.support))
    }

    fn macro_average(&self, of: impl Fn(&ClassCounts) -> Option<f64>) -> Option<f64> {
        let mut sum = Sum::default();
        self.classes.values().for_each(|counts| sum.add(of(counts).unwrap_or(0.0)));
        mean(sum, self.classes.len() as u64)
    }

    /// Mean Brier score over all classes, from 0 (best) to 2, of the [observations](Self::brier_n)
    /// with known probabilities.
    #[must_use]
    pub fn brier(&self) -> Option<f64> {
        mean(self.brier, self.brier_n)
    }

    /// Number of observations with known probabilities.
    #[must_use]
    pub fn brier_n(&self) -> u64 {
        self.brier_n
    }
}

/// `sum over k of (p_k - o_k)^2`, where `o` is 1 for the true class and 0 for the others (Brier
/// 1950, "Verification of forecasts expressed in terms of probability", equation 2). `None` if a
/// probability is not finite, or `truth` is out of range.
fn brier(probabilities: &[f64], truth: usize) -> Option<f64> {
    if truth >= probabilities.len() || !probabilities.iter().all(|p| p.is_finite()) {
        return None;
    }
    let outcome = |index| if index == truth { 1.0 } else { 0.0 };
    Some(probabilities.iter().enumerate().map(|(k, p)| (p - outcome(k)).powi(2)).sum())
}
