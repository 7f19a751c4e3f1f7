//! `SVMClassifier`, of two kinds.
//!
//! **With support vectors**: one machine for each pair of classes `i < j`, in that order, with the score
//! `sum_m c[j - 1][m] * k(x, v[m])` over the vectors of class `i`, `+ sum_m c[i][m] * k(x, v[m])` over
//! those of `j`, `+ rho`; above 0 it is a vote for `i`, else for `j`. The label is that of most votes,
//! the first of equals. The scores are those of the pairs, after the post-transform; of two classes
//! there is one score `s`, which becomes `-s, s` without post-transform, `f(-s), f(s)` of LOGISTIC,
//! else `1 - s, s`. With `prob_a` and `prob_b` they are probabilities instead: each pair's is
//! `1 / (1 + exp(prob_a * s + prob_b))`, within 1e-7 of 0 and 1, and `probability` couples them.
//!
//! **Without**: scores `x . c[i] + rho[0]` for each class, the same `rho` for all, and the label of the
//! greatest. Of two classes it is the second if the greatest score is above 0, or at least 0.5 if no
//! coefficient is negative, unless there is a `prob_a`.

use spinfer_backend::Error;

use super::kernel::Kernel as SvmKernel;
use super::probability::couple;
use crate::attributes::{Attributes, invalid, unsupported};
use crate::ml::labels::Labels;
use crate::ml::output::{Output, OutputShape};
use crate::ml::values::{Array, ElementType, View, elements};
use crate::ml::{Kernel, NUMBERS, Operator};
use crate::onnx::Node;
use crate::post_transform::{PostTransform, logistic};

/// The pairs of so many classes are two million.
const MAX_CLASSES: usize = 2048;

#[derive(Debug)]
struct Classifier {
    labels: Labels,
    features: usize,
    post: PostTransform,
    machine: Machine,
}

#[derive(Debug)]
enum Machine {
    Linear {
        /// A row for each class.
        coefficients: Vec<f32>,
        rho: f32,
        /// Score from which on the second of two classes is named whichever is greatest; inclusive
        /// where no coefficient is negative.
        threshold: Option<(f32, bool)>,
    },
    Pairs {
        kernel: SvmKernel,
        support: Vec<f32>,
        /// Where the vectors of each class begin, and where the last ends.
        starts: Vec<usize>,
        /// `classes - 1` rows, a column for each vector.
        coefficients: Vec<f32>,
        rho: Vec<f32>,
        /// `prob_a` and `prob_b`, one for each pair, or none.
        sigmoids: Vec<(f32, f32)>,
    },
}

pub(in crate::ml) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let labels = Labels::read(node, "classlabels_ints")?;
    let classes = labels.len();
    if classes > MAX_CLASSES {
        return Err(unsupported(node, format_args!("{classes} classes; at most {MAX_CLASSES}")));
    }
    let post = PostTransform::read(attributes)?;
    let kernel = SvmKernel::read(node)?;
    let per_class = attributes.ints("vectors_per_class");
    let mut starts = vec![0usize];
    for &count in per_class {
        let start = starts[starts.len() - 1];
        let next = usize::try_from(count).ok().and_then(|count| start.checked_add(count));
        starts.push(next.ok_or_else(|| {
            invalid(node, format_args!("its attribute vectors_per_class has {count}"))
        })?);
    }
    let vectors = starts[starts.len() - 1];
    let (features, machine) = if vectors == 0 {
        linear(node, classes)?
    } else {
        if per_class.len() != classes || classes < 2 {
            let counts = per_class.len();
            return Err(invalid(
                node,
                format_args!("{counts} vectors_per_class for {classes} class labels"),
            ));
        }
        pairs(node, kernel, starts)?
    };
    let columns = match &machine {
        Machine::Pairs { sigmoids, .. } if sigmoids.is_empty() && classes > 2 => {
            classes * (classes - 1) / 2
        }
        Machine::Pairs { sigmoids, .. } if sigmoids.is_empty() => {
            if post == PostTransform::Probit {
                return Err(unsupported(
                    node,
                    "post_transform PROBIT of one score for two classes is undefined",
                ));
            }
            2
        }
        Machine::Pairs { .. } | Machine::Linear { .. } => classes,
    };
    let outputs = [
        Output::new(labels.ty(), OutputShape::Rows),
        Output::new(ElementType::F32, OutputShape::RowsBy(columns)),
    ];
    Ok(Operator::new(NUMBERS, outputs, Classifier { labels, features, post, machine }))
}

