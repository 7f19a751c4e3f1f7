//! `TreeEnsemble` of `ai.onnx.ml` 5. Its output is of the type of its input.

use std::sync::Arc;

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::tree_regressor::{ANY_WIDTH, Floats, doubles, rows, targets};
use super::values::{Array, ElementType, Values, View, elements};
use super::{Kernel, Operator, Source, one_input};
use crate::attributes::unsupported;
use crate::onnx::Node;
use crate::post_transform::PostTransform;
use crate::tree::{self, Regressor};

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let targets = targets(node)?;
    Ok(Operator {
        inputs: 1,
        accepts: &[ElementType::F32, ElementType::F64],
        outputs: vec![Output::as_input(OutputShape::RowsBy(targets))],
        kernel: Source::ByType(kernel, Arc::new(node.clone())),
    })
}

fn kernel(node: &Node, ty: ElementType) -> Result<Arc<dyn Kernel>, Error> {
    if ty != ElementType::F64 {
        return Ok(Arc::new(Floats(tree::ensemble(node, ANY_WIDTH)?)));
    }
    let trees: Regressor<f64> = tree::ensemble(node, ANY_WIDTH)?;
    if trees.post != PostTransform::None {
        return Err(unsupported(node, "its attribute post_transform is not 0, of FP64"));
    }
    Ok(Arc::new(Doubles(trees)))
}

#[derive(Debug)]
struct Doubles(Regressor<f64>);

impl Kernel for Doubles {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(one_input(inputs)) };
        let (rows, width) = rows(*x, self.0.forest.features())?;
        let shape = vec![rows, self.0.targets];
        let mut y = vec![0.0; elements(&shape)?];
        self.0.run_exact(doubles(*x)?, width, &mut y);
        Ok(vec![Array { shape, values: Values::F64(y) }])
    }
}
