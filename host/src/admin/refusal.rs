//! What the admin plane answers when it does not do what it is asked, and the statuses of that.

use http::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use crate::http::body::Body;
use crate::http::error_response::error_response;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is no {path} here; there are {there_are}")]
    NoEndpoint { path: String, there_are: String },
    #[error("{path} answers {allow}")]
    Method { path: &'static str, allow: &'static str },
    #[error("{0}")]
    Parameter(String),
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the admin plane asks for `Authorization: Bearer <token>`, and this is not its token")]
    Token,
    #[error(
        "the admin plane without a token answers for an address or for localhost, and not for \
         {host}: a page of another site may be asking"
    )]
    Host { host: String },
    #[error("the answer could not be made")]
    Failed,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint { .. } | Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Parameter(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Host { .. } => StatusCode::FORBIDDEN,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// In the shape of every failure of the host.
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
            | Self::Host { .. }
            | Self::Failed => {}
        }
        response
    }
}
