//! Errors of requests to a tracking server. Every message names the URL.

use std::time::Duration;

use bytesize::ByteSize;
use thiserror::Error;

/// Why a request to a tracking server failed.
#[derive(Debug, Error)]
pub enum MlflowError {
    #[error(
        "{url}: cannot be reached: {problem}; check that the server is running, and --tracking-uri or \
         MLFLOW_TRACKING_URI"
    )]
    Unreachable { url: String, problem: String },

    #[error(
        "{url}: no data for {waited:?}; if the server is slow, increase MLFLOW_HTTP_REQUEST_TIMEOUT (in \
         seconds)"
    )]
    Timeout { url: String, waited: Duration },

    #[error(
        "{url}: status {status}{}: {}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or \
         MLFLOW_TRACKING_TOKEN",
        of(message),
        if *sent { "the credentials were rejected" } else { "the server requires credentials" }
    )]
    Unauthorized { url: String, status: u16, message: String, sent: bool },

    /// MLflow reports that the requested item does not exist.
    #[error("{url}: {message}")]
    NotFound { url: String, message: String },

    #[error("{url}: status {status}{}", of(message))]
    Status { url: String, status: u16, message: String },

    #[error("{url}: the response is {what}: this may not be an MLflow tracking server")]
    NotMlflow { url: String, what: String },

    #[error("{url}: larger than the limit of {}", ByteSize(*limit).display().iec())]
    TooLarge { url: String, limit: u64 },

    #[error("{url}: the response is truncated: received {received} bytes{}: {problem}", of_all(*expected))]
    Incomplete { url: String, received: u64, expected: Option<u64>, problem: String },

    /// A local file cannot be written.
    #[error("{0}")]
    Write(#[from] std::io::Error),
}

impl MlflowError {
    /// Whether MLflow reports that the item does not exist, so that alternatives can be listed.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

fn of(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn of_all(expected: Option<u64>) -> String {
    expected.map_or_else(String::new, |expected| format!(" of {expected}"))
}
