//! Error responses of the admin plane, and their statuses.

use http::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use crate::http::authority::HostError;
use crate::http::body::Body;
use crate::http::error_response::error_response;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is no endpoint {path}; endpoints: {available}")]
    NoEndpoint { path: String, available: String },
    #[error("method not allowed; {path} supports {allow}")]
    Method { path: &'static str, allow: &'static str },
    #[error("{0}")]
    Parameter(String),
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("missing or invalid token; send `Authorization: Bearer <token>`")]
    Token,
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(
        "the Host header {host} is refused, as a page of another site may have sent the request; \
         without a token the admin plane accepts an IP address or localhost"
    )]
    OtherSite { host: String },
    #[error("internal error; the log has the details")]
    Failed,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint { .. } | Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Parameter(_) | Self::Host(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::OtherSite { .. } => StatusCode::FORBIDDEN,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The response, in the form of every error response of the host.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = error_response(self.status(), &self.to_string());
        let headers = response.headers_mut();
        match self {
            Self::Method { allow, .. } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::Token => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::NoEndpoint { .. }
            | Self::Parameter(_)
            | Self::Unknown(_)
            | Self::Conflict(_)
            | Self::Unavailable(_)
            | Self::Host(_)
            | Self::OtherSite { .. }
            | Self::Failed => {}
        }
        response
    }
}
