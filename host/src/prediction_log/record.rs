//! Records of the prediction log: predictions as a component appends them, and the data the host
//! adds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::names::{Name, Names};

/// Values of one datatype. A NaN is a missing value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ColumnValues {
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Int64(Vec<i64>),
    Boolean(Vec<bool>),
    Text(Vec<String>),
}

/// Columns of one datatype. `values` is in row-major order, with one value per row and name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    pub names: Names,
    pub values: ColumnValues,
}

/// Predictions of one model version for `rows` rows, as a component appended them in one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    pub model: Name,
    pub version: Name,
    /// Number of rows, at least one.
    pub rows: u32,
    pub inputs: Vec<Columns>,
    pub outputs: Vec<Columns>,
    /// Names, with their widths, of tensors that are too wide to be logged.
    pub omitted: Vec<String>,
    pub attributes: Vec<(String, String)>,
}

/// The outcome of a request in the response cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheOutcome {
    /// Served from the cache: the predictions are those of the request that computed them.
    Hit,
    /// Another request in flight computed it.
    Collapsed,
    Miss,
    /// Not looked up.
    Bypass,
}

/// The host's data of a request whose predictions are logged.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestContext {
    /// UUIDv7: the response header `spinfer-prediction-id`, and the key of feedback.
    pub id: Uuid,
    pub time: SystemTime,
    /// Pattern of the route in the manifest.
    pub route: Arc<str>,
    /// Id of the component that served it.
    pub component: Arc<str>,
    /// Experiment and variant, if a router assigned the request.
    pub exposure: Option<Exposure>,
    pub cache: CacheOutcome,
    /// HTTP status of the response.
    pub status: u16,
    /// Probability with which the request was logged: the component's sample, or 1 if it is always
    /// logged. A record stands for 1/`sample` of them.
    pub sample: f64,
    /// Time from the request's head to the response's head.
    pub latency: Duration,
    /// Trace id of the W3C `traceparent` header: 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

/// The variant of an experiment that served a request, and how it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Exposure {
    pub experiment: Arc<str>,
    pub variant: Arc<str>,
    /// Keyed hash of the unit, 16 hexadecimal digits; `None` for a request without a unit.
    pub unit: Option<Arc<str>>,
    /// The probability with which the variant was drawn. `None` if it was not drawn, as when a
    /// tester chose it: an analysis of the experiment excludes such records.
    pub propensity: Option<f64>,
    /// The variant that the request was assigned to and that could not serve it.
    pub failed_over: Option<Arc<str>>,
    /// Name of the input that is the covariate of the experiment's metric.
    pub covariate: Option<Arc<str>>,
    /// Digest of the experiment among those that had its name; empty for one that the host does not
    /// know.
    pub run: Arc<str>,
}

impl Exposure {
    /// An exposure without a unit that was not drawn.
    #[must_use]
    pub fn new(experiment: &str, variant: &str) -> Self {
        let (experiment, variant) = (experiment.into(), variant.into());
        Self {
            experiment,
            variant,
            unit: None,
            propensity: None,
            failed_over: None,
            covariate: None,
            run: "".into(),
        }
    }
}

/// Predictions of one call, as they enter the log's queue: `predictions.rows` records.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    pub context: Arc<RequestContext>,
    /// Index of the first row within the request, which may append more than once. A record is
    /// identified by the request's id and this index plus its row.
    pub first_row: u32,
    pub predictions: Arc<Predictions>,
}
