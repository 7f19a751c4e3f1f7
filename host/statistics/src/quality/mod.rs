//! Quality of predictions with a ground truth: [`Classification`], [`Regression`] and [`Reward`]
//! are running aggregates. Observations can be removed again: feedback that is corrected replaces
//! the earlier one, and expired records no longer count.

mod classification;
mod regression;
mod reward;
mod sum;

pub use classification::{ClassQuality, Classification};
pub use regression::Regression;
pub use reward::Reward;

#[cfg(test)]
mod tests;
