//! Post-transforms of `ai.onnx.ml`: functions of a row of scores.
//!
//! The standard has their names and no formulas. These are ONNX Runtime's
//! (`onnxruntime/core/providers/cpu/ml/ml_common.h`), the reference for every result here. For a
//! row `x`:
//!
//! | name | result |
//! | --- | --- |
//! | NONE | `x` |
//! | LOGISTIC | `1 / (1 + exp(-x))` |
//! | SOFTMAX | `exp(x - max) / sum(exp(x - max))` |
//! | SOFTMAX_ZERO | as SOFTMAX, but where `abs(x) <= 1e-7` the term is `x * exp(-max)` and not part of the sum |
//! | PROBIT | `sqrt(2) * erfinv(2 x - 1)`, `erfinv` by Winitzki's approximation with a = 0.147 |

use spinfer_backend::Error;

use crate::attributes::Attributes;
use crate::refusal::invalid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostTransform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    pub(crate) fn read(attributes: Attributes<'_>) -> Result<Self, Error> {
        match attributes.string("post_transform", "NONE") {
            b"NONE" => Ok(Self::None),
            b"LOGISTIC" => Ok(Self::Logistic),
            b"SOFTMAX" => Ok(Self::Softmax),
            b"SOFTMAX_ZERO" => Ok(Self::SoftmaxZero),
            b"PROBIT" => Ok(Self::Probit),
            other => Err(invalid(
                attributes.0,
                format_args!(
                    "its post_transform is `{}`, which is none of the standard's",
                    String::from_utf8_lossy(other)
                ),
            )),
        }
    }

    /// Transforms a row of two or more scores in place.
    pub(crate) fn row(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|x| *x = logistic(*x)),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
            Self::Probit => scores.iter_mut().for_each(|x| *x = probit(*x)),
        }
    }

    /// Transforms a single score, which only PROBIT changes, as in ONNX Runtime.
    pub(crate) fn single(self, score: f32) -> f32 {
        if self == Self::Probit { probit(score) } else { score }
    }
}

pub(crate) fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

pub(crate) fn softmax(scores: &mut [f32]) {
    let max = scores.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max });
    let mut sum = 0.0;
    for x in scores.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    scores.iter_mut().for_each(|x| *x /= sum);
}

fn softmax_zero(scores: &mut [f32]) {
    const ZERO: f32 = 1e-7;
    let max = scores.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max });
    let scale = (-max).exp();
    let mut sum = 0.0;
    for x in scores.iter_mut() {
        if *x > ZERO || *x < -ZERO {
            *x = (*x - max).exp();
            sum += *x;
        } else {
            *x *= scale;
        }
    }
    scores.iter_mut().for_each(|x| *x /= sum);
}

fn probit(x: f32) -> f32 {
    /// Winitzki's constant, "A handy approximation for the error function and its inverse" (2008).
    const A: f32 = 0.147;
    let y = 2.0 * x - 1.0;
    let log = ((1.0 - y) * (1.0 + y)).ln();
    let v = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let root = (-v + (v * v - 1.0 / A * log).sqrt()).sqrt();
    std::f32::consts::SQRT_2 * if y < 0.0 { -root } else { root }
}
