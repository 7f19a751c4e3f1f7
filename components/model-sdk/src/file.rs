//! A file in place of features: the body of a request by its content type, or base64 in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::json;

/// The files a model takes. A component whose model takes none is compiled without what reads them.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub(crate) key: &'static str,
    pub(crate) content_type: &'static str,
    decode: fn(&str) -> Option<Vec<u8>>,
}

impl File {
    /// One in the body of a request with this content type, which is not that of JSON, or as base64 under
    /// `key` of a JSON body.
    /// What is in it is for [`crate::Model::predict`] to check.
    #[must_use]
    pub const fn new(key: &'static str, content_type: &'static str) -> Self {
        Self { key, content_type, decode }
    }

    /// Whether the body of the request is one. If not, it should be JSON.
    pub(crate) fn is_body(&self, content_type: Option<&[u8]>, body: &[u8]) -> Result<bool, Error> {
        let value = String::from_utf8_lossy(content_type.unwrap_or_default());
        let sent = value.split(';').next().unwrap_or_default().trim();
        if sent.eq_ignore_ascii_case(self.content_type) {
            return Ok(true);
        }
        // Many clients send JSON as something else.
        match body.trim_ascii_start() {
            [] | [b'{', ..] => Ok(false),
            _ => Err(Error::unsupported_media_type(format!(
                "content-type {sent:?}: expected {}, or an object of JSON",
                self.content_type
            ))),
        }
    }

    /// Reads one from JSON.
    pub(crate) fn read(&self, json: &RawValue) -> Result<Vec<u8>, Error> {
        let text = json::string(json.get());
        text.and_then(|text| (self.decode)(&text)).ok_or_else(|| {
            Error::invalid(format!(
                "{}: expected a string, {} in base64 with its padding",
                self.key, self.content_type
            ))
        })
    }

    /// What [`Self::read`] takes, for messages.
    pub(crate) fn describe(&self) -> String {
        format!("{:?}, {} in base64", self.key, self.content_type)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: File = File::new("image", "image/png");

    #[test]
    fn a_body_is_a_file_by_its_content_type() {
        let is_body = |content_type: &str, body: &str| {
            PNG.is_body(Some(content_type.as_bytes()), body.as_bytes())
                .map_err(|error| (error.status(), error.to_string()))
        };
        for content_type in ["image/png", "Image/PNG ; x=1"] {
            assert_eq!(is_body(content_type, "{"), Ok(true));
        }
        for body in ["", " {}"] {
            assert_eq!(is_body("text/plain", body), Ok(false));
        }
        let message = r#"content-type "image/jpeg": expected image/png, or an object of JSON"#;
        assert_eq!(is_body("image/jpeg", "\u{1}"), Err((415, message.to_owned())));
        assert!(!PNG.is_body(None, b"{}").unwrap());
        assert_eq!(PNG.is_body(None, b"x").unwrap_err().status(), 415);
    }

    #[test]
    fn a_file_is_base64_in_json() {
        let read = |json: &str| {
            let json: &RawValue = serde_json::from_str(json).unwrap();
            PNG.read(json).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#""AP\/+""#), Ok(vec![0, 255, 254]));
        assert_eq!(read(r#""""#), Ok(vec![]));
        let refused = "image: expected a string, image/png in base64 with its padding";
        for json in [r#""AP/""#, r#""A_/+""#, r#""AP /+""#, "5", "{}", r#""\ud800""#] {
            assert_eq!(read(json), Err(refused.to_owned()), "{json}");
        }
    }
}
