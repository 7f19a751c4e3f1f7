//! Quality of regressors.

use super::sum::{Sum, mean};

/// Mean errors of predicted numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regression {
    n: u64,
    absolute: Sum,
    squared: Sum,
}

impl Regression {
    /// Adds an observation. It is ignored if the square of its error is not finite.
    pub fn add(&mut self, truth: f64, predicted: f64) {
        let error = predicted - truth;
        if (error * error).is_finite() {
            self.n += 1;
            self.absolute.add(error.abs());
            self.squared.add(error * error);
        }
    }

    /// Removes an observation that was [added](Self::add).
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
        // Rounding errors of removals may make it negative.
        mean(self.squared, self.n).map(|mean| mean.max(0.0).sqrt())
    }
}
