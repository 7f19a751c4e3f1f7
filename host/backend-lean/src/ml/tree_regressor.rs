//! `TreeEnsembleRegressor`, by the evaluator of [`crate::tree`].

use std::sync::Arc;

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, Slice, View, elements};
use super::{Kernel, NUMBERS, Operator, Source, one_input};
use crate::attributes::{Attributes, invalid};
use crate::onnx::Node;
use crate::tree::{self, MAX_TARGETS, Regressor};

/// What a tree may compare: how many features there are is known when a row is.
pub(super) const ANY_WIDTH: usize = usize::MAX;

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let targets = targets(node)?;
    let output = Output::new(ElementType::F32, OutputShape::RowsBy(targets));
    let kernel = Source::ByType(kernel, Arc::new(node.clone()));
    Ok(Operator { inputs: 1, accepts: NUMBERS, outputs: vec![output], kernel })
}

/// The attribute `n_targets`.
pub(super) fn targets(node: &Node) -> Result<usize, Error> {
    let count = Attributes(node).int("n_targets", 0);
    let targets = usize::try_from(count).ok().filter(|count| (1..=MAX_TARGETS).contains(count));
    targets.ok_or_else(|| {
        invalid(
            node,
            format_args!("its attribute n_targets is {count}; it takes 1 to {MAX_TARGETS}"),
        )
    })
}

fn kernel(node: &Node, ty: ElementType) -> Result<Arc<dyn Kernel>, Error> {
    Ok(if ty == ElementType::F64 {
        Arc::new(Doubles(tree::regressor(node, ANY_WIDTH)?))
    } else {
        Arc::new(Floats(tree::regressor(node, ANY_WIDTH)?))
    })
}

/// For everything but FP64.
#[derive(Debug)]
pub(super) struct Floats(pub(super) Regressor<f32>);

#[derive(Debug)]
struct Doubles(Regressor<f64>);

impl Kernel for Floats {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(one_input(inputs)) };
        let (rows, width) = rows(*x, self.0.forest.features())?;
        let shape = [rows, self.0.targets];
        let mut y = vec![0.0; elements(&shape)?];
        self.0.run(&x.values.floats()?, width, &mut y);
        Ok(vec![Array::floats(&shape, y)])
    }
}

impl Kernel for Doubles {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(one_input(inputs)) };
        let (rows, width) = rows(*x, self.0.forest.features())?;
        let shape = [rows, self.0.targets];
        let mut y = vec![0.0; elements(&shape)?];
        self.0.run(doubles(*x)?, width, &mut y);
        Ok(vec![Array::floats(&shape, y)])
    }
}

/// Rows and their width, if that is enough.
pub(super) fn rows(x: View<'_>, features: usize) -> Result<(usize, usize), Error> {
    let (rows, width) = x.matrix()?;
    if width < features {
        return Err(Error::InvalidArgument(format!("{width} features, not {features} or more")));
    }
    Ok((rows, width))
}

pub(super) fn doubles(x: View<'_>) -> Result<&[f64], Error> {
    if let Slice::F64(x) = x.values { Ok(x) } else { Err(super::values::wrong_type(x.values.ty())) }
}
