//! From the votes of the leaves to a row of outputs.
//!
//! For target `j`, with `v` the votes for `j` of the leaves reached, in the order of the trees,
//! and `b` the base values (0 where there are none):
//!
//! | aggregate | score |
//! | --- | --- |
//! | SUM | `sum(v) + b[j]` |
//! | AVERAGE | `sum(v) / trees + b[j]` |
//! | MIN, MAX | `min(v) + b[j]`, `max(v) + b[j]` |
//!
//! Of several targets, one that no leaf voted for is 0, its base value left out. A single target
//! is its base value then.
//!
//! Then the post-transform; of a regressor with one target only PROBIT applies. A classifier sums.
//! Its label is the class with the greatest sum, the first of equals. Two classes follow rules of
//! ONNX Runtime's own, restated at [`Classifier::two_classes`], because the standard leaves open
//! what one score says about two classes.
//!
//! Sums are FP32 for FP32 inputs and FP64 for FP64 inputs, in the order of the trees: what ONNX
//! Runtime computes on one thread (`tree_ensemble_aggregator.h`).

use super::Real;
use super::evaluate::Forest;

/// What the votes for one target came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Score<T> {
    pub(super) value: T,
    pub(super) voted: bool,
}

impl<T: Real> Score<T> {
    pub(super) fn add(&mut self, weight: T) {
        self.value += weight;
        self.voted = true;
    }

    /// The score as it is written: 0 if there were no votes, whatever was added to it since.
    pub(super) fn output(self) -> f32 {
        if self.voted { self.value.to_f32() } else { 0.0 }
    }

    pub(super) fn replace_if(&mut self, weight: T, better: bool) {
        if !self.voted || better {
            self.value = weight;
        }
        self.voted = true;
    }
}

/// Calls `work` with a score for each of `count` targets: on the stack if they are few, else in
/// one allocation.
pub(super) fn with_scores<T: Real>(count: usize, work: impl FnOnce(&mut [Score<T>])) {
    const FEW: usize = 16;
    if count <= FEW {
        work(&mut [Score::default(); FEW][..count]);
    } else {
        work(&mut vec![Score::default(); count]);
    }
}

pub(super) fn sum<T: Real>(forest: &Forest<T>, row: &[T], scores: &mut [Score<T>]) {
    forest.vote(row, |votes| {
        for vote in votes {
            scores[vote.target as usize].add(vote.weight);
        }
    });
}
