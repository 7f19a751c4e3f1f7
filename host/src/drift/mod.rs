//! Drift: whether a model version is asked for, and predicts, what its reference data says.
//!
//! ```text
//! baseline   baseline.json of a version, held to its model.toml: bins that never move
//! monitor    each logged prediction is counted, by model and version
//! layout     columns of a record -> fields of the baseline, found once
//! resume     what the windows held before a restart, from the log
//! window     counts of the last records: how many fall in which bin, no values
//! report     window against baseline: statistics, significance, status
//! ```
//!
//! The formulas are in the crate `spinfer-statistics`; `docs/drift.md` says what is computed and why.

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
