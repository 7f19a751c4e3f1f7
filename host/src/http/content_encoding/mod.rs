//! Content codings (RFC 9110, 8.4.1): requests are decoded before anything looks at their bodies
//! ([`request`]), responses are compressed for clients that ask ([`response`]) after everything else.
//! Components and the response cache see bodies without any coding.

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

/// A coding of bodies that the host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// The zlib format.
    Deflate,
}

impl Coding {
    /// As `Content-Encoding` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The coding called `name`, in any case. `x-gzip` is an old name of gzip (RFC 9110, 8.4.1.3).
    fn named(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () => None,
        }
    }
}

/// `[application.tool.spinfer.compression]`: whose bodies the host decodes and compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// Decodes requests. Otherwise components get bodies, and `Content-Encoding`, as they were sent.
    pub requests: bool,
    /// Compresses responses for clients that ask.
    pub responses: bool,
}

impl Default for Compression {
    fn default() -> Self {
        Self { requests: true, responses: true }
    }
}
