//! Requests to servers that may be slow, lie, or never end: every wait, every size and every redirect has
//! a limit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Response, Url};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::error::{Error, excerpt};
use super::reference::Host;
use crate::http::client_tls;

/// Bytes a second below which a transfer is given up.
pub const MIN_SPEED: u64 = 16 << 10;
/// Redirects followed for one request: a registry sends to its storage, and that to its mirror.
const MAX_REDIRECTS: usize = 5;
/// Bytes read of a response that says why it is an error.
const MAX_ERROR: u64 = 64 << 10;
/// Longest `Retry-After` that is waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// Between one part of a response and the next.
    pub idle: Duration,
    /// For a response that is not content: a manifest, a token.
    pub short: Duration,
    /// Before the second attempt; doubled before the next.
    pub backoff: Duration,
    /// Attempts for one request.
    pub attempts: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            short: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            attempts: 3,
        }
    }
}

/// The way to every server.
#[derive(Clone, Debug)]
pub struct Transport {
    client: Client,
    /// For this machine: no proxy leads to it.
    direct: Client,
    /// Hosts that are asked over plain HTTP, beside this machine.
    plain_http: Arc<[Host]>,
    pub timeouts: Timeouts,
}

/// A request that redirects may be followed for: it has no body.
#[derive(Debug)]
pub struct Get<'a> {
    pub method: Method,
    pub url: Url,
    pub accept: &'a str,
    /// Sent to the host of `url` only, wherever it redirects to.
    pub authorization: Option<HeaderValue>,
}

impl Transport {
    /// `plain_http` are the hosts that may be asked without TLS.
    pub fn new(plain_http: &[Host], timeouts: Timeouts) -> anyhow::Result<Self> {
        let tls = Arc::unwrap_or_clone(client_tls::client()?);
        let builder = || {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("spinfer/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .referer(false)
                .connect_timeout(timeouts.connect)
        };
        Ok(Self {
            client: builder().build().context("cannot make requests")?,
            direct: builder().no_proxy().build().context("cannot make requests")?,
            plain_http: plain_http.into(),
            timeouts,
        })
    }

    /// Where `path` is on `host`.
    pub fn url(&self, host: &Host, path: &str) -> Result<Url, Error> {
        let scheme = if self.allows_plain_http(host) { "http" } else { "https" };
        let url = format!("{scheme}://{}{path}", host.address());
        Url::parse(&url).map_err(|error| Error::Unreachable {
            host: host.to_string(),
            cause: format!("{url}: {error}"),
        })
    }

    fn allows_plain_http(&self, host: &Host) -> bool {
        host.is_loopback() || self.plain_http.contains(host)
    }

    /// Refuses what is neither HTTPS nor plain HTTP to a host that may be asked so.
    pub fn check(&self, url: &Url) -> Result<(), Error> {
        let host = host_of(url);
        match url.scheme() {
            "https" => Ok(()),
            "http" if host.parse().is_ok_and(|host| self.allows_plain_http(&host)) => Ok(()),
            _ => Err(Error::PlainHttp { host }),
        }
    }

    fn client(&self, url: &Url) -> &Client {
        let loopback = host_of(url).parse().is_ok_and(|host: Host| host.is_loopback());
        if loopback { &self.direct } else { &self.client }
    }

    /// Sends a request with a body of `size` bytes, which is not sent anywhere else.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: impl Into<Body>,
        size: u64,
    ) -> Result<Response, Error> {
        self.check(url)?;
        let request = self.client(url).request(method, url.clone()).headers(headers).body(body);
        // The response comes when all of it is sent.
        let limit = self.timeouts.idle + Duration::from_secs(size / MIN_SPEED);
        match timeout(limit, request.send()).await {
            Ok(sent) => sent.map_err(|error| self.failed(url, &error)),
            Err(_) => Err(Error::TooSlow { host: host_of(url), timeout: limit }),
        }
    }

