//! Errors of request bodies.

use std::convert::Infallible;

use wasmtime_wasi_http::Error as WasiHttpError;

use crate::http::error::Failure;

/// Why a body could not be read to its end.
#[derive(Debug)]
pub enum BodyError {
    /// Its connection or its framing failed.
    Broken { message: String, cause: WasiHttpError },
    /// It is not valid in its content coding.
    Undecodable { coding: &'static str, problem: &'static str },
    /// Decoded, it exceeds the limit.
    TooLarge,
    /// It arrives in too many tiny parts.
    Fragmented,
}

impl BodyError {
    /// The failure of a request whose body is limited to `limit` bytes.
    #[must_use]
    pub fn into_failure(self, limit: usize) -> Failure {
        match self {
            Self::Broken { message, .. } => Failure::BodyBroken(message),
            Self::Undecodable { coding, problem } => Failure::BodyUndecodable { coding, problem },
            Self::TooLarge => Failure::BodyTooLarge { limit },
            Self::Fragmented => Failure::BodyFragmented,
        }
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken { message: error.to_string(), cause: error.into() }
    }
}

impl From<WasiHttpError> for BodyError {
    fn from(cause: WasiHttpError) -> Self {
        Self::Broken { message: cause.to_string(), cause }
    }
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The error that a guest receives when it reads the body.
impl From<BodyError> for WasiHttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Broken { cause, .. } => cause,
            BodyError::Undecodable { coding, problem } => {
                Self::InternalError(Some(format!("the body is not valid {coding}: {problem}")))
            }
            BodyError::TooLarge => Self::HttpRequestBodySize(None),
            BodyError::Fragmented => Self::InternalError(Some(Failure::BodyFragmented.to_string())),
        }
    }
}
