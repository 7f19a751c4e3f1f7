//! Regressors.

use super::sum::{Sum, mean};

/// Predicted numbers against true ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regression {
    n: u64,
    absolute: Sum,
    squared: Sum,
}

impl Regression {
    /// One observation. Nothing is added if the error is not finite.
    pub fn add(&mut self, truth: f64, predicted: f64) {
        let error = predicted - truth;
        if (error * error).is_finite() {
            self.n += 1;
            self.absolute.add(error.abs());
            self.squared.add(error * error);
        }
    }

    /// Takes back an [`add`](Self::add) of the same observation.
    pub fn remove(&mut self, truth: f64, predicted: f64) {
        let error = predicted - truth;
        if (error * error).is_finite() {
            self.n = self.n.saturating_sub(1);
            self.absolute.add(-error.abs());
            self.squared.add(-(error * error));
        }
    }

    /// Adds every observation of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.absolute.add(other.absolute.value());
        self.squared.add(other.squared.value());
    }

    /// Number of observations.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Mean absolute error, in the unit of the prediction.
    #[must_use]
    pub fn mean_absolute_error(&self) -> Option<f64> {
        mean(self.absolute, self.n)
    }

    /// Square root of the mean squared error, in the unit of the prediction.
    #[must_use]
    pub fn root_mean_squared_error(&self) -> Option<f64> {
        // What removals leave of rounding may be below zero.
        mean(self.squared, self.n).map(|mean| mean.max(0.0).sqrt())
    }
}
