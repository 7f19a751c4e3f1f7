//! Requests to a tracking server: bounded in time, size and redirects, and signed in to that server
//! alone.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::settings::{Credentials, Settings};
use crate::http::client_tls;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response in JSON, in bytes: a run has a line for each metric, parameter and tag.
const MAX_JSON: u64 = 16 << 20;
/// Redirects that are followed: a proxy in front of the server makes one or two.
const MAX_REDIRECTS: usize = 5;
/// How much of an error's text is shown, in characters.
const MAX_MESSAGE: usize = 300;
/// A download that brings fewer bytes than this within the timeout is given up: a server may send one
/// byte now and then for ever.
const MIN_PROGRESS: u64 = 16 << 10;

/// A tracking server.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    credentials: Credentials,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

impl Client {
    pub fn new(settings: Settings) -> Result<Self> {
        let Settings { base, credentials, timeout } = settings;
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

    /// The server, without user and password.
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

    /// The response of `url` in JSON.
    pub async fn json<T: DeserializeOwned>(&self, url: Url) -> Result<T, Error> {
        let response = self.get(url.clone()).await?;
        let kind = content_type(&response);
        let mut body = Vec::new();
        let take = |bytes: &[u8]| {
            body.extend_from_slice(bytes);
            Ok(())
        };
        self.receive(&url, response, MAX_JSON, take).await?;
        serde_json::from_slice(&body).map_err(|problem| {
            let what = format!("{kind}, not the JSON of MLflow ({problem}): {}", excerpt(&body));
            Error::NotMlflow { url: url.to_string(), what }
        })
    }

    /// Downloads `url`, of at most `limit` bytes: `begin` is given its size, if the server says it, and
    /// `take` each part as it comes.
    pub async fn download(
        &self,
        url: Url,
        limit: u64,
        begin: impl FnOnce(Option<u64>),
        take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let response = self.get(url.clone()).await?;
        let kind = content_type(&response);
        if kind.starts_with("text/html") {
            let what = format!("{kind}, not a file: a page to sign in, perhaps");
            return Err(Error::NotMlflow { url: url.to_string(), what });
        }
        begin(response.content_length());
        self.receive(&url, response, limit, take).await
    }

    /// A response of success; any other is an error.
    async fn get(&self, url: Url) -> Result<Response, Error> {
        let mut request = self.http.get(url.clone()).header(ACCEPT, "*/*");
        request = match &self.credentials {
            Credentials::None => request,
            Credentials::Basic { username, password } => {
                request.basic_auth(username, Some(password))
            }
            Credentials::Bearer(token) => request.bearer_auth(token),
        };
        let response = request.send().await.map_err(|error| self.failed(&url, error))?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(self.refused(&url, response).await) }
    }

    /// Takes the body, as long as it should be and no longer.
    async fn receive(
        &self,
        url: &Url,
        mut response: Response,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let expected = response.content_length();
        let too_large = || Error::TooLarge { url: url.to_string(), limit };
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
                    return Err(Error::Timeout { url: url.to_string(), waited: self.timeout });
                }
                Err(error) => {
                    let problem = cause(&error);
                    let url = url.to_string();
                    return Err(Error::Incomplete { url, received, expected, problem });
                }
            };
            received = received.saturating_add(part.len() as u64);
            if received > limit {
                return Err(too_large());
            }
            take(&part)?;
            if window.0.elapsed() > self.timeout {
                if received - window.1 < MIN_PROGRESS {
                    return Err(Error::Timeout { url: url.to_string(), waited: self.timeout });
                }
                window = (Instant::now(), received);
            }
        }
    }

    fn failed(&self, url: &Url, error: reqwest::Error) -> Error {
        let url = url.to_string();
        if error.is_timeout() && !error.is_connect() {
            return Error::Timeout { url, waited: self.timeout };
        }
        let error = error.without_url();
        Error::Unreachable { url, problem: cause(&error) }
    }

    /// What a response that is none of success says.
    async fn refused(&self, url: &Url, response: Response) -> Error {
        let (status, kind) = (response.status(), content_type(&response));
        let mut body = Vec::new();
        let take = |bytes: &[u8]| {
            body.extend_from_slice(bytes);
            Ok(())
        };
        // What came of it is shown: the status matters more than its text.
        let _ = self.receive(url, response, MAX_JSON, take).await;
        let said: Option<Said> = serde_json::from_slice(&body).ok();
        let url = url.to_string();
        let is_html = kind.starts_with("text/html");
        let message = match &said {
            Some(said) => shorten(said.message.trim_end_matches('.')),
            None if is_html => String::new(),
            None => excerpt(&body),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized {
                url,
                status: status.as_u16(),
                message,
                sent: self.credentials != Credentials::None,
            },
            _ if said.as_ref().is_some_and(|said| said.is_missing(status)) => {
                Error::NotFound { url, message }
            }
            StatusCode::NOT_FOUND => {
                Error::NotMlflow { url, what: format!("status {status}, {kind}") }
            }
            _ => Error::Status { url, status: status.as_u16(), message },
        }
    }
}

/// MLflow's error.
#[derive(Deserialize)]
struct Said {
    error_code: serde_json::Value,
    #[serde(default)]
    message: String,
}

impl Said {
    /// An alias that is not there is a parameter that is not valid.
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
    value.map_or_else(|| "of no content type".to_owned(), shorten)
}

/// The innermost cause: what the system says.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    shorten(&cause.to_string())
}

/// The start of a body, as one line of text.
fn excerpt(body: &[u8]) -> String {
    if body.is_empty() { "nothing".to_owned() } else { shorten(&String::from_utf8_lossy(body)) }
}

/// One line, without what a terminal obeys.
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
    fn urls_keep_the_servers_prefix_and_escape_what_is_asked() {
        let base = Url::parse("http://a:1/ml%20flow/").unwrap();
        let timeout = Duration::from_secs(1);
        let client =
            Client::new(Settings { base, credentials: Credentials::None, timeout }).unwrap();
        let url = client.url(&["x", "a b/%#?"], &[("name", "i&r=s")]).unwrap();
        assert_eq!(url.as_str(), "http://a:1/ml%20flow/x/a%20b%2F%25%23%3F?name=i%26r%3Ds");
    }

    #[test]
    fn text_of_a_server_is_one_short_line() {
        assert_eq!(shorten("a\n b\u{1b}[31m\tc"), "a b[31m c");
        assert_eq!(shorten(&"é".repeat(400)), format!("{}...", "é".repeat(300)));
    }
}
