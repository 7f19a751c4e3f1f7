//! Drift detection: compares the features and outputs of recent predictions with the reference data
//! of the model version.
//!
//! ```text
//! baseline   baseline.json of a version, checked against its model.toml: fixed bins
//! monitor    the watched versions; each logged prediction goes to its version
//! watched    a version: counts its predictions, looks for drift
//! layout     maps columns of records to fields of the baseline, once per order of columns
//! window     counts and moments of recent records in each bin, without their values
//! alarms     evidence of drift in the counts: raised and cleared, whenever one looks
//! saved      windows as JSON: for the next run, and for a report of several hosts
//! resume     counts what the prediction log has and the saved windows lack
//! scores     one field of the window against the baseline
//! expected   accuracy without labels, and with them
//! merged     the report of several hosts
//! report     all of it, as `GET /drift` and `spinfer drift` show it
//! ```
//!
//! The formulas are in the crate `spinfer-statistics`; `docs/drift.md` describes what is computed
//! and why.

pub mod baseline;
pub mod monitor;
pub mod report;
pub mod settings;
pub mod signature;

mod alarms;
mod expected;
mod layout;
mod merged;
mod resume;
mod saved;
mod scores;
mod watched;
mod window;

pub use baseline::{BASELINE, Baseline};
pub use expected::Performance;
pub use monitor::{Monitor, WatchedModel};
pub use report::{Report, Status};
pub use saved::{SavedWindows, WINDOWS_FILE};
pub use settings::{DriftConfig, DriftSettings};

#[cfg(test)]
mod tests;
