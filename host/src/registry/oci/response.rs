//! Reads responses: bounded in size and time, with the digest of content verified.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use reqwest::Response;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::digest::Digest;
use super::error::{OciError, excerpt};
use super::progress::Transfer;
use super::transport::{MIN_SPEED, Transport, host_of};

/// Maximum size of an error response, in bytes.
const MAX_ERROR: u64 = 64 << 10;

/// The content expected in a response.
#[derive(Debug)]
pub struct ExpectedContent<'a> {
    /// Name of the content in messages.
    pub what: &'a str,
    /// Size in bytes, if known.
    pub size: Option<u64>,
    /// Maximum size, in bytes.
    pub limit: u64,
    pub digest: Digest,
}

/// Destination of fetched content.
pub trait Sink: Write {
    /// Discards what was written, before a retry.
    fn restart(&mut self) -> std::io::Result<()>;
}

impl Sink for std::fs::File {
    fn restart(&mut self) -> std::io::Result<()> {
        self.set_len(0)?;
        self.seek(SeekFrom::Start(0)).map(drop)
    }
}

impl Sink for Vec<u8> {
    fn restart(&mut self) -> std::io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Transport {
    /// The response if its status is a success, otherwise an error with its message.
    pub async fn success(&self, response: Response) -> Result<Response, OciError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let host = host_of(response.url());
        let retry_after = retry_after(response.headers());
        let body = self.body(response, "an error", MAX_ERROR).await.unwrap_or_default();
        Err(OciError::Status { status, host, message: error_message(&body), retry_after })
    }

    /// The whole body, at most `limit` bytes. `what` names it in messages.
    pub async fn body(
        &self,
        response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, OciError> {
        let host = host_of(response.url());
        let reading = self.read(response, what, limit);
        timeout(self.timeouts.short, reading)
            .await
            .unwrap_or(Err(OciError::TooSlow { host, timeout: self.timeouts.short }))
    }

    async fn read(
        &self,
        mut response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, OciError> {
        let host = host_of(response.url());
        let too_large = |received: String| OciError::TooLarge {
            what: what.to_owned(),
            host: host.clone(),
            limit,
            received,
        };
        if let Some(length) = response.content_length().filter(|&length| length > limit) {
            return Err(too_large(format!("{length}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(too_large("more".into()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// Writes the body of a response, which must be the expected `content`, into `sink`.
    pub async fn content(
        &self,
        response: Response,
        content: &ExpectedContent<'_>,
        sink: &mut impl Sink,
        transfer: Transfer,
    ) -> Result<(), OciError> {
        let host = host_of(response.url());
        let limit = self.timeouts.short + Duration::from_secs(content.limit / MIN_SPEED);
        let writing = self.write(response, content, sink, &transfer);
        timeout(limit, writing).await.unwrap_or(Err(OciError::TooSlow { host, timeout: limit }))?;
        transfer.finish();
        Ok(())
    }

    async fn write(
        &self,
        mut response: Response,
        content: &ExpectedContent<'_>,
        sink: &mut impl Sink,
        transfer: &Transfer,
    ) -> Result<(), OciError> {
        let ExpectedContent { what, size, limit, digest: expected } = *content;
        let host = host_of(response.url());
        let wrong_size = |received: String| {
            let (what, host) = (what.to_owned(), host.clone());
            match size {
                Some(expected) => OciError::Size { what, host, expected, received },
                None => OciError::TooLarge { what, host, limit, received },
            }
        };
        let is_wrong = |bytes: u64| size.map_or(bytes > limit, |size| bytes != size);
        if let Some(length) = response.content_length().filter(|&length| is_wrong(length)) {
            return Err(wrong_size(length.to_string()));
        }
        let failed = |cause| OciError::Write { host: host.clone(), cause };
        sink.restart().map_err(failed)?;
        let (mut hasher, mut received) = (Sha256::new(), 0_u64);
        while let Some(chunk) = self.chunk(&mut response).await? {
            received += chunk.len() as u64;
            if received > limit {
                return Err(wrong_size("more".into()));
            }
            hasher.update(&chunk);
            sink.write_all(&chunk).map_err(failed)?;
            transfer.set_position(received);
        }
        if is_wrong(received) {
            return Err(wrong_size(received.to_string()));
        }
        let actual = Digest::finish(hasher);
        if actual != expected {
            return Err(OciError::WrongDigest { what: what.to_owned(), host, expected, actual });
        }
        Ok(())
    }

    /// The next part of a body.
    async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, OciError> {
        let url = response.url().clone();
        self.within_idle_timeout(&url, response.chunk()).await
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The message of an error response: the first error of a registry's list, or the start of the body.
fn error_message(body: &[u8]) -> String {
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return excerpt(body) };
    let first = &json["errors"][0];
    let parts = [first["code"].as_str(), first["message"].as_str()];
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { excerpt(body) } else { excerpt(parts.join(": ").as_bytes()) }
}

/// The error for a body of an unexpected kind, with its type and start.
#[must_use]
pub fn unexpected(host: &str, expected: &'static str, kind: Option<&str>, body: &[u8]) -> OciError {
    let kind = excerpt(kind.unwrap_or("a body without a content type").as_bytes());
    let received = format!("{kind} that starts with {:?}", excerpt(body));
    OciError::Unexpected { host: host.to_owned(), expected, received }
}

/// The content type of a response, without parameters.
#[must_use]
pub fn content_type(response: &Response) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_message_of_the_registry_is_shown() {
        let envelope = br#"{"errors":[{"code":"DENIED","message":"quota\nexceeded"}]}"#;
        assert_eq!(error_message(envelope), "DENIED: quota exceeded");
        assert_eq!(error_message(b"<html>no</html>"), "<html>no</html>");
        assert_eq!(error_message(br#"{"errors":[]}"#), r#"{"errors":[]}"#);
        assert_eq!(error_message(b""), "");
    }
}
