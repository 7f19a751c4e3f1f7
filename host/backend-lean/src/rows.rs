//! Operators on rows of FP32, in place: activations, arithmetic with a constant,
//! `Scaler`, `Normalizer`, `Softmax`.

use spinfer_backend::Error;

use crate::attributes::Attributes;
use crate::post_transform::{PostTransform, logistic, softmax};
use crate::refusal::invalid;
use spinfer_onnx::NodeProto;

/// An operator from a row to a row of the same width.
#[derive(Clone, Debug)]
pub(crate) enum RowOp {
    Relu,
    LeakyRelu(f32),
    Tanh,
    Sigmoid,
    Softmax,
    /// `x op c` or `c op x`, with one constant for each column, or one for all.
    Arithmetic(Arithmetic, Vec<f32>),
    /// `(x - offset) * scale`, `ai.onnx.ml` 1.
    Scale {
        offset: Vec<f32>,
        scale: Vec<f32>,
    },
    Normalize(Norm),
    Post(PostTransform),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Arithmetic {
    Add,
    /// `x - c`
    Sub,
    /// `c - x`
    SubFrom,
    Mul,
    /// `x / c`
    Div,
    /// `c / x`
    DivInto,
}

/// The norms of `Normalizer`: a row is divided by its norm unless that is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Norm {
    /// `max(x)`, of values and not of magnitudes.
    Max,
    /// `sum(abs(x))`
    L1,
    /// `sqrt(sum(x^2))`
    L2,
}

impl RowOp {
    /// Applies the operator to rows of `width` values.
    pub(crate) fn run(&self, x: &mut [f32], width: usize) {
        match self {
            // `max` would replace NaN.
            Self::Relu => x.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
            Self::LeakyRelu(alpha) => {
                x.iter_mut().for_each(|x| *x = if *x >= 0.0 { *x } else { alpha * *x });
            }
            Self::Tanh => x.iter_mut().for_each(|x| *x = x.tanh()),
            Self::Sigmoid => x.iter_mut().for_each(|x| *x = logistic(*x)),
            Self::Softmax => x.chunks_exact_mut(width).for_each(softmax),
            Self::Arithmetic(op, constant) => op.run(x, constant),
            Self::Scale { offset, scale } => {
                for row in x.chunks_exact_mut(width) {
                    for ((x, offset), scale) in row.iter_mut().zip(offset).zip(scale) {
                        *x = (*x - offset) * scale;
                    }
                }
            }
            Self::Normalize(norm) => x.chunks_exact_mut(width).for_each(|row| norm.run(row)),
            Self::Post(post) => match x {
                x if width == 1 => x.iter_mut().for_each(|x| *x = post.single(*x)),
                x => x.chunks_exact_mut(width).for_each(|row| post.row(row)),
            },
        }
    }
}

impl Arithmetic {
    fn run(self, x: &mut [f32], constant: &[f32]) {
        match self {
            Self::Add => each(x, constant, |x, c| x + c),
            Self::Sub => each(x, constant, |x, c| x - c),
            Self::SubFrom => each(x, constant, |x, c| c - x),
            Self::Mul => each(x, constant, |x, c| x * c),
            Self::Div => each(x, constant, |x, c| x / c),
            Self::DivInto => each(x, constant, |x, c| c / x),
        }
    }
}

#[inline]
fn each(x: &mut [f32], constant: &[f32], op: impl Fn(f32, f32) -> f32) {
    if let [constant] = constant {
        x.iter_mut().for_each(|x| *x = op(*x, *constant));
    } else {
        for row in x.chunks_exact_mut(constant.len()) {
            row.iter_mut().zip(constant).for_each(|(x, constant)| *x = op(*x, *constant));
        }
    }
}

impl Norm {
    /// Reads the attribute of `Normalizer`.
    pub(crate) fn read(node: &NodeProto) -> Result<Self, Error> {
        match Attributes(node).string("norm", "MAX") {
            b"MAX" => Ok(Self::Max),
            b"L1" => Ok(Self::L1),
            b"L2" => Ok(Self::L2),
            other => {
                let other = String::from_utf8_lossy(other);
                Err(invalid(node, format_args!("its norm is `{other}`, not MAX, L1 or L2")))
            }
        }
    }

    pub(crate) fn run(self, row: &mut [f32]) {
        match self {
            Self::Max => {
                let max = row.iter().fold(f32::MIN, |max, &x| if max < x { x } else { max });
                if max != 0.0 {
                    row.iter_mut().for_each(|x| *x /= max);
                }
            }
            Self::L1 => {
                let sum: f32 = row.iter().fold(0.0, |sum, x| sum + x.abs());
                if sum != 0.0 {
                    row.iter_mut().for_each(|x| *x /= sum);
                }
            }
            Self::L2 => {
                let sum: f32 = row.iter().fold(0.0, |sum, x| sum + x * x);
                if sum != 0.0 {
                    row.iter_mut().for_each(|x| *x = (*x * *x / sum).sqrt().copysign(*x));
                }
            }
        }
    }
}
