//! Support vector machines. `kernel` compares a row with the support vectors; `classifier` and
//! `regressor` make of that what the attributes say.

pub(super) mod classifier;
mod kernel;
mod probability;
pub(super) mod regressor;