    /// What `waiting` comes to, unless nothing comes for too long.
    async fn soon<T>(
        &self,
        url: &Url,
        waiting: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, Error> {
        match timeout(self.timeouts.idle, waiting).await {
            Ok(done) => done.map_err(|error| self.failed(url, &error)),
            Err(_) => Err(Error::Silent { host: host_of(url), timeout: self.timeouts.idle }),
        }
    }

    /// Sends a request, and follows redirects.
    pub async fn get(&self, get: &Get<'_>) -> Result<Response, Error> {
        let mut url = get.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let mut request = self
                .client(&url)
                .request(get.method.clone(), url.clone())
                .header(header::ACCEPT, get.accept);
            let own = url.origin() == get.url.origin();
            if let Some(authorization) = get.authorization.as_ref().filter(|_| own) {
                request = request.header(header::AUTHORIZATION, authorization.clone());
            }
            let response = self.soon(&url, request.send()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            url = next(&url, response.headers())?;
            debug!(from = %get.url, to = %host_of(&url), "redirected");
        }
        let host = host_of(&get.url);
        Err(Error::Redirects { host, limit: MAX_REDIRECTS, url: without_query(&url) })
    }

    /// The response, if its status is one of success; else what it says.
    pub async fn success(&self, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let host = host_of(response.url());
        let retry_after = retry_after(response.headers());
        let body = self.body(response, "an error", MAX_ERROR).await.unwrap_or_default();
        Err(Error::Status { status, host, said: error_message(&body), retry_after })
    }

    /// The whole body, of `limit` bytes at the most. `what` it is, for people.
    pub async fn body(&self, response: Response, what: &str, limit: u64) -> Result<Bytes, Error> {
        let host = host_of(response.url());
        let reading = self.read(response, what, limit);
        timeout(self.timeouts.short, reading)
            .await
            .unwrap_or(Err(Error::TooSlow { host, timeout: self.timeouts.short }))
    }

    async fn read(&self, mut response: Response, what: &str, limit: u64) -> Result<Bytes, Error> {
        let host = host_of(response.url());
        let too_large = |came: String| Error::TooLarge {
            what: what.to_owned(),
            host: host.clone(),
            limit,
            came,
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

    /// The next part of a body.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        let url = response.url().clone();
        self.soon(&url, response.chunk()).await
    }

    /// Tries again what may succeed the next time.
    pub async fn retry<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut backoff = self.timeouts.backoff;
        let mut left = self.timeouts.attempts;
        loop {
            left = left.saturating_sub(1);
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(pause) = error.retry_after(backoff).filter(|_| left > 0) else {
                return Err(error);
            };
            debug!(%error, ?pause, "trying again");
            sleep(pause.min(MAX_RETRY_AFTER)).await;
            backoff *= 2;
        }
    }

    fn failed(&self, url: &Url, error: &reqwest::Error) -> Error {
        let host = host_of(url);
        let cause = root_cause(error);
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Error::Silent { host, timeout: self.timeouts.connect },
            (true, false) => Error::Unreachable { host, cause },
            (false, _) => Error::Broken { host, cause },
        }
    }
}

/// Where a redirect leads.
fn next(from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let location = headers.get(header::LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let location = String::from_utf8_lossy(location);
    let bad = |problem| Error::BadRedirect {
        host: host_of(from),
        url: excerpt(location.as_bytes()),
        problem,
    };
    let to = from.join(&location).map_err(|_| bad("which is no URL"))?;
    if location.is_empty() {
        return Err(bad("which is nowhere"));
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(bad("from HTTPS to what is not"));
    }
    Ok(to)
}

/// The host of a URL with its port, where that is not the scheme's.
#[must_use]
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A URL as it may be shown: storage signs its URLs in the query.
fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// What went wrong at the bottom of an error, without the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    excerpt(cause.to_string().as_bytes())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What the body of an error says: the first error of a registry's list, or its beginning.
fn error_message(body: &[u8]) -> String {
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return excerpt(body) };
    let first = &json["errors"][0];
    let parts = [first["code"].as_str(), first["message"].as_str()];
    let said: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    excerpt(if said.is_empty() { body.to_vec() } else { said.join(": ").into_bytes() }.as_slice())
}

/// That a body is not what was expected: its type and its beginning.
#[must_use]
pub fn unexpected(host: &str, expected: &'static str, kind: Option<&str>, body: &[u8]) -> Error {
    let kind = excerpt(kind.unwrap_or("something without a type").as_bytes());
    let came = format!("{kind} that begins with {:?}", excerpt(body));
    Error::Unexpected { host: host.to_owned(), expected, came }
}