fn linear(node: &Node, classes: usize) -> Result<(usize, Machine), Error> {
    let attributes = Attributes(node);
    let coefficients = attributes.floats("coefficients").to_vec();
    let &[rho, ..] = attributes.floats("rho") else {
        return Err(invalid(node, "its attribute rho is empty"));
    };
    if coefficients.is_empty() || coefficients.len() % classes != 0 {
        let count = coefficients.len();
        return Err(invalid(node, format_args!("{count} coefficients for {classes} classes")));
    }
    let probabilities = !attributes.floats("prob_a").is_empty();
    let threshold = if coefficients.iter().all(|&c| c >= 0.0) { (0.5, true) } else { (0.0, false) };
    let threshold = (classes == 2 && !probabilities).then_some(threshold);
    Ok((coefficients.len() / classes, Machine::Linear { coefficients, rho, threshold }))
}

fn pairs(node: &Node, kernel: SvmKernel, starts: Vec<usize>) -> Result<(usize, Machine), Error> {
    let attributes = Attributes(node);
    let classes = starts.len() - 1;
    let vectors = starts[classes];
    let support = attributes.floats("support_vectors").to_vec();
    if support.is_empty() || support.len() % vectors != 0 {
        let numbers = support.len();
        return Err(invalid(
            node,
            format_args!("{numbers} numbers of support_vectors for {vectors} vectors_per_class"),
        ));
    }
    let machines = classes * (classes - 1) / 2;
    let list = |name: &str, expected: Option<usize>| {
        let list = attributes.floats(name);
        if expected.is_some_and(|expected| list.len() >= expected) {
            return Ok(list.to_vec());
        }
        let count = list.len();
        let pairs = format_args!("{count} {name} for {classes} classes and {vectors} vectors");
        Err(invalid(node, pairs))
    };
    let coefficients = list("coefficients", vectors.checked_mul(classes - 1))?;
    let rho = list("rho", Some(machines))?;
    let (a, b) = (attributes.floats("prob_a"), attributes.floats("prob_b"));
    let sigmoids = if a.is_empty() && b.is_empty() {
        Vec::new()
    } else {
        let (a, b) = (list("prob_a", Some(machines))?, list("prob_b", Some(machines))?);
        a.into_iter().zip(b).collect()
    };
    let features = support.len() / vectors;
    Ok((features, Machine::Pairs { kernel, support, starts, coefficients, rho, sigmoids }))
}

impl Kernel for Classifier {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(crate::ml::one_input(inputs)) };
        let rows = x.rows_of(self.features)?;
        let classes = self.labels.len();
        let columns = self.columns();
        let shape = [rows, columns];
        let mut scores = vec![0.0; elements(&shape)?];
        let mut named = Vec::with_capacity(rows);
        let mut work = Work::new(self, classes);
        let each = x.values.floats()?;
        for (row, out) in each.chunks_exact(self.features).zip(scores.chunks_exact_mut(columns)) {
            named.push(match &self.machine {
                Machine::Linear { coefficients, rho, threshold } => {
                    self.linear(row, coefficients, *rho, *threshold, out)
                }
                Machine::Pairs { .. } => self.pairs(row, &mut work, out),
            });
        }
        Ok(vec![
            Array { shape: vec![rows], values: self.labels.of(named.into_iter()) },
            Array::floats(&shape, scores),
        ])
    }
}

/// What the rows of one call are computed in.
struct Work {
    kernels: Vec<f32>,
    scores: Vec<f32>,
    votes: Vec<usize>,
    probabilities: Vec<f32>,
    quadratic: Vec<f32>,
    product: Vec<f32>,
}

