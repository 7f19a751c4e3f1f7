//! HTTP client of a tracking server, with limits on time, size and redirects. Credentials are sent to
//! that server only.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::MlflowError;
use super::settings::{MlflowCredentials, MlflowSettings};
use crate::http::client_tls;

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a JSON response, in bytes: a run has an entry per metric, parameter and tag.
const MAX_JSON: u64 = 16 << 20;
/// Maximum number of redirects: a proxy in front of the server causes one or two.
const MAX_REDIRECTS: usize = 5;
/// Maximum length of an error message from the server, in characters.
const MAX_MESSAGE: usize = 300;
/// Minimum number of bytes received per timeout; slower downloads time out, so that a server cannot
/// hold one open by sending single bytes.
const MIN_PROGRESS: u64 = 16 << 10;

/// The client of a tracking server.
pub struct MlflowClient {
    http: reqwest::Client,
    base: Url,
    credentials: MlflowCredentials,
    timeout: Duration,
}

impl fmt::Debug for MlflowClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

impl MlflowClient {
    pub fn new(settings: MlflowSettings) -> Result<Self> {
        let MlflowSettings { base, credentials, timeout } = settings;
        let tls = client_tls::client()?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .user_agent(concat!("spinfer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .read_timeout(timeout)
            .redirect(Policy::custom(redirect))
            .build()
            .context("a client for the tracking server")?;
        Ok(Self { http, base, credentials, timeout })
    }

    /// URL of the server, without user and password.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The URL of `segments` on this server, with `query`.
    pub fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Url> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(segments),
            Err(()) => bail!("{}: not the URL of a server", self.base),
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Requests `url` and parses the JSON response.
    pub async fn json<T: DeserializeOwned>(&self, url: Url) -> Result<T, MlflowError> {
        let response = self.get(url.clone()).await?;
        let kind = content_type(&response);
        let mut body = Vec::new();
        let append = |bytes: &[u8]| {
            body.extend_from_slice(bytes);
            Ok(())
        };
        self.receive(&url, response, MAX_JSON, append).await?;
        serde_json::from_slice(&body).map_err(|problem| {
            let what = format!("{kind}, not MLflow's JSON ({problem}): {}", excerpt(&body));
            MlflowError::NotMlflow { url: url.to_string(), what }
        })
    }

    /// Downloads at most `limit` bytes from `url`. `begin` receives the size, if known, and `take` each
    /// part of the body.
    pub async fn download(
        &self,
        url: Url,
        limit: u64,
        begin: impl FnOnce(Option<u64>),
        take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), MlflowError> {
        let response = self.get(url.clone()).await?;
        let kind = content_type(&response);
        if kind.starts_with("text/html") {
            let what = format!("{kind}, not a file, perhaps a login page");
            return Err(MlflowError::NotMlflow { url: url.to_string(), what });
        }
        begin(response.content_length());
        self.receive(&url, response, limit, take).await
    }

    /// Sends a GET request; a status other than success is an error.
    async fn get(&self, url: Url) -> Result<Response, MlflowError> {
        let mut request = self.http.get(url.clone()).header(ACCEPT, "*/*");
        request = match &self.credentials {
            MlflowCredentials::None => request,
            MlflowCredentials::Basic { username, password } => {
                request.basic_auth(username, Some(password))
            }
            MlflowCredentials::Bearer(token) => request.bearer_auth(token),
        };
        let response = request.send().await.map_err(|error| self.failed(&url, error))?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(self.refused(&url, response).await) }
    }

    /// Passes the body to `take`, at most `limit` bytes.
    async fn receive(
        &self,
        url: &Url,
        mut response: Response,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), MlflowError> {
        let expected = response.content_length();
        let too_large = || MlflowError::TooLarge { url: url.to_string(), limit };
        if expected.is_some_and(|expected| expected > limit) {
            return Err(too_large());
        }
        let mut received = 0_u64;
        let mut window = (Instant::now(), 0_u64);
        loop {
            let part = match response.chunk().await {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(()),
                Err(error) if error.is_timeout() => {
                    return Err(MlflowError::Timeout {
                        url: url.to_string(),
                        waited: self.timeout,
                    });
                }
                Err(error) => {
                    let problem = cause(&error);
                    let url = url.to_string();
                    return Err(MlflowError::Incomplete { url, received, expected, problem });
                }
            };
            received = received.saturating_add(part.len() as u64);
            if received > limit {
                return Err(too_large());
            }
            take(&part)?;
            if window.0.elapsed() > self.timeout {
                if received - window.1 < MIN_PROGRESS {
                    return Err(MlflowError::Timeout {
                        url: url.to_string(),
                        waited: self.timeout,
                    });
                }
                window = (Instant::now(), received);
            }
        }
    }

    fn failed(&self, url: &Url, error: reqwest::Error) -> MlflowError {
        let url = url.to_string();
        if error.is_timeout() && !error.is_connect() {
            return MlflowError::Timeout { url, waited: self.timeout };
        }
        let error = error.without_url();
        MlflowError::Unreachable { url, problem: cause(&error) }
    }

    /// The error for a response whose status is not a success.
    async fn refused(&self, url: &Url, response: Response) -> MlflowError {
        let (status, kind) = (response.status(), content_type(&response));
        let mut body = Vec::new();
        let append = |bytes: &[u8]| {
            body.extend_from_slice(bytes);
            Ok(())
        };
        // An incomplete body is used too: the status matters more than the message.
        let _ = self.receive(url, response, MAX_JSON, append).await;
        let error: Option<ErrorResponse> = serde_json::from_slice(&body).ok();
        let url = url.to_string();
        let is_html = kind.starts_with("text/html");
        let message = match &error {
            Some(error) => shorten(error.message.trim_end_matches('.')),
            None if is_html => String::new(),
            None => excerpt(&body),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => MlflowError::Unauthorized {
                url,
                status: status.as_u16(),
                message,
                sent: self.credentials != MlflowCredentials::None,
            },
            _ if error.as_ref().is_some_and(|error| error.is_missing(status)) => {
                MlflowError::NotFound { url, message }
            }
            StatusCode::NOT_FOUND => {
                MlflowError::NotMlflow { url, what: format!("status {status}, {kind}") }
            }
            _ => MlflowError::Status { url, status: status.as_u16(), message },
        }
    }
}

/// MLflow's error response.
#[derive(Deserialize)]
struct ErrorResponse {
    error_code: serde_json::Value,
    #[serde(default)]
    message: String,
}

impl ErrorResponse {
    /// Whether the requested item does not exist. MLflow reports a missing alias as an invalid parameter.
    fn is_missing(&self, status: StatusCode) -> bool {
        let code = self.error_code.as_str().unwrap_or_default();
        status == StatusCode::NOT_FOUND
            || code == "RESOURCE_DOES_NOT_EXIST"
            || code == "INVALID_PARAMETER_VALUE" && self.message.contains("not found")
    }
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last();
    if from.is_some_and(|from| from.scheme() == "https" && attempt.url().scheme() != "https") {
        return attempt.error("redirected from https to http");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
    }
    attempt.follow()
}

fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.map_or_else(|| "without a content type".to_owned(), shorten)
}

