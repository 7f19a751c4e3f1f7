//! `ArrayFeatureExtractor`: the entries of the last axis of X that the indices Y name.

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, Slice, Values, View, elements, wrong_type};
use super::{Kernel, Operator};
use crate::onnx::Node;

#[derive(Debug)]
struct ArrayFeatureExtractor;

pub(super) fn read(_: &Node, _: i64) -> Result<Operator, Error> {
    use ElementType::{F32, F64, I32, I64, Str};
    let output = Output::as_input(OutputShape::Extracted);
    let operator = Operator::new(&[F32, F64, I64, I32, Str], [output], ArrayFeatureExtractor);
    Ok(Operator { inputs: 2, ..operator })
}

impl Kernel for ArrayFeatureExtractor {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x, indices] = inputs else { return Err(super::one_input(inputs)) };
        let shape =
            Output::as_input(OutputShape::Extracted).dims(&[x.shape, indices.shape], |n| n)?;
        elements(&shape)?;
        let Slice::I64(indices) = indices.values else {
            return Err(wrong_type(indices.values.ty()));
        };
        let width = x.shape.last().copied().unwrap_or(0);
        let places = indices
            .iter()
            .map(|&index| {
                let place = usize::try_from(index).ok().filter(|&place| place < width);
                place.ok_or_else(|| {
                    Error::InvalidArgument(format!("index {index} into an axis of {width}"))
                })
            })
            .collect::<Result<Vec<usize>, Error>>()?;
        let values = match x.values {
            Slice::F32(x) => Values::F32(extract(x, width, &places)),
            Slice::F64(x) => Values::F64(extract(x, width, &places)),
            Slice::I16(x) => Values::I16(extract(x, width, &places)),
            Slice::I32(x) => Values::I32(extract(x, width, &places)),
            Slice::I64(x) => Values::I64(extract(x, width, &places)),
            Slice::Str(x) => Values::Str(extract(x, width, &places)),
        };
        Ok(vec![Array { shape, values }])
    }
}

fn extract<T: Clone>(x: &[T], width: usize, places: &[usize]) -> Vec<T> {
    let rows = x.chunks_exact(width.max(1));
    rows.flat_map(|row| places.iter().map(|&place| row[place].clone())).collect()
}
