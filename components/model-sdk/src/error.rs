//! The error of a request, and the one map from its kind to an HTTP status.

use std::fmt;

/// Why a request failed: the status and the message of the response.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorKind {
    Invalid,
    InvalidJson,
    NotFound,
    MethodNotAllowed { allow: &'static str },
    TooLarge,
    UnsupportedMediaType,
    Internal,
    Unavailable,
    DeadlineExceeded,
}

/// Maximum length of a message, in bytes: it may quote what the client sent, up to the whole body.
const MAX_MESSAGE_BYTES: usize = 500;

/// The start of `text`, one character longer than a message may be, so that [`Error::new`] marks the cut.
pub(crate) fn quoted(text: &str) -> &str {
    // A character has at most 4 bytes.
    &text[..text.floor_char_boundary(MAX_MESSAGE_BYTES + 4)]
}

impl Error {
    /// The request is invalid: 400. The message names the place and what was expected there.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The body is not JSON: 400.
    pub(crate) fn invalid_json(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidJson, message)
    }

    /// Whether the body is not JSON.
    pub(crate) fn is_invalid_json(&self) -> bool {
        self.kind == ErrorKind::InvalidJson
    }

    /// The component, its model or the host is at fault: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The path, model or version does not exist: 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The path does not support the method: 405. `allow` lists the methods of the path, as in the header of
    /// that name.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            ErrorKind::MethodNotAllowed { allow },
            format!("method not allowed; this path accepts {allow}"),
        )
    }

    /// The request, or the memory it needs, exceeds a limit: 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// The content type is not supported: 415.
    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::UnsupportedMediaType, message)
    }

    /// The model cannot be loaded at present: 503.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The deadline of the request is exceeded: 504.
    pub(crate) fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::DeadlineExceeded, message)
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push_str("...");
        }
        Self { kind, message }
    }

    /// The HTTP status of the response.
    pub(crate) fn status(&self) -> u16 {
        match self.kind {
            ErrorKind::Invalid | ErrorKind::InvalidJson => 400,
            ErrorKind::NotFound => 404,
            ErrorKind::MethodNotAllowed { .. } => 405,
            ErrorKind::TooLarge => 413,
            ErrorKind::UnsupportedMediaType => 415,
            ErrorKind::Internal => 500,
            ErrorKind::Unavailable => 503,
            ErrorKind::DeadlineExceeded => 504,
        }
    }

    /// The methods of the path, if the request had another one (405).
    pub(crate) fn allowed_methods(&self) -> Option<&'static str> {
        match self.kind {
            ErrorKind::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_status() {
        for (error, status) in [
            (Error::invalid(""), 400),
            (Error::invalid_json(""), 400),
            (Error::not_found(""), 404),
            (Error::method_not_allowed("POST"), 405),
            (Error::too_large(""), 413),
            (Error::unsupported_media_type(""), 415),
            (Error::internal(""), 500),
            (Error::unavailable(""), 503),
            (Error::deadline_exceeded(""), 504),
        ] {
            assert_eq!(error.status(), status);
        }
    }

    #[test]
    fn quotes_are_truncated_before_formatting() {
        assert_eq!(quoted("short"), "short");
        let long = "é".repeat(1000);
        assert!(quoted(&long).len() <= MAX_MESSAGE_BYTES + 4);
        assert!(Error::invalid(quoted(&long)).to_string().ends_with("..."));
    }

    #[test]
    fn long_message_is_truncated_at_a_character_boundary() {
        let error = Error::invalid("é".repeat(1000));
        assert_eq!(error.to_string().len(), MAX_MESSAGE_BYTES + "...".len());
    }
}
