//! Responses of the admin plane.

use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::refusal::Refusal;
use crate::http::body::Body;

pub(super) fn json(value: &impl Serialize) -> Result<Response<Body>, Refusal> {
    let text = serde_json::to_string(value).map_err(|_| Refusal::Failed)?;
    Ok(response(text, "application/json"))
}

pub(super) fn response(text: String, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A snapshot.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