/// The type of a response's body, without parameters.
#[must_use]
pub fn content_type(response: &Response) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn redirect(from: &str, location: &'static str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_static(location));
        next(&url(from), &headers).map(|url| url.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_redirect_leads_on_but_not_out_of_https() {
        let from = "https://r.org/v2/a";
        assert_eq!(redirect(from, "/b").as_deref(), Ok("https://r.org/b"));
        assert_eq!(redirect(from, "https://s.org/c?d").as_deref(), Ok("https://s.org/c?d"));
        for (location, part) in [
            ("http://r.org/b", "from HTTPS to what is not"),
            ("file:///etc/passwd", "from HTTPS to what is not"),
            ("", "nowhere"),
            ("https://[", "no URL"),
        ] {
            let problem = redirect(from, location).unwrap_err();
            assert!(problem.contains(part), "{location}: {problem}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_and_named_hosts() {
        let named = "lan:5000".parse().unwrap();
        let transport = Transport::new(&[named], Timeouts::default()).unwrap();
        for allowed in
            ["https://r.org/", "http://localhost:1/", "http://127.0.0.1/", "http://lan:5000/a"]
        {
            assert!(transport.check(&url(allowed)).is_ok(), "{allowed}");
        }
        for refused in ["http://r.org/", "http://lan/", "http://lan:5001/", "ftp://localhost/"] {
            let problem = transport.check(&url(refused)).unwrap_err().to_string();
            assert!(problem.contains("--insecure-http"), "{refused}: {problem}");
        }
        let scheme =
            |host: &str| transport.url(&host.parse().unwrap(), "/v2/").unwrap().scheme().to_owned();
        assert_eq!(
            [scheme("r.org"), scheme("lan:5000"), scheme("[::1]:1")],
            ["https", "http", "http"]
        );
    }

    #[test]
    fn what_a_registry_says_is_shown() {
        let envelope = br#"{"errors":[{"code":"DENIED","message":"quota\nexceeded"}]}"#;
        assert_eq!(error_message(envelope), "DENIED: quota exceeded");
        assert_eq!(error_message(b"<html>no</html>"), "<html>no</html>");
        assert_eq!(error_message(br#"{"errors":[]}"#), r#"{"errors":[]}"#);
        assert_eq!(error_message(b""), "");
    }

    fn impatient() -> Transport {
        let soon = Duration::from_millis(100);
        let timeouts = Timeouts {
            connect: soon,
            idle: soon,
            short: soon * 3,
            backoff: Duration::from_millis(1),
            attempts: 3,
        };
        Transport::new(&[], timeouts).unwrap()
    }

    /// A server that sends `head`, and a byte whenever it is `ticking`, until nobody reads.
    fn slow(head: &'static str, ticking: bool) -> Url {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The request.
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            while ticking && stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Until the client gives up.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        url(&format!("http://{address}/"))
    }

    async fn fetch(transport: &Transport, url: Url) -> Result<Bytes, Error> {
        let get = Get { method: Method::GET, url, accept: "*/*", authorization: None };
        let response = transport.success(transport.get(&get).await?).await?;
        transport.body(response, "a manifest", 1 << 20).await
    }

    #[tokio::test]
    async fn a_server_that_is_silent_or_slow_is_given_up() {
        let transport = impatient();
        for (head, ticking, part) in [
            ("", false, "sent nothing for 100ms"),
            ("HTTP/1.1 200 OK\r\n\r\n", false, "sent nothing for 100ms"),
            ("HTTP/1.1 200 OK\r\n\r\n", true, "has not finished within 300ms"),
        ] {
            let problem = fetch(&transport, slow(head, ticking)).await.unwrap_err().to_string();
            assert!(problem.contains(part), "{head:?}: {problem}");
        }
    }

    #[tokio::test]
    async fn a_large_body_may_take_longer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let body = vec![b'x'; 8 << 20];
        let size = body.len();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Longer than it may be silent, with pauses.
            let (mut came, mut part) = (0, vec![0; size / 8]);
            while came < size {
                came += stream.read(&mut part).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let at = url(&format!("http://{address}/"));
        let transport = impatient();
        let sending = transport.send(Method::PUT, &at, HeaderMap::new(), body, size as u64);
        assert_eq!(sending.await.unwrap().status(), http::StatusCode::CREATED);
    }

    #[tokio::test]
    async fn attempts_are_limited() {
        let transport = impatient();
        let mut attempts = 0;
        let failing = transport.retry(async || {
            attempts += 1;
            Err::<(), _>(Error::Broken { host: "r.org".into(), cause: "again".into() })
        });
        assert!(failing.await.is_err());
        assert_eq!(attempts, 3);
    }
}
