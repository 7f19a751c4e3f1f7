//! A file instead of features: the request body, by its content type, or base64 in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::json;

/// The kind of file that a model accepts ([`crate::Model::FILE`]).
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Key of the JSON body.
    pub(crate) key: &'static str,
    /// Content type of the request body.
    pub(crate) content_type: &'static str,
    /// A pointer, so that components without `FILE` are compiled without base64.
    decode: fn(&str) -> Option<Vec<u8>>,
}

impl File {
    /// A file sent as a request body of this `content_type`, which must not be that of JSON, or in base64 as
    /// the value of `key` in a JSON body. [`crate::Model::predict`] checks its content.
    #[must_use]
    pub const fn new(key: &'static str, content_type: &'static str) -> Self {
        Self { key, content_type, decode }
    }

    /// Whether the body is a file. If not, it is JSON.
    ///
    /// # Errors
    /// If it is neither: 415.
    pub(crate) fn is_body(&self, content_type: Option<&[u8]>, body: &[u8]) -> Result<bool, Error> {
        let value = String::from_utf8_lossy(content_type.unwrap_or_default());
        let sent = value.split(';').next().unwrap_or_default().trim();
        if sent.eq_ignore_ascii_case(self.content_type) {
            return Ok(true);
        }
        // Many clients send JSON with another content type.
        match body.trim_ascii_start() {
            [] | [b'{', ..] => Ok(false),
            _ => Err(Error::unsupported_media_type(format!(
                "content-type {sent:?}: expected {}, or a JSON object",
                self.content_type
            ))),
        }
    }

    /// Decodes a file from JSON.
    pub(crate) fn read(&self, json: &RawValue) -> Result<Vec<u8>, Error> {
        let text = json::string(json.get());
        text.and_then(|text| (self.decode)(&text)).ok_or_else(|| {
            Error::invalid(format!(
                "{}: expected a string, {} in base64 with padding",
                self.key, self.content_type
            ))
        })
    }

    /// What [`Self::read`] accepts, for messages.
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
    fn body_is_a_file_by_its_content_type() {
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
        let message = r#"content-type "image/jpeg": expected image/png, or a JSON object"#;
        assert_eq!(is_body("image/jpeg", "\u{1}"), Err((415, message.to_owned())));
        assert!(!PNG.is_body(None, b"{}").unwrap());
        assert_eq!(PNG.is_body(None, b"x").unwrap_err().status(), 415);
    }

    #[test]
    fn file_in_json_is_base64() {
        let read = |json: &str| {
            let json: &RawValue = serde_json::from_str(json).unwrap();
            PNG.read(json).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#""AP\/+""#), Ok(vec![0, 255, 254]));
        assert_eq!(read(r#""""#), Ok(vec![]));
        let refused = "image: expected a string, image/png in base64 with padding";
        for json in [r#""AP/""#, r#""A_/+""#, r#""AP /+""#, "5", "{}", r#""\ud800""#] {
            assert_eq!(read(json), Err(refused.to_owned()), "{json}");
        }
    }
}
