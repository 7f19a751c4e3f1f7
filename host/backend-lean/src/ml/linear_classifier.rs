//! `LinearClassifier`: scores `sum_k x[k] * w[j][k] + b[j]`, the label of the greatest, and the scores
//! after the post-transform.
//!
//! There are as many scores as intercepts. One score `s` for two labels is that of the second, which it
//! names above 0; the scores are then `f(-s), f(s)` of LOGISTIC, else `1 - s, s`.

use fearless_simd::Level;
use spinfer_backend::Error;

use super::labels::Labels;
use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, View, elements};
use super::{Kernel, NUMBERS, Operator};
use crate::attributes::{Attributes, invalid, unsupported};
use crate::dense::Dense;
use crate::onnx::Node;
use crate::operators::ml::dense;
use crate::plan::index_of_max;
use crate::post_transform::{PostTransform, logistic};

#[derive(Debug)]
struct LinearClassifier {
    features: usize,
    /// Scores, before the second of two classes is added.
    scores: usize,
    dense: Dense,
    labels: Labels,
    post: PostTransform,
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let labels = Labels::read(node, "classlabels_ints")?;
    let intercepts = attributes.floats("intercepts");
    let scores = intercepts.len();
    if scores == 0 {
        return Err(unsupported(node, "it has no attribute intercepts, one for each score"));
    }
    let features = attributes.floats("coefficients").len() / scores;
    let dense = dense(node, features, scores, Some(intercepts))?;
    let post = PostTransform::read(attributes)?;
    let names = labels.len();
    if (scores == 1 && names != 2) || names < scores {
        return Err(invalid(
            node,
            format_args!(
                "{names} class labels for {scores} scores; it takes one each, or two for one score"
            ),
        ));
    }
    if scores == 1 && post == PostTransform::Probit {
        return Err(unsupported(
            node,
            "post_transform PROBIT of one score for two classes is undefined",
        ));
    }
    let outputs = [
        Output::new(labels.ty(), OutputShape::Rows),
        Output::new(ElementType::F32, OutputShape::RowsBy(scores.max(2))),
    ];
    let kernel = LinearClassifier { features, scores, dense, labels, post };
    Ok(Operator::new(NUMBERS, outputs, kernel))
}

impl Kernel for LinearClassifier {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let rows = x.rows_of(self.features)?;
        let shape = [rows, self.scores.max(2)];
        elements(&shape)?;
        let mut scores = vec![0.0; rows * self.scores];
        self.dense.run(Level::new(), &x.values.floats()?, &mut scores);
        let each = scores.chunks_exact(self.scores);
        let labels = if self.scores == 1 {
            self.labels.of(each.map(|row| usize::from(row[0] > 0.0)))
        } else {
            self.labels.of(each.map(|row| index_of_max(row, false)))
        };
        if self.scores == 1 {
            let two = |s: &f32| match self.post {
                PostTransform::Logistic => [logistic(-s), logistic(*s)],
                _ => [1.0 - s, *s],
            };
            scores = scores.iter().flat_map(two).collect();
        } else {
            scores.chunks_exact_mut(self.scores).for_each(|row| self.post.row(row));
        }
        Ok(vec![Array { shape: vec![rows], values: labels }, Array::floats(&shape, scores)])
    }
}
