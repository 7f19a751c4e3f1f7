//! Scores: the votes of the leaves that a row reaches, for each target or class.
//!
//! For target `j`, with the votes `v` for it, in the order of the trees, and the base values `b` (0
//! if there are none):
//!
//! | aggregate | score |
//! | --- | --- |
//! | SUM | `sum(v) + b[j]` |
//! | AVERAGE | `sum(v) / trees + b[j]` |
//! | MIN, MAX | `min(v) + b[j]`, `max(v) + b[j]` |
//!
//! Without a vote the score is 0 if there are several targets, and the base value if there is one.
//!
//! - The post-transform follows; with one target of a regressor only PROBIT applies.
//! - A classifier sums. Its label is the class with the greatest sum, the first of equal ones. Two
//!   classes follow rules of ONNX Runtime (`Classifier::two_classes`), as the standard does not
//!   define what one score means for two classes.
//! - Sums are FP32 for FP32 inputs and FP64 for FP64 inputs, in the order of the trees, as ONNX
//!   Runtime computes them on one thread (`tree_ensemble_aggregator.h`).

use super::Real;
use super::evaluate::Forest;

/// The score of one target or class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Score<T> {
    pub(super) value: T,
    /// Whether a leaf voted for it.
    pub(super) voted: bool,
}

impl<T: Real> Score<T> {
    pub(super) fn add(&mut self, weight: T) {
        self.value += weight;
        self.voted = true;
    }

    /// The score as an output: 0 without a vote, even with a base value.
    pub(super) fn output(self) -> f32 {
        if self.voted { self.value.to_f32() } else { 0.0 }
    }

    /// Takes `weight` if it is the first vote, or `better` than those before.
    pub(super) fn replace_if(&mut self, weight: T, better: bool) {
        if !self.voted || better {
            self.value = weight;
        }
        self.voted = true;
    }
}

/// Calls `work` with a score for each of `count` targets: on the stack if they are few, otherwise
/// in one allocation.
pub(super) fn with_scores<T: Real>(count: usize, work: impl FnOnce(&mut [Score<T>])) {
    const FEW: usize = 16;
    if count <= FEW {
        work(&mut [Score::default(); FEW][..count]);
    } else {
        work(&mut vec![Score::default(); count]);
    }
}

/// Adds the votes of the leaves that `row` reaches to `scores`.
pub(super) fn sum<T: Real>(forest: &Forest<T>, row: &[T], scores: &mut [Score<T>]) {
    forest.vote(row, |votes| {
        for vote in votes {
            scores[vote.target as usize].add(vote.weight);
        }
    });
}
