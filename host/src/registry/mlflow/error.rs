//! What may go wrong between this program and a tracking server. Every message names the URL.

use std::time::Duration;

use bytesize::ByteSize;
use thiserror::Error;

/// Why a request to a tracking server has no usable response.
#[derive(Debug, Error)]
pub enum Error {
    #[error(
        "{url}: cannot be reached: {problem}; check that the server is up, and --tracking-uri or \
         MLFLOW_TRACKING_URI"
    )]
    Unreachable { url: String, problem: String },

    #[error(
        "{url}: no data for {waited:?}; the server is too slow, or MLFLOW_HTTP_REQUEST_TIMEOUT (in \
         seconds) is too short"
    )]
    Timeout { url: String, waited: Duration },

    #[error(
        "{url}: status {status}{}: {}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or \
         MLFLOW_TRACKING_TOKEN",
        of(message),
        if *sent { "the credentials that are set are not accepted" } else { "it asks for credentials" }
    )]
    Unauthorized { url: String, status: u16, message: String, sent: bool },

    /// The server is MLflow's, and does not have what was asked for.
    #[error("{url}: {message}")]
    NotFound { url: String, message: String },

    #[error("{url}: status {status}{}", of(message))]
    Status { url: String, status: u16, message: String },

    #[error("{url}: the response is {what}: this may not be an MLflow tracking server")]
    NotMlflow { url: String, what: String },

    #[error("{url}: larger than {}, the limit here", ByteSize(*limit).display().iec())]
    TooLarge { url: String, limit: u64 },

    #[error("{url}: the response ended early: {received} bytes came{}: {problem}", of_all(*expected))]
    Incomplete { url: String, received: u64, expected: Option<u64>, problem: String },

    /// A file of this machine.
    #[error("{0}")]
    Write(#[from] std::io::Error),
}

impl Error {
    /// Whether MLflow itself says that there is no such thing, so that what there is may be listed.
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
