//! `Normalizer`: each row divided by its norm; the formulas are at [`Norm`].

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, View};
use super::{Kernel, NUMBERS, Operator};
use crate::onnx::Node;
use crate::rows::Norm;

#[derive(Debug)]
struct Normalizer {
    norm: Norm,
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let kernel = Normalizer { norm: Norm::read(node)? };
    Ok(Operator::new(NUMBERS, [Output::new(ElementType::F32, OutputShape::Matrix)], kernel))
}

impl Kernel for Normalizer {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let (_, width) = x.matrix()?;
        let mut values = x.values.floats()?.into_owned();
        if width > 0 {
            values.chunks_exact_mut(width).for_each(|row| self.norm.run(row));
        }
        Ok(vec![Array::floats(x.shape, values)])
    }
}
