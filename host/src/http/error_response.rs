//! Failures as HTTP responses: `{"error": "..."}`.

use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::body::Body;
use super::content_encoding::SUPPORTED;
use super::error::Failure;

impl Failure {
    /// `{"error": "..."}` with the failure's status.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = error_response(self.status(), &self.to_string());
        let headers = response.headers_mut();
        if matches!(
            self,
            Self::Busy { .. }
                | Self::QueueFull { .. }
                | Self::InstancePoolFull
                | Self::MemoryBudgetExhausted
                | Self::NotLogged(_)
        ) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::UnsupportedEncoding { .. }) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(SUPPORTED));
        }
        if matches!(self, Self::MethodNotAllowed { .. }) {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

/// `{"error": "..."}` with `status`.
#[must_use]
pub fn error_response(status: StatusCode, error: &str) -> Response<Body> {
    let json = serde_json::json!({ "error": error }).to_string();
    let mut response = Response::new(Body::whole(json));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
