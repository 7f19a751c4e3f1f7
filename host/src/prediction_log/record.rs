//! What the prediction log holds: predictions as a component appends them, and what the host adds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Values of one datatype. A NaN is a missing value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Values {
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Int64(Vec<i64>),
    Boolean(Vec<bool>),
    Text(Vec<String>),
}

/// Columns of one datatype: `values` holds row after row, one value for each name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    pub names: Vec<String>,
    pub values: Values,
}

/// Predictions of one model version for `rows` rows, as a component appended them in one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    pub model: String,
    pub version: String,
    /// At least one.
    pub rows: u32,
    pub inputs: Vec<Columns>,
    pub outputs: Vec<Columns>,
    /// Names, with their widths, of what is too wide to be logged.
    pub omitted: Vec<String>,
    pub attributes: Vec<(String, String)>,
}

/// What the response cache did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheOutcome {
    /// Served from the cache: the predictions are those of the request that computed them.
    Hit,
    /// Another request in flight computed it.
    Collapsed,
    Miss,
    /// The cache was not asked.
    Bypass,
}

/// What the host knows of a request whose predictions are logged.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestContext {
    /// UUIDv7: the response header `spinfer-prediction-id`, and the key of feedback.
    pub id: Uuid,
    pub time: SystemTime,
    /// The manifest's route pattern.
    pub route: Arc<str>,
    /// The id of the component that served it.
    pub component: Arc<str>,
    /// Experiment and variant, where a router assigned the request.
    pub exposure: Option<Exposure>,
    pub cache: CacheOutcome,
    /// HTTP status of the response.
    pub status: u16,
    /// From the request's head to the head of its response.
    pub latency: Duration,
    /// From the W3C `traceparent` header: 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

/// The variant of an experiment that served a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    pub experiment: Arc<str>,
    pub variant: Arc<str>,
}

/// Predictions of one call, as they enter the log's queue: `predictions.rows` records.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub context: Arc<RequestContext>,
    /// Number of the first row within the request: a request may append more than once. A record
    /// is identified by the request's id and this number plus its row.
    pub first_row: u32,
    pub predictions: Arc<Predictions>,
}
