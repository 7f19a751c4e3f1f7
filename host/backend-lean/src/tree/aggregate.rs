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
use super::evaluate::{Forest, Vote};
use crate::post_transform::{PostTransform, logistic};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// What the votes for one target came to.
#[derive(Clone, Copy, Debug, Default)]
struct Score<T> {
    value: T,
    voted: bool,
}

impl<T: Real> Score<T> {
    fn add(&mut self, weight: T) {
        self.value += weight;
        self.voted = true;
    }

    /// The score as it is written: 0 if there were no votes, whatever was added to it since.
    fn output(self) -> f32 {
        if self.voted { self.value.to_f32() } else { 0.0 }
    }

    fn replace_if(&mut self, weight: T, better: bool) {
        if !self.voted || better {
            self.value = weight;
        }
        self.voted = true;
    }
}

/// Calls `work` with a score for each of `count` targets: on the stack if they are few, else in
/// one allocation.
fn with_scores<T: Real>(count: usize, work: impl FnOnce(&mut [Score<T>])) {
    const FEW: usize = 16;
    if count <= FEW {
        work(&mut [Score::default(); FEW][..count]);
    } else {
        work(&mut vec![Score::default(); count]);
    }
}

#[derive(Debug)]
pub(crate) struct Regressor<T> {
    pub(crate) forest: Forest<T>,
    pub(crate) targets: usize,
    pub(crate) aggregate: Aggregate,
    /// Empty, or one for each target.
    pub(crate) base: Vec<T>,
    pub(crate) post: PostTransform,
}

impl<T: Real> Regressor<T> {
    /// `rows` holds rows of `width` features, `out` rows of `targets`.
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

fn sum<T: Real>(forest: &Forest<T>, row: &[T], scores: &mut [Score<T>]) {
    forest.vote(row, |votes| {
        for vote in votes {
            scores[vote.target as usize].add(vote.weight);
        }
    });
}

#[derive(Debug)]
pub(crate) struct Classifier<T> {
    pub(crate) forest: Forest<T>,
    pub(crate) labels: Vec<i64>,
    /// Empty, or one for each class; one may do for two classes.
    pub(crate) base: Vec<T>,
    pub(crate) post: PostTransform,
    /// Two classes, of which the leaves vote for one only.
    pub(crate) binary: bool,
    pub(crate) all_positive: bool,
}

impl<T: Real> Classifier<T> {
    pub(crate) fn classes(&self) -> usize {
        self.labels.len()
    }

    /// `rows` holds rows of `width` features, `out` rows of one score for each class.
    pub(crate) fn run(&self, rows: &[T], width: usize, labels: &mut [i64], out: &mut [f32]) {
        let classes = self.classes();
        with_scores(classes, |scores| {
            let outputs = labels.iter_mut().zip(out.chunks_exact_mut(classes));
            for (row, (label, out)) in rows.chunks_exact(width).zip(outputs) {
                scores.fill(Score::default());
                sum(&self.forest, row, scores);
                *label = match (&mut *scores, &mut *out) {
                    ([score], [out]) => self.one_class(*score, out),
                    ([first, second], [a, b]) => {
                        let (label, row) = self.two_classes(*first, *second);
                        [*a, *b] = row;
                        label
                    }
                    (scores, out) => self.many_classes(scores, out),
                };
            }
        });
    }

    fn many_classes(&self, scores: &mut [Score<T>], out: &mut [f32]) -> i64 {
        for (score, &base) in scores.iter_mut().zip(&self.base) {
            score.add(base);
        }
        let mut best: Option<(usize, T)> = None;
        for (class, (score, out)) in scores.iter().zip(out.iter_mut()).enumerate() {
            *out = score.output();
            if score.voted && best.is_none_or(|(_, value)| score.value > value) {
                best = Some((class, score.value));
            }
        }
        self.post.row(out);
        self.labels[best.map_or(0, |(class, _)| class)]
    }

    /// With one class the label says whether its score is positive: 1 or 0, whatever its name.
    fn one_class(&self, mut score: Score<T>, out: &mut f32) -> i64 {
        if let [base] = self.base[..] {
            score.add(base);
        }
        *out = self.post.single(score.value.to_f32());
        i64::from(score.value > T::default())
    }

    /// Two classes. A second score counts only where a leaf voted for class 1.
    ///
    /// 1. Base values. Two, and class 1 was voted for: `s1 = b1 + s0`, `s0 = -s1`. Two otherwise:
    ///    each is added to its score. One: added to `s0`.
    /// 2. The label is decided by `s1` if class 1 was voted for, else by `s0`. Where leaves vote
    ///    for one class only, it is the second label above 0.5 if no weight is negative, above 0
    ///    otherwise. Where they vote for both it is 1 above 0, else 0.
    /// 3. With two scores the post-transform applies to both; a class not voted for has 0. A
    ///    single score `s` becomes `f(-s), f(s)` of LOGISTIC; else `1 - s, s` if no weight is
    ///    negative, else `-s, s`.
    fn two_classes(&self, mut first: Score<T>, mut second: Score<T>) -> (i64, [f32; 2]) {
        let zero = T::default();
        let mut single = !second.voted;
        match self.base[..] {
            [_, base] if second.voted => {
                second.value = base + first.value;
                first.value = -second.value;
            }
            [base0, base1] => {
                second.value += base1;
                first.value += base0;
                single = false;
            }
            [base] => first.value += base,
            _ => {}
        }
        let decisive = match (second.voted, first.voted) {
            (true, _) => second.value,
            (false, true) => first.value,
            (false, false) => zero,
        };
        let positive = decisive > if self.binary && self.all_positive { T::HALF } else { zero };
        let label = match (self.binary, positive) {
            (true, _) => self.labels[usize::from(positive)],
            (false, _) => i64::from(positive),
        };
        let row = if !single {
            let mut row = [first.output(), second.output()];
            self.post.row(&mut row);
            row
        } else {
            self.single_score(first)
        };
        (label, row)
    }

    fn single_score(&self, score: Score<T>) -> [f32; 2] {
        let s = score.output();
        match self.post {
            // Undefined by the reference, which leaves the second score unwritten.
            _ if !self.binary && !self.base.is_empty() => [self.post.single(s), 0.0],
            PostTransform::Probit => [self.post.single(s), 0.0],
            PostTransform::Logistic => [logistic(-s), logistic(s)],
            _ if self.binary && self.all_positive => [1.0 - s, s],
            PostTransform::None | PostTransform::Softmax | PostTransform::SoftmaxZero => [-s, s],
        }
    }
}
