//! The format of `baseline.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A `baseline.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct BaselineFile<S = Summary> {
    pub model: String,
    pub version: String,
    pub rows: u64,
    pub features: BTreeMap<String, S>,
    pub outputs: BTreeMap<String, S>,
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
    },
    Category {
        values: Vec<Value>,
        counts: Vec<u64>,
        count: u64,
        missing: u64,
    },
}
