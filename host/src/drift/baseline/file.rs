//! The format of `baseline.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spinfer_statistics::expected_accuracy::Calibration;

/// A `baseline.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct BaselineFile<S = Summary> {
    pub model: String,
    pub version: String,
    pub rows: u64,
    pub features: BTreeMap<String, S>,
    pub outputs: BTreeMap<String, S>,
    /// Absent without labels of the reference data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationEntry>,
}

/// The calibration of a classifier's probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationEntry {
    /// Name of the output of classes.
    pub class: String,
    /// Name of the output with a probability for each class.
    pub probabilities: String,
    #[serde(flatten)]
    pub fitted: Calibration,
}

/// The distribution of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Summary {
    Number {
        edges: Vec<f64>,
        counts: Vec<u64>,
        count: u64,
        missing: u64,
        /// The moments are informative only. Absent if all values are missing.
        #[serde(skip_serializing_if = "Option::is_none")]
        mean: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        std: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<f64>,
        /// Mean and standard deviation of the values of each bin; 0 for an empty bin. Absent in
        /// files of earlier versions.
        #[serde(skip_serializing_if = "Option::is_none")]
        means: Option<Vec<f64>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        deviations: Option<Vec<f64>>,
    },
    Category {
        values: Vec<Value>,
        counts: Vec<u64>,
        count: u64,
        missing: u64,
    },
}
