//! Tree ensembles: `TreeEnsembleClassifier` and `TreeEnsembleRegressor` of `ai.onnx.ml` 1 to 4, and
//! `TreeEnsemble` of `ai.onnx.ml` 5.
//!
//! 1. `read` checks a node's attributes.
//! 2. `flatten` lays the trees out in memory.
//! 3. `evaluate` walks from the roots to the leaves.
//! 4. `score` sums the votes of the leaves; `regressor` and `classifier` compute the outputs.

mod classifier;
mod evaluate;
mod flatten;
mod read;
mod regressor;
mod score;

pub(crate) use classifier::Classifier;
pub(crate) use read::{classifier, ensemble, regressor};
pub(crate) use regressor::{Aggregate, Regressor};

/// The type of thresholds and votes: FP64 for FP64 inputs, FP32 for all others, as in ONNX Runtime.
pub(crate) trait Real:
    Copy
    + Send
    + Sync
    + std::fmt::Debug
    + PartialOrd
    + Default
    + std::ops::Add<Output = Self>
    + std::ops::AddAssign
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + From<f32>
    + 'static
{
    const NAN: Self;
    const INFINITY: Self;
    const HALF: Self;

    fn next_up(self) -> Self;
    fn next_down(self) -> Self;
    fn to_f32(self) -> f32;
    fn from_count(count: usize) -> Self;
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            const NAN: Self = $t::NAN;
            const INFINITY: Self = $t::INFINITY;
            const HALF: Self = 0.5;

            fn next_up(self) -> Self {
                self.next_up()
            }

            fn next_down(self) -> Self {
                self.next_down()
            }

            #[expect(clippy::allow_attributes, reason = "the cast is a no-op for one of the two")]
            #[allow(clippy::cast_possible_truncation, reason = "outputs are FP32")]
            fn to_f32(self) -> f32 {
                self as f32
            }

            fn from_count(count: usize) -> Self {
                count as Self
            }
        }
    };
}

real!(f32);
real!(f64);

#[cfg(test)]
mod tests;
