//! Content codings (RFC 9110, 8.4.1). Request bodies are decoded before anything else reads them
//! (`request`). Responses are compressed last, for clients that accept it (`response`). Components and
//! the response cache see bodies without a coding.

mod accept;
mod body;
mod decoder;
mod request;
mod response;

use serde::Deserialize;

pub use accept::AcceptEncoding;
pub use decoder::Decoder;
pub use request::{Admission, SUPPORTED, admit};
pub use response::compress;

/// A content coding that the host supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// The zlib format.
    Deflate,
}

impl Coding {
    /// The name in `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The coding with this name, in any case. `x-gzip` is an old name of gzip (RFC 9110, 8.4.1.3).
    fn named(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () => None,
        }
    }
}

/// `[application.tool.spinfer.compression]`: which bodies the host decodes and compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// Whether requests are decoded. Otherwise components receive bodies and `Content-Encoding` as sent.
    pub requests: bool,
    /// Whether responses are compressed for clients that accept it.
    pub responses: bool,
}

impl Default for Compression {
    fn default() -> Self {
        Self { requests: true, responses: true }
    }
}
