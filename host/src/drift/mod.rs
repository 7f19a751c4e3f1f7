//! Drift detection: compares the features and outputs of recent predictions with the reference data
//! of the model version.
//!
//! ```text
//! baseline   baseline.json of a version, checked against its model.toml: fixed bins
//! monitor    counts each logged prediction, by model and version
//! layout     maps columns of records to fields of the baseline, once per order of columns
//! resume     refills the windows from the prediction log after a restart
//! window     number of recent records in each bin, without their values
//! report     window against baseline: statistics, significance, status
//! ```
//!
//! The formulas are in the crate `spinfer-statistics`; `docs/drift.md` describes what is computed
//! and why.

pub mod baseline;
pub mod monitor;
pub mod report;
pub mod settings;
pub mod signature;

mod layout;
mod resume;
mod window;

pub use baseline::{BASELINE, Baseline};
pub use monitor::{Monitor, WatchedModel};
pub use report::{Report, Status};
pub use settings::{DriftConfig, DriftSettings};

#[cfg(test)]
mod tests;
