//! `TreeEnsembleClassifier`, by the evaluator of [`crate::tree`].

use std::sync::Arc;

use spinfer_backend::Error;

use super::labels::Labels;
use super::output::{Output, OutputShape};
use super::tree_regressor::{ANY_WIDTH, doubles, rows};
use super::values::{Array, ElementType, Values, View, elements};
use super::{Kernel, NUMBERS, Operator, Source, one_input};
use crate::attributes::unsupported;
use crate::onnx::Node;
use crate::tree::{self, Classifier, Thresholds};

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let labels = Labels::read(node, "classlabels_int64s")?;
    let outputs = vec![
        Output::new(labels.ty(), OutputShape::Rows),
        Output::new(ElementType::F32, OutputShape::RowsBy(labels.len())),
    ];
    let kernel = Source::ByType(kernel, Arc::new(node.clone()));
    Ok(Operator { inputs: 1, accepts: NUMBERS, outputs, kernel })
}

fn kernel(node: &Node, ty: ElementType) -> Result<Arc<dyn Kernel>, Error> {
    Ok(if ty == ElementType::F64 {
        Arc::new(Trees::<f64>::read(node)?)
    } else {
        Arc::new(Trees::<f32>::read(node)?)
    })
}

#[derive(Debug)]
struct Trees<T> {
    trees: Classifier<T>,
    /// What a label that is an index stands for.
    strings: Option<Labels>,
}

impl<T: Thresholds> Trees<T> {
    fn read(node: &Node) -> Result<Self, Error> {
        let trees = tree::classifier::<T>(node, ANY_WIDTH)?;
        let labels = Labels::read(node, "classlabels_int64s")?;
        let strings = match &labels {
            Labels::Strings(strings) if strings.len() == 1 => {
                return Err(unsupported(
                    node,
                    "its attribute classlabels_strings has one label, which no row has",
                ));
            }
            Labels::Strings(_) => Some(labels),
            Labels::Ints(_) => None,
        };
        Ok(Self { trees, strings })
    }

    fn run(&self, x: View<'_>, values: &[T]) -> Result<Vec<Array>, Error> {
        let (rows, width) = rows(x, self.trees.forest.features())?;
        let shape = [rows, self.trees.classes()];
        let mut scores = vec![0.0; elements(&shape)?];
        let mut labels = vec![0; rows];
        self.trees.run(values, width, &mut labels, &mut scores);
        let labels = match &self.strings {
            None => Values::I64(labels),
            Some(strings) => {
                strings.of(labels.iter().map(|&label| usize::try_from(label).unwrap_or(0)))
            }
        };
        Ok(vec![Array { shape: vec![rows], values: labels }, Array::floats(&shape, scores)])
    }
}

impl Kernel for Trees<f32> {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(one_input(inputs)) };
        self.run(*x, &x.values.floats()?)
    }
}

impl Kernel for Trees<f64> {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(one_input(inputs)) };
        self.run(*x, doubles(*x)?)
    }
}
