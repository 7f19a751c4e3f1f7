//! Quality of predictions whose ground truth is known: [`Classification`], [`Regression`] and
//! [`Reward`] are running aggregates. What was added can be removed again, so that corrected
//! feedback replaces the earlier one and expired records stop counting.

mod classification;
mod regression;
mod reward;
mod sum;

pub use classification::{ClassQuality, Classification};
pub use regression::Regression;
pub use reward::Reward;

#[cfg(test)]
mod tests;