/// The innermost cause of an error.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    shorten(&cause.to_string())
}

/// The start of a body, as one line of text.
fn excerpt(body: &[u8]) -> String {
    if body.is_empty() {
        "an empty body".to_owned()
    } else {
        shorten(&String::from_utf8_lossy(body))
    }
}

/// `text` on one line, shortened and without control characters.
fn shorten(text: &str) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.retain(|c| !c.is_control());
    match words.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_the_prefix_of_the_server_and_escape_segments_and_parameters() {
        let base = Url::parse("http://a:1/ml%20flow/").unwrap();
        let timeout = Duration::from_secs(1);
        let client = MlflowClient::new(MlflowSettings {
            base,
            credentials: MlflowCredentials::None,
            timeout,
        })
        .unwrap();
        let url = client.url(&["x", "a b/%#?"], &[("name", "i&r=s")]).unwrap();
        assert_eq!(url.as_str(), "http://a:1/ml%20flow/x/a%20b%2F%25%23%3F?name=i%26r%3Ds");
    }

    #[test]
    fn server_messages_are_shortened_to_one_line() {
        assert_eq!(shorten("a\n b\u{1b}[31m\tc"), "a b[31m c");
        assert_eq!(shorten(&"é".repeat(400)), format!("{}...", "é".repeat(300)));
    }
}