impl Work {
    fn new(classifier: &Classifier, classes: usize) -> Self {
        let (vectors, machines, squared) = match &classifier.machine {
            Machine::Linear { .. } => (0, 0, 0),
            Machine::Pairs { starts, sigmoids, .. } => {
                let squared = if sigmoids.is_empty() { 0 } else { classes * classes };
                (starts[classes], classes * (classes - 1) / 2, squared)
            }
        };
        Self {
            kernels: vec![0.0; vectors],
            scores: vec![0.0; machines],
            votes: vec![0; classes],
            probabilities: vec![0.0; squared],
            quadratic: vec![0.0; squared],
            product: vec![0.0; if squared > 0 { classes } else { 0 }],
        }
    }
}

impl Classifier {
    fn columns(&self) -> usize {
        let classes = self.labels.len();
        match &self.machine {
            Machine::Pairs { sigmoids, .. } if sigmoids.is_empty() && classes > 2 => {
                classes * (classes - 1) / 2
            }
            Machine::Pairs { .. } | Machine::Linear { .. } => classes,
        }
    }

    fn linear(
        &self,
        row: &[f32],
        coefficients: &[f32],
        rho: f32,
        threshold: Option<(f32, bool)>,
        out: &mut [f32],
    ) -> usize {
        for (vector, out) in coefficients.chunks_exact(self.features).zip(out.iter_mut()) {
            *out = SvmKernel::Linear.of(row, vector) + rho;
        }
        let best = crate::plan::index_of_max(out, false);
        let second = threshold.is_some_and(|(limit, inclusive)| {
            out[best] > limit || (inclusive && out[best] == limit)
        });
        match out {
            [single] => *single = self.post.single(*single),
            _ => self.post.row(out),
        }
        if second { 1 } else { best }
    }

    fn pairs(&self, row: &[f32], work: &mut Work, out: &mut [f32]) -> usize {
        let Machine::Pairs { kernel, support, starts, coefficients, rho, sigmoids } = &self.machine
        else {
            return 0;
        };
        let classes = self.labels.len();
        for (vector, k) in support.chunks_exact(self.features).zip(&mut work.kernels) {
            *k = kernel.of(row, vector);
        }
        let vectors = work.kernels.len();
        // The products are FP32, their sum FP64.
        let sum = |row_of: usize, class: usize| -> f64 {
            let of = starts[class]..starts[class + 1];
            let weights = &coefficients[row_of * vectors..][of.clone()];
            let terms = weights.iter().zip(&work.kernels[of]);
            terms.map(|(weight, kernel)| f64::from(weight * kernel)).sum()
        };
        work.votes.fill(0);
        let mut machine = 0;
        for i in 0..classes {
            for j in i + 1..classes {
                let score = sum(j - 1, i) + sum(i, j) + f64::from(rho[machine]);
                #[expect(clippy::cast_possible_truncation, reason = "scores are FP32")]
                let rounded = score as f32;
                work.scores[machine] = rounded;
                work.votes[if score > 0.0 { i } else { j }] += 1;
                machine += 1;
            }
        }
        if !sigmoids.is_empty() {
            probabilities(work, sigmoids, out);
            self.post.row(out);
        } else if let [s] = work.scores[..] {
            let two = match self.post {
                PostTransform::None => [-s, s],
                PostTransform::Logistic => [logistic(-s), logistic(s)],
                PostTransform::Softmax | PostTransform::SoftmaxZero | PostTransform::Probit => {
                    [1.0 - s, s]
                }
            };
            out.copy_from_slice(&two);
        } else {
            out.copy_from_slice(&work.scores);
            self.post.row(out);
        }
        let most = work.votes.iter().max().copied().unwrap_or(0);
        work.votes.iter().position(|&votes| votes == most).unwrap_or(0)
    }
}

fn probabilities(work: &mut Work, sigmoids: &[(f32, f32)], out: &mut [f32]) {
    /// How near to certain a pair may be.
    const MARGIN: f32 = 1e-7;
    let classes = out.len();
    let mut machine = 0;
    for i in 0..classes {
        for j in i + 1..classes {
            let (a, b) = sigmoids[machine];
            let p = 1.0 - logistic(work.scores[machine] * a + b);
            let p = p.clamp(MARGIN, 1.0 - MARGIN);
            work.probabilities[i * classes + j] = p;
            work.probabilities[j * classes + i] = 1.0 - p;
            machine += 1;
        }
    }
    couple(&work.probabilities, out, &mut work.quadratic, &mut work.product);
}
