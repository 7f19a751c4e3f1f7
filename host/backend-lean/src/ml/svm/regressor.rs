//! `SVMRegressor`: `sum_i coefficients[i] * k(x, v[i]) + rho`, or without support vectors
//! `x . coefficients + rho`, whatever the kernel. `one_class = 1` makes it 1 above 0, else -1.

use spinfer_backend::Error;

use super::kernel::Kernel as SvmKernel;
use crate::attributes::{Attributes, invalid, unsupported};
use crate::ml::output::{Output, OutputShape};
use crate::ml::values::{Array, ElementType, View, elements};
use crate::ml::{Kernel, NUMBERS, Operator};
use crate::onnx::Node;

#[derive(Debug)]
struct Regressor {
    kernel: SvmKernel,
    features: usize,
    /// One row for each coefficient.
    support: Vec<f32>,
    coefficients: Vec<f32>,
    rho: f32,
    one_class: bool,
}

pub(in crate::ml) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let kernel = SvmKernel::read(node)?;
    let coefficients = attributes.floats("coefficients");
    let vectors = attributes.floats("support_vectors");
    let &[rho, ..] = attributes.floats("rho") else {
        return Err(invalid(node, "its attribute rho is empty"));
    };
    if attributes.string("post_transform", "NONE") != b"NONE" {
        return Err(unsupported(
            node,
            "its attribute post_transform is not NONE, which ONNX Runtime ignores",
        ));
    }
    let supports = attributes.int("n_supports", 0);
    let one_class = attributes.int("one_class", 0) != 0;
    let (kernel, support, coefficients) = if supports > 0 {
        let count = usize::try_from(supports).unwrap_or(usize::MAX);
        if coefficients.len() != count || vectors.is_empty() || vectors.len() % count != 0 {
            let (coefficients, numbers) = (coefficients.len(), vectors.len());
            return Err(invalid(
                node,
                format_args!(
                    "{coefficients} coefficients and {numbers} numbers of support_vectors for \
                     {count} n_supports"
                ),
            ));
        }
        (kernel, vectors.to_vec(), coefficients.to_vec())
    } else {
        if supports < 0 || coefficients.is_empty() {
            return Err(invalid(
                node,
                "its attribute n_supports is negative, or coefficients empty",
            ));
        }
        (SvmKernel::Linear, coefficients.to_vec(), vec![1.0])
    };
    let features = support.len() / coefficients.len();
    let output = Output::new(ElementType::F32, OutputShape::RowsBy(1));
    let kernel = Regressor { kernel, features, support, coefficients, rho, one_class };
    Ok(Operator::new(NUMBERS, [output], kernel))
}

impl Kernel for Regressor {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(crate::ml::one_input(inputs)) };
        let shape = [x.rows_of(self.features)?, 1];
        elements(&shape)?;
        let score = |row: &[f32]| {
            let vectors = self.support.chunks_exact(self.features).zip(&self.coefficients);
            let terms = vectors.map(|(vector, weight)| weight * self.kernel.of(row, vector));
            let score = terms.sum::<f32>() + self.rho;
            match self.one_class {
                true if score > 0.0 => 1.0,
                true => -1.0,
                false => score,
            }
        };
        let rows = x.values.floats()?;
        let scores = rows.chunks_exact(self.features).map(score).collect();
        Ok(vec![Array::floats(&shape, scores)])
    }
}
