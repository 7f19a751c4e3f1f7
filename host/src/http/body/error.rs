//! Why the body of a request did not arrive.

use std::convert::Infallible;

use wasmtime_wasi_http::Error as WasiHttpError;

use crate::http::error::Failure;

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// Its connection failed, as `said`.
    Broken { said: String, cause: WasiHttpError },
    /// It is not in the coding that it is declared to be in.
    Undecodable { coding: &'static str, problem: &'static str },
    /// Decoded, it is longer than a body may be.
    TooLarge,
}

impl BodyError {
    /// The failure of a request whose body may have `limit` bytes.
    #[must_use]
    pub fn into_failure(self, limit: usize) -> Failure {
        match self {
            Self::Broken { said, .. } => Failure::BodyBroken(said),
            Self::Undecodable { coding, problem } => Failure::BodyUndecodable { coding, problem },
            Self::TooLarge => Failure::BodyTooLarge { limit },
        }
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken { said: error.to_string(), cause: error.into() }
    }
}

impl From<WasiHttpError> for BodyError {
    fn from(cause: WasiHttpError) -> Self {
        Self::Broken { said: cause.to_string(), cause }
    }
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// What a guest sees that reads it.
impl From<BodyError> for WasiHttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Broken { cause, .. } => cause,
            BodyError::Undecodable { coding, problem } => {
                Self::InternalError(Some(format!("the body is not {coding}: {problem}")))
            }
            BodyError::TooLarge => Self::HttpRequestBodySize(None),
        }
    }
}
