//! A response between the protocols and the doors: complete, and the same through either door.

use std::borrow::Cow;

use serde::Serialize;

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Without `content-length`, which the host or the standard door derives from the body.
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

    /// It may be given again for so long, to requests whose headers of these `names` are the same, and
    /// whose bodies are, compared by what the host knows as `body_key`: as JSON, or as tensors.
    pub(crate) fn for_seconds(self, seconds: u32, names: &[&str], body_key: &'static str) -> Self {
        if seconds == 0 {
            return self;
        }
        let response = self.with_header("cache-control", format!("max-age={seconds}"));
        let response = response.with_header("vary", names.join(", "));
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
    fn a_response_is_json_and_names_the_allowed_methods() {
        let response = Response::from(Error::method_not_allowed("GET, HEAD"));
        assert_eq!(response.status, 405);
        assert!(response.headers.contains(&("allow", "GET, HEAD".into())));
        assert!(response.headers.contains(&("content-type", "application/json".into())));
        assert_eq!(
            response.body,
            br#"{"error":"method not allowed; this path answers GET, HEAD"}"#
        );
    }
}
