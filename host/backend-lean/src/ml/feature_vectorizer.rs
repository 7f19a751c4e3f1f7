//! `FeatureVectorizer`: the features of several inputs side by side, as FP32. `inputdimensions` says
//! how many each has: further ones are left out, missing ones are 0.

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, View, elements};
use super::{Kernel, NUMBERS, Operator};
use crate::attributes::{Attributes, invalid, unsupported};
use crate::onnx::Node;

/// Features of all inputs together.
const MAX_WIDTH: usize = 1 << 20;

#[derive(Debug)]
struct FeatureVectorizer {
    widths: Vec<usize>,
    width: usize,
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let dimensions = Attributes(node).ints("inputdimensions");
    let widths = dimensions.iter().map(|&n| usize::try_from(n)).collect::<Result<Vec<_>, _>>();
    let widths = widths.map_err(|_| {
        invalid(node, format_args!("its attribute inputdimensions is {dimensions:?}"))
    })?;
    if widths.is_empty() || widths.len() != node.input.len() {
        let (inputs, sizes) = (node.input.len(), widths.len());
        return Err(invalid(
            node,
            format_args!("{sizes} sizes in its attribute inputdimensions for {inputs} inputs"),
        ));
    }
    let width = widths.iter().try_fold(0usize, |sum, &width| sum.checked_add(width));
    let width = width.filter(|width| (1..=MAX_WIDTH).contains(width)).ok_or_else(|| {
        unsupported(
            node,
            format_args!("its attribute inputdimensions adds up to none, or over {MAX_WIDTH}"),
        )
    })?;
    let output = Output::new(ElementType::F32, OutputShape::RowsBy(width));
    let inputs = widths.len();
    let operator = Operator::new(NUMBERS, [output], FeatureVectorizer { widths, width });
    Ok(Operator { inputs, ..operator })
}

impl Kernel for FeatureVectorizer {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [first, ..] = inputs else { return Err(super::one_input(inputs)) };
        let (rows, _) = first.matrix()?;
        let shape = [rows, self.width];
        let mut vector = vec![0.0; elements(&shape)?];
        let mut at = 0;
        for (input, &room) in inputs.iter().zip(&self.widths) {
            let (input_rows, width) = input.matrix()?;
            if input_rows != rows {
                return Err(Error::InvalidArgument(format!(
                    "one input has {rows} rows, another {input_rows}"
                )));
            }
            let values = input.values.floats()?;
            let taken = width.min(room);
            if taken > 0 {
                let out = vector.chunks_exact_mut(self.width);
                for (from, to) in values.chunks_exact(width).zip(out) {
                    to[at..at + taken].copy_from_slice(&from[..taken]);
                }
            }
            at += room;
        }
        Ok(vec![Array::floats(&shape, vector)])
    }
}
