//! The response that a protocol returns: complete, and the same for both doors.

use std::borrow::Cow;

use serde::Serialize;

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Without `content-length`: the host or the standard door derives it from the body.
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(crate) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type", content_type.into())], body }
    }

    /// Allows caches to serve the response for `seconds`, to requests with the same headers `vary` and an
    /// equal body. `body_key` tells the host how to compare bodies: as `json` or as `tensors`.
    pub(crate) fn cacheable(self, seconds: u32, vary: &[&str], body_key: &'static str) -> Self {
        if seconds == 0 {
            return self;
        }
        let response = self.with_header("cache-control", format!("max-age={seconds}"));
        let response = response.with_header("vary", vary.join(", "));
        response.with_header("spinfer-body-key", body_key)
    }

    pub(crate) fn with_header(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Error> for Response {
    fn from(error: Error) -> Self {
        #[derive(Serialize)]
        struct ErrorBody<'a> {
            error: &'a str,
        }
        let message = error.to_string();
        let body = serde_json::to_vec(&ErrorBody { error: &message }).unwrap_or_default();
        let response = Self::json(error.status(), body);
        match error.allowed_methods() {
            Some(methods) => response.with_header("allow", methods),
            None => response,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_not_allowed_response_names_the_allowed_methods() {
        let response = Response::from(Error::method_not_allowed("GET, HEAD"));
        assert_eq!(response.status, 405);
        assert!(response.headers.contains(&("allow", "GET, HEAD".into())));
        assert!(response.headers.contains(&("content-type", "application/json".into())));
        assert_eq!(
            response.body,
            br#"{"error":"method not allowed; this path accepts GET, HEAD"}"#
        );
    }
}
