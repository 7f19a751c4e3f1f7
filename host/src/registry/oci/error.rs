//! Errors of requests to registries.

use std::time::Duration;

use http::StatusCode;

use super::digest::Digest;

/// Why a request to a registry failed. Callers add the artifact as context.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error(
        "{host} must be reached over HTTPS, as plain HTTP can be read and changed on the way; allow it \
         with --insecure-http {host}"
    )]
    PlainHttp { host: String },
    #[error("{host} cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("{host} sent no data for {}", humantime::format_duration(*timeout))]
    IdleTimeout { host: String, timeout: Duration },
    #[error("{host} did not finish within {}", humantime::format_duration(*timeout))]
    TooSlow { host: String, timeout: Duration },
    #[error("the connection to {host} was lost: {cause}")]
    ConnectionLost { host: String, cause: String },
    #[error("{host} redirects more than {limit} times, last to {url}")]
    Redirects { host: String, limit: usize, url: String },
    #[error("{host} redirects to {url:?}, {problem}")]
    BadRedirect { host: String, url: String, problem: &'static str },
    #[error("{}", status_message(*status, host, message))]
    Status { status: StatusCode, host: String, message: String, retry_after: Option<Duration> },
    #[error("expected {expected}, but {host} sent {received}")]
    Unexpected { host: String, expected: &'static str, received: String },
    #[error("{what} exceeds the limit of {limit} bytes: {host} sent {received}")]
    TooLarge { what: String, host: String, limit: u64, received: String },
    #[error("{what} has {expected} bytes in the manifest, but {host} sent {received}")]
    Size { what: String, host: String, expected: u64, received: String },
    #[error(
        "{what} should have the digest {expected}, but the content sent by {host} has {actual}"
    )]
    WrongDigest { what: String, host: String, expected: Digest, actual: Digest },
    #[error("cannot write the data from {host}: {cause}")]
    Write { host: String, cause: std::io::Error },
    /// A problem of this machine.
    #[error("{0}")]
    Local(String),
}

impl OciError {
    /// Delay before a retry; `None` if a retry would fail too.
    #[must_use]
    pub fn retry_after(&self, backoff: Duration) -> Option<Duration> {
        match self {
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => Some(backoff),
            Self::Status { status, retry_after, .. } => match status.as_u16() {
                429 | 503 => Some(retry_after.unwrap_or(backoff)),
                408 | 500 | 502 | 504 => Some(backoff),
                _ => None,
            },
            // After a whole timeout without data, a retry is unlikely to help.
            Self::IdleTimeout { .. } | Self::TooSlow { .. } => None,
            Self::PlainHttp { .. }
            | Self::Redirects { .. }
            | Self::BadRedirect { .. }
            | Self::Unexpected { .. }
            | Self::TooLarge { .. }
            | Self::Size { .. }
            | Self::WrongDigest { .. }
            | Self::Write { .. }
            | Self::Local(_) => None,
        }
    }

    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        if let Self::Status { status, .. } = self { Some(*status) } else { None }
    }
}

fn status_message(status: StatusCode, host: &str, message: &str) -> String {
    let meaning = match status.as_u16() {
        401 => format!(
            "the credentials are missing or wrong; log in with `spinfer registry login {host}`"
        ),
        403 => "these credentials do not allow it".to_owned(),
        404 => "there is no such repository, tag or digest, or this user cannot see it".into(),
        405 => "the operation is not allowed: the registry may be read-only".into(),
        413 => "the content is larger than the registry accepts".into(),
        429 => "too many requests; try again later".into(),
        500.. => "the registry failed; try again later".into(),
        _ => "unexpected status for a registry".into(),
    };
    let message = if message.is_empty() { String::new() } else { format!(" ({message})") };
    format!("{host} sent {status}: {meaning}{message}")
}

/// The start of a body on one line, without control characters.
#[must_use]
pub fn excerpt(body: &[u8]) -> String {
    /// Maximum length, in characters.
    const MAX_EXCERPT: usize = 160;
    let text = String::from_utf8_lossy(body);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut shown: String = text.chars().take(MAX_EXCERPT).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_is_short_and_without_control_characters() {
        assert_eq!(excerpt(b"  <html>\n\t<b>\x1b[31mred</b>\0 "), "<html> <b> [31mred</b>");
        assert_eq!(excerpt(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        let long = excerpt("\u{e9}".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), 163);
    }

    #[test]
    fn only_transient_errors_are_retried() {
        let backoff = Duration::from_secs(1);
        let status = |code: u16, retry_after| OciError::Status {
            status: StatusCode::from_u16(code).unwrap(),
            host: "r.org".into(),
            message: String::new(),
            retry_after,
        };
        let later = Some(Duration::from_secs(7));
        assert_eq!(status(429, later).retry_after(backoff), later);
        assert_eq!(status(503, None).retry_after(backoff), Some(backoff));
        assert_eq!(status(500, later).retry_after(backoff), Some(backoff));
        for code in [400, 401, 403, 404] {
            assert_eq!(status(code, None).retry_after(backoff), None, "{code}");
        }
    }
}
