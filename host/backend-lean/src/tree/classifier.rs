//! Ensembles of classification trees. Formulas: `score`, and [`Classifier::two_classes`].

use super::Real;
use super::evaluate::Forest;
use super::score::{Score, sum, with_scores};
use crate::post_transform::{PostTransform, logistic};

/// An ensemble with one score for each class, and a label.
#[derive(Debug)]
pub(crate) struct Classifier<T> {
    pub(crate) forest: Forest<T>,
    pub(crate) labels: Vec<i64>,
    /// Base values: none, one for each class, or one for two classes.
    pub(crate) base: Vec<T>,
    pub(crate) post: PostTransform,
    /// Whether there are two classes, and the leaves vote for one of them only.
    pub(crate) binary: bool,
    /// Whether no weight is negative.
    pub(crate) all_positive: bool,
}

impl<T: Real> Classifier<T> {
    pub(crate) fn classes(&self) -> usize {
        self.labels.len()
    }

    /// Evaluates `rows` of `width` features into `labels`, and into `out`, rows of a score for each
    /// class.
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

    /// With one class the label is 1 if its score is positive and 0 otherwise, whatever its name.
    fn one_class(&self, mut score: Score<T>, out: &mut f32) -> i64 {
        if let [base] = self.base[..] {
            score.add(base);
        }
        *out = self.post.single(score.value.to_f32());
        i64::from(score.value > T::default())
    }

    /// The label and the scores of two classes, from the scores `s0` and `s1`. There is a second
    /// score only if a leaf voted for class 1.
    ///
    /// 1. Base values. Two of them, and a vote for class 1: `s1 = b1 + s0`, `s0 = -s1`. Two of them
    ///    otherwise: each is added to its score. One: it is added to `s0`.
    /// 2. The label depends on `s1` if there is a vote for class 1, on `s0` otherwise. In an
    ///    ensemble whose leaves vote for one class only, it is the second label if that score is
    ///    above 0.5 and no weight is negative, or above 0 and some are, and the first label
    ///    otherwise. In any other ensemble it is 1 if the score is above 0, and 0 otherwise.
    /// 3. The post-transform applies to two scores; a class without a vote has 0. A single score
    ///    `s` becomes `f(-s), f(s)` with LOGISTIC, `1 - s, s` if no weight is negative, `-s, s`
    ///    otherwise.
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

    /// The scores of two classes from a single one.
    fn single_score(&self, score: Score<T>) -> [f32; 2] {
        let s = score.output();
        match self.post {
            // The reference leaves the second score uninitialised.
            _ if !self.binary && !self.base.is_empty() => [self.post.single(s), 0.0],
            PostTransform::Probit => [self.post.single(s), 0.0],
            PostTransform::Logistic => [logistic(-s), logistic(s)],
            _ if self.binary && self.all_positive => [1.0 - s, s],
            PostTransform::None | PostTransform::Softmax | PostTransform::SoftmaxZero => [-s, s],
        }
    }
}
