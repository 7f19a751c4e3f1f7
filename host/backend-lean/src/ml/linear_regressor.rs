//! `LinearRegressor`: `post(sum_k x[k] * w[j][k] + b[j])`. Intercepts that are not one for each target
//! are none.

use fearless_simd::Level;
use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, View, elements};
use super::{Kernel, NUMBERS, Operator};
use crate::attributes::{Attributes, invalid};
use crate::dense::Dense;
use crate::onnx::Node;
use crate::operators::ml::dense;
use crate::post_transform::PostTransform;
use crate::rows::RowOp;

#[derive(Debug)]
struct LinearRegressor {
    features: usize,
    targets: usize,
    dense: Dense,
    post: PostTransform,
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let targets = attributes.int("targets", 1);
    let targets = usize::try_from(targets).ok().filter(|&targets| targets > 0);
    let targets = targets.ok_or_else(|| invalid(node, "its attribute targets is not positive"))?;
    let features = attributes.floats("coefficients").len() / targets;
    let intercepts = Some(attributes.floats("intercepts")).filter(|b| b.len() == targets);
    let dense = dense(node, features, targets, intercepts)?;
    let post = PostTransform::read(attributes)?;
    let output = Output::new(ElementType::F32, OutputShape::RowsBy(targets));
    Ok(Operator::new(NUMBERS, [output], LinearRegressor { features, targets, dense, post }))
}

impl Kernel for LinearRegressor {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let shape = [x.rows_of(self.features)?, self.targets];
        let mut y = vec![0.0; elements(&shape)?];
        self.dense.run(Level::new(), &x.values.floats()?, &mut y);
        if self.post != PostTransform::None {
            RowOp::Post(self.post).run(&mut y, self.targets);
        }
        Ok(vec![Array::floats(&shape, y)])
    }
}
