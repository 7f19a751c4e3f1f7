//! Why a registry did not give what it was asked for, or gave something else.

use std::time::Duration;

use http::StatusCode;

use super::digest::Digest;

/// What went wrong between this host and a server. Which artifact it was about is the caller's to say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{host} is not asked over plain HTTP, which anybody on the way can read and change; \
         --insecure-http {host} allows it"
    )]
    PlainHttp { host: String },
    #[error("{host} cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("{host} sent nothing for {}", humantime::format_duration(*timeout))]
    Silent { host: String, timeout: Duration },
    #[error("{host} has not finished within {}", humantime::format_duration(*timeout))]
    TooSlow { host: String, timeout: Duration },
    #[error("the connection to {host} broke off: {cause}")]
    Broken { host: String, cause: String },
    #[error("{host} redirects more than {limit} times, at last to {url}")]
    Redirects { host: String, limit: usize, url: String },
    #[error("{host} redirects to {url:?}, {problem}")]
    BadRedirect { host: String, url: String, problem: &'static str },
    #[error("{}", status_message(*status, host, said))]
    Status { status: StatusCode, host: String, said: String, retry_after: Option<Duration> },
    #[error("expected {expected}, but {host} sent {came}")]
    Unexpected { host: String, expected: &'static str, came: String },
    #[error("{what} may have {limit} bytes, but {host} sends {came}")]
    TooLarge { what: String, host: String, limit: u64, came: String },
    #[error("{what} has {expected} bytes by the manifest, but {host} sent {came}")]
    Size { what: String, host: String, expected: u64, came: String },
    #[error("{what} should have the digest {expected}, but what {host} sent has {actual}")]
    WrongDigest { what: String, host: String, expected: Digest, actual: Digest },
    #[error("cannot write what {host} sends: {cause}")]
    Write { host: String, cause: std::io::Error },
    #[error("{0}")]
    /// It is on this side.
    Local(String),
}

impl Error {
    /// How long to wait before the same request may succeed; `None`: it will not.
    #[must_use]
    pub fn retry_after(&self, backoff: Duration) -> Option<Duration> {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => Some(backoff),
            Self::Status { status, retry_after, .. } => match status.as_u16() {
                429 | 503 => Some(retry_after.unwrap_or(backoff)),
                408 | 500 | 502 | 504 => Some(backoff),
                _ => None,
            },
            // A server that is silent for the whole timeout is silent the next time too.
            Self::Silent { .. } | Self::TooSlow { .. } => None,
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

fn status_message(status: StatusCode, host: &str, said: &str) -> String {
    let meaning = match status.as_u16() {
        401 => format!(
            "it wants credentials, or other ones: `spinfer registry login {host}` gives them"
        ),
        403 => "these credentials do not allow it".to_owned(),
        404 => "there is no such repository, tag or digest, or it is not shown to this user".into(),
        405 => "it does not allow this: the registry may be read-only".into(),
        413 => "it is larger than the registry takes".into(),
        429 => "it has had too many requests; try again later".into(),
        500.. => "the registry failed; try again later".into(),
        _ => "this is not what a registry sends".into(),
    };
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    format!("{host} sent {status}: {meaning}{said}")
}

/// What a server sent, short and without what a terminal would act on.
#[must_use]
pub fn excerpt(body: &[u8]) -> String {
    /// Characters.
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
    fn an_excerpt_is_short_and_harmless() {
        assert_eq!(excerpt(b"  <html>\n\t<b>\x1b[31mred</b>\0 "), "<html> <b> [31mred</b>");
        assert_eq!(excerpt(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        let long = excerpt("\u{e9}".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), 163);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let backoff = Duration::from_secs(1);
        let status = |code: u16, retry_after| Error::Status {
            status: StatusCode::from_u16(code).unwrap(),
            host: "r.org".into(),
            said: String::new(),
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
