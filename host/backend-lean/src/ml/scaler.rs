//! `Scaler`: `(x - offset) * scale`, one of each for all features or one for each. FP64 is scaled as
//! it is and then rounded; integers are rounded to FP32 first.

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, Slice, View, elements};
use super::{Kernel, NUMBERS, Operator};
use crate::attributes::{Attributes, invalid};
use crate::onnx::Node;

#[derive(Debug)]
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let (offset, scale) = (attributes.floats("offset"), attributes.floats("scale"));
    if scale.is_empty() || scale.len() != offset.len() {
        let (offsets, scales) = (offset.len(), scale.len());
        return Err(invalid(
            node,
            format_args!(
                "{offsets} in its attribute offset and {scales} in scale; it takes one of each, or \
                 one for each feature"
            ),
        ));
    }
    let kernel = Scaler { offset: offset.to_vec(), scale: scale.to_vec() };
    Ok(Operator::new(NUMBERS, [Output::new(ElementType::F32, OutputShape::Matrix)], kernel))
}

impl Kernel for Scaler {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let (_, width) = x.matrix()?;
        elements(x.shape)?;
        let len = self.offset.len();
        if len != 1 && len != width {
            return Err(Error::InvalidArgument(format!("{width} features, not {len}")));
        }
        let factors = |i: usize| {
            let column = if len == 1 { 0 } else { i % width };
            (self.offset[column], self.scale[column])
        };
        let scaled = if let Slice::F64(values) = x.values {
            let each = |(i, x): (usize, &f64)| {
                let (offset, scale) = factors(i);
                #[expect(clippy::cast_possible_truncation, reason = "Scaler gives FP32")]
                let scaled = ((x - f64::from(offset)) * f64::from(scale)) as f32;
                scaled
            };
            values.iter().enumerate().map(each).collect()
        } else {
            let each = |(i, x): (usize, &f32)| {
                let (offset, scale) = factors(i);
                (x - offset) * scale
            };
            x.values.floats()?.iter().enumerate().map(each).collect()
        };
        Ok(vec![Array::floats(x.shape, scaled)])
    }
}
