//! `Imputer`: what equals the value to replace becomes the imputed value, one for all features or one
//! for each. NaN equals NaN here.

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, Slice, Values, View, wrong_type};
use super::{Kernel, Operator};
use crate::attributes::{Attributes, invalid};
use crate::onnx::Node;

#[derive(Debug)]
enum Imputer {
    Floats { replaced: f32, imputed: Vec<f32> },
    Ints { replaced: i64, imputed: Vec<i64> },
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let floats = attributes.floats("imputed_value_floats");
    let ints = attributes.ints("imputed_value_int64s");
    let (accepts, kernel): (&[_], _) = match (floats.is_empty(), ints.is_empty()) {
        (false, true) => (
            &[ElementType::F32, ElementType::F64],
            Imputer::Floats {
                replaced: attributes.float("replaced_value_float", 0.0),
                imputed: floats.to_vec(),
            },
        ),
        (true, false) => (
            &[ElementType::I64, ElementType::I32],
            Imputer::Ints {
                replaced: attributes.int("replaced_value_int64", 0),
                imputed: ints.to_vec(),
            },
        ),
        _ => {
            return Err(invalid(
                node,
                "it takes one of the attributes imputed_value_floats and imputed_value_int64s",
            ));
        }
    };
    Ok(Operator::new(accepts, [Output::as_input(OutputShape::Matrix)], kernel))
}

impl Kernel for Imputer {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let (_, width) = x.matrix()?;
        let values = match (self, x.values) {
            (Self::Floats { replaced, imputed }, Slice::F32(x)) => {
                Values::F32(impute(x, width, *replaced, imputed)?)
            }
            (Self::Floats { replaced, imputed }, Slice::F64(x)) => {
                let imputed: Vec<f64> = imputed.iter().map(|&x| x.into()).collect();
                Values::F64(impute(x, width, f64::from(*replaced), &imputed)?)
            }
            (Self::Ints { replaced, imputed }, Slice::I64(x)) => {
                Values::I64(impute(x, width, *replaced, imputed)?)
            }
            (Self::Ints { replaced, imputed }, Slice::I32(x)) => {
                // Wide, so that a value no I32 has is equal to none.
                let wide: Vec<i64> = x.iter().map(|&x| x.into()).collect();
                let wide = impute(&wide, width, *replaced, imputed)?;
                let narrow = wide.into_iter().map(i32::try_from).collect::<Result<_, _>>();
                Values::I32(
                    narrow
                        .map_err(|_| Error::Runtime("an imputed value is not within I32".into()))?,
                )
            }
            (_, other) => return Err(wrong_type(other.ty())),
        };
        Ok(vec![Array { shape: x.shape.to_vec(), values }])
    }
}

/// Equal to itself and nothing else, as NaN.
#[expect(clippy::eq_op, reason = "NaN is what differs from itself")]
fn same<T: PartialEq>(a: &T, b: &T) -> bool {
    a == b || (a != a && b != b)
}

fn impute<T: Copy + PartialEq>(
    x: &[T],
    width: usize,
    replaced: T,
    imputed: &[T],
) -> Result<Vec<T>, Error> {
    let len = imputed.len();
    if len != 1 && len != width {
        return Err(Error::InvalidArgument(format!("{width} features, not {len}")));
    }
    let column = |i: usize| if len == 1 { 0 } else { i % width };
    let each = |(i, &x): (usize, &T)| if same(&x, &replaced) { imputed[column(i)] } else { x };
    Ok(x.iter().enumerate().map(each).collect())
}
