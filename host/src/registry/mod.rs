//! Where models and components come from, other than this machine.

pub mod mlflow;
