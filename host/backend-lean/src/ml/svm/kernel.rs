//! The kernels, of a row `x` and a support vector `v`:
//!
//! | kernel_type | `k(x, v)` |
//! | --- | --- |
//! | LINEAR | `x . v` |
//! | POLY | `(gamma * x . v + coef0) ^ degree` |
//! | RBF | `exp(-gamma * sum((x - v)^2))` |
//! | SIGMOID | `tanh(gamma * x . v + coef0)` |
//!
//! `kernel_params` is gamma, coef0, degree; all are 0 where it is absent.

use spinfer_backend::Error;

use crate::attributes::{Attributes, invalid};
use crate::onnx::Node;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kernel {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Kernel {
    pub(super) fn read(node: &Node) -> Result<Self, Error> {
        let attributes = Attributes(node);
        let [gamma, coef0, degree] = match *attributes.floats("kernel_params") {
            [] => [0.0; 3],
            [gamma, coef0, degree] => [gamma, coef0, degree],
            ref other => {
                let count = other.len();
                return Err(invalid(
                    node,
                    format_args!(
                        "its attribute kernel_params has {count} numbers, not gamma, coef0, degree"
                    ),
                ));
            }
        };
        match attributes.string("kernel_type", "LINEAR") {
            b"LINEAR" => Ok(Self::Linear),
            b"POLY" => Ok(Self::Poly { gamma, coef0, degree }),
            b"RBF" => Ok(Self::Rbf { gamma }),
            b"SIGMOID" => Ok(Self::Sigmoid { gamma, coef0 }),
            other => {
                let other = String::from_utf8_lossy(other);
                Err(invalid(
                    node,
                    format_args!(
                        "its attribute kernel_type is `{other}`; there are LINEAR, POLY, RBF, SIGMOID"
                    ),
                ))
            }
        }
    }

    /// `x` and `v` are of one length.
    pub(super) fn of(self, x: &[f32], v: &[f32]) -> f32 {
        match self {
            Self::Linear => dot(x, v),
            Self::Poly { gamma, coef0, degree } => {
                let y = gamma * dot(x, v) + coef0;
                if degree == 2.0 {
                    y * y
                } else if degree == 3.0 {
                    y * y * y
                } else {
                    y.powf(degree)
                }
            }
            Self::Rbf { gamma } => {
                let squares = x.iter().zip(v).map(|(x, v)| (x - v) * (x - v));
                (-gamma * squares.sum::<f32>()).exp()
            }
            Self::Sigmoid { gamma, coef0 } => (gamma * dot(x, v) + coef0).tanh(),
        }
    }
}

/// Eight sums, which the compiler turns into vectors.
fn dot(x: &[f32], v: &[f32]) -> f32 {
    let (x, x_rest) = x.as_chunks::<8>();
    let (v, v_rest) = v.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, v) in x.iter().zip(v) {
        for ((sum, x), v) in sums.iter_mut().zip(x).zip(v) {
            *sum += x * v;
        }
    }
    let rest = x_rest.iter().zip(v_rest).map(|(x, v)| x * v);
    sums.into_iter().chain(rest).sum()
}
