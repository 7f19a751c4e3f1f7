//! What can go wrong with a request, and the one map from it to a failure status.

use std::fmt;

/// Why a request gets no prediction: the status of the answer and its message.
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

/// Of a message: it quotes what the client sent, which may be the whole body.
const MAX_MESSAGE_BYTES: usize = 500;

/// As much of `text` as a message takes: what is longer is told to be.
pub(crate) fn quoted(text: &str) -> &str {
    // The longest character has four bytes.
    &text[..text.floor_char_boundary(MAX_MESSAGE_BYTES + 4)]
}

impl Error {
    /// The request is wrong, and the message says where and what was expected: 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The body is no JSON: 400.
    pub(crate) fn invalid_json(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidJson, message)
    }

    pub(crate) fn is_about_json(&self) -> bool {
        self.kind == ErrorKind::InvalidJson
    }

    /// The component, its model or the host is wrong: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            ErrorKind::MethodNotAllowed { allow },
            format!("method not allowed; this path answers {allow}"),
        )
    }

    /// More than the component takes: 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::UnsupportedMediaType, message)
    }

    /// The model cannot be loaded, for now: 503.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

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

    /// The methods that the path answers, where another was sent.
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
    fn every_kind_has_its_status() {
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
    fn what_is_quoted_is_cut_before_it_is_in_a_message() {
        assert_eq!(quoted("short"), "short");
        let long = "é".repeat(1000);
        assert!(quoted(&long).len() <= MAX_MESSAGE_BYTES + 4);
        assert!(Error::invalid(quoted(&long)).to_string().ends_with("..."));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = Error::invalid("é".repeat(1000));
        assert_eq!(error.to_string().len(), MAX_MESSAGE_BYTES + "...".len());
    }
}
