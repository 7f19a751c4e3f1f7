//! Ensembles of regression trees. Formulas: `score`.

use super::Real;
use super::evaluate::{Forest, Vote};
use super::score::{Score, sum, with_scores};
use crate::post_transform::PostTransform;

/// How the votes of the trees are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// An ensemble with one score for each target.
#[derive(Debug)]
pub(crate) struct Regressor<T> {
    pub(crate) forest: Forest<T>,
    pub(crate) targets: usize,
    pub(crate) aggregate: Aggregate,
    /// Base values: none, or one for each target.
    pub(crate) base: Vec<T>,
    pub(crate) post: PostTransform,
}

impl<T: Real> Regressor<T> {
    /// Evaluates `rows` of `width` features into `out`, rows of `targets` scores.
    pub(crate) fn run(&self, rows: &[T], width: usize, out: &mut [f32]) {
        self.each(rows, width, out, |scores, out| self.finish(scores, out));
    }

    fn each<O>(
        &self,
        rows: &[T],
        width: usize,
        out: &mut [O],
        finish: impl Fn(&[Score<T>], &mut [O]),
    ) {
        with_scores(self.targets, |scores| {
            for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(self.targets)) {
                scores.fill(Score::default());
                self.vote(row, scores);
                finish(scores, out);
            }
        });
    }

    fn vote(&self, row: &[T], scores: &mut [Score<T>]) {
        match self.aggregate {
            Aggregate::Sum | Aggregate::Average => sum(&self.forest, row, scores),
            Aggregate::Min => self.forest.vote(row, |votes| {
                for &Vote { target, weight } in votes {
                    let score = &mut scores[target as usize];
                    score.replace_if(weight, weight < score.value);
                }
            }),
            Aggregate::Max => self.forest.vote(row, |votes| {
                for &Vote { target, weight } in votes {
                    let score = &mut scores[target as usize];
                    score.replace_if(weight, weight > score.value);
                }
            }),
        }
    }

    /// The score of target `j` before the post-transform.
    fn value(&self, j: usize, score: Score<T>) -> T {
        let value = match self.aggregate {
            Aggregate::Average => score.value / T::from_count(self.forest.trees()),
            Aggregate::Sum | Aggregate::Min | Aggregate::Max => score.value,
        };
        let base = self.base.get(j).copied().unwrap_or_default();
        if score.voted || self.targets == 1 { value + base } else { T::default() }
    }

    fn finish(&self, scores: &[Score<T>], out: &mut [f32]) {
        for (j, (score, out)) in scores.iter().zip(out.iter_mut()).enumerate() {
            *out = self.value(j, *score).to_f32();
        }
        if let [single] = out {
            *single = self.post.single(*single);
        } else {
            self.post.row(out);
        }
    }
}
