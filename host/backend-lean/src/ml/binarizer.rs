//! `Binarizer`: 1 for what is greater than the threshold, else 0; NaN is 0, which ONNX Runtime
//! refuses.

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, Slice, Values, View, wrong_type};
use super::{Kernel, NUMBERS, Operator};
use crate::attributes::Attributes;
use crate::onnx::Node;

#[derive(Debug)]
struct Binarizer {
    threshold: f32,
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let kernel = Binarizer { threshold: Attributes(node).float("threshold", 0.0) };
    Ok(Operator::new(NUMBERS, [Output::as_input(OutputShape::Input)], kernel))
}

impl Kernel for Binarizer {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let threshold = self.threshold;
        let values = match x.values {
            Slice::F32(x) => Values::F32(x.iter().map(|&x| f32::from(x > threshold)).collect()),
            Slice::F64(x) => {
                let above = |&x: &f64| f64::from(x > f64::from(threshold));
                Values::F64(x.iter().map(above).collect())
            }
            // FP64 holds every I32, and an I64 closely enough to compare it with an FP32.
            Slice::I32(x) => {
                let above = |&x: &i32| i32::from(f64::from(x) > f64::from(threshold));
                Values::I32(x.iter().map(above).collect())
            }
            Slice::I64(x) => {
                let above = |&x: &i64| i64::from(x as f64 > f64::from(threshold));
                Values::I64(x.iter().map(above).collect())
            }
            other @ (Slice::I16(_) | Slice::Str(_)) => return Err(wrong_type(other.ty())),
        };
        Ok(vec![Array { shape: x.shape.to_vec(), values }])
    }
}
