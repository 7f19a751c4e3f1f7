//! HTTP requests to untrusted servers, with limits on time, size and redirects.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Response, Url};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::error::{OciError, excerpt};
use super::reference::RegistryHost;
use crate::http::client_tls;

/// Minimum speed of a transfer, in bytes per second; slower ones time out.
pub const MIN_SPEED: u64 = 16 << 10;
/// Maximum number of redirects of one request: from a registry to its storage, and to a mirror.
const MAX_REDIRECTS: usize = 5;
/// Maximum delay before a retry, whatever `Retry-After` requests.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Timeouts and retries of requests.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Timeout of a connection attempt.
    pub connect: Duration,
    /// Maximum time between two parts of a response.
    pub idle: Duration,
    /// Maximum duration of a small response, such as a manifest or a token.
    pub short: Duration,
    /// Delay before the first retry; doubled for each further one.
    pub backoff: Duration,
    /// Maximum number of attempts of one request.
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

/// The HTTP client for all servers.
#[derive(Clone, Debug)]
pub struct Transport {
    client: Client,
    /// Client for loopback addresses, which are not reached through a proxy.
    direct: Client,
    /// Hosts reached over plain HTTP, in addition to loopback addresses.
    plain_http: Arc<[RegistryHost]>,
    pub timeouts: Timeouts,
}

/// A request without a body, which follows redirects.
#[derive(Debug)]
pub struct Get<'a> {
    pub method: Method,
    pub url: Url,
    pub accept: &'a str,
    /// Sent to the origin of `url` only, not to redirect targets.
    pub authorization: Option<HeaderValue>,
}

impl Transport {
    /// A client; `plain_http` are the hosts reached without TLS.
    ///
    /// # Errors
    /// If the certificates to trust cannot be loaded.
    pub fn new(plain_http: &[RegistryHost], timeouts: Timeouts) -> anyhow::Result<Self> {
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
            client: builder().build().context("cannot create the HTTP client")?,
            direct: builder().no_proxy().build().context("cannot create the HTTP client")?,
            plain_http: plain_http.into(),
            timeouts,
        })
    }

    /// The URL of `path` on `host`.
    pub fn url(&self, host: &RegistryHost, path: &str) -> Result<Url, OciError> {
        let scheme = if self.allows_plain_http(host) { "http" } else { "https" };
        let url = format!("{scheme}://{}{path}", host.address());
        Url::parse(&url).map_err(|error| OciError::Unreachable {
            host: host.to_string(),
            cause: format!("{url}: {error}"),
        })
    }

    fn allows_plain_http(&self, host: &RegistryHost) -> bool {
        host.is_loopback() || self.plain_http.contains(host)
    }

    /// Refuses URLs other than HTTPS, or plain HTTP to a host that allows it.
    pub fn check(&self, url: &Url) -> Result<(), OciError> {
        let host = host_of(url);
        match url.scheme() {
            "https" => Ok(()),
            "http" if host.parse().is_ok_and(|host| self.allows_plain_http(&host)) => Ok(()),
            _ => Err(OciError::PlainHttp { host }),
        }
    }

    fn client(&self, url: &Url) -> &Client {
        let loopback = host_of(url).parse().is_ok_and(|host: RegistryHost| host.is_loopback());
        if loopback { &self.direct } else { &self.client }
    }

    /// Sends a request with a body of `size` bytes, without following redirects.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: impl Into<Body>,
        size: u64,
    ) -> Result<Response, OciError> {
        self.check(url)?;
        let request = self.client(url).request(method, url.clone()).headers(headers).body(body);
        // The response arrives only after the whole body was sent.
        let limit = self.timeouts.idle + Duration::from_secs(size / MIN_SPEED);
        match timeout(limit, request.send()).await {
            Ok(sent) => sent.map_err(|error| self.failed(url, &error)),
            Err(_) => Err(OciError::TooSlow { host: host_of(url), timeout: limit }),
        }
    }

    /// Awaits `part` for at most the idle timeout.
    pub(super) async fn within_idle_timeout<T>(
        &self,
        url: &Url,
        part: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, OciError> {
        match timeout(self.timeouts.idle, part).await {
            Ok(done) => done.map_err(|error| self.failed(url, &error)),
            Err(_) => {
                Err(OciError::IdleTimeout { host: host_of(url), timeout: self.timeouts.idle })
            }
        }
    }

    /// Sends a request and follows redirects.
    pub async fn get(&self, get: &Get<'_>) -> Result<Response, OciError> {
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
            let response = self.within_idle_timeout(&url, request.send()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            url = redirect_target(&url, response.headers())?;
            debug!(from = %without_query(&get.url), to = %host_of(&url), "redirected");
        }
        let host = host_of(&get.url);
        Err(OciError::Redirects { host, limit: MAX_REDIRECTS, url: without_query(&url) })
    }

    /// Retries an attempt that failed with a transient error.
    pub async fn retry<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, OciError>,
    ) -> Result<T, OciError> {
        let mut backoff = self.timeouts.backoff;
        let mut remaining = self.timeouts.attempts;
        loop {
            remaining = remaining.saturating_sub(1);
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(delay) = error.retry_after(backoff).filter(|_| remaining > 0) else {
                return Err(error);
            };
            debug!(%error, ?delay, "request failed, retrying");
            sleep(delay.min(MAX_RETRY_AFTER)).await;
            backoff *= 2;
        }
    }

    fn failed(&self, url: &Url, error: &reqwest::Error) -> OciError {
        let host = host_of(url);
        let cause = root_cause(error);
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => OciError::IdleTimeout { host, timeout: self.timeouts.connect },
            (true, false) => OciError::Unreachable { host, cause },
            (false, _) => OciError::ConnectionLost { host, cause },
        }
    }
}

/// The target of a redirect.
fn redirect_target(from: &Url, headers: &HeaderMap) -> Result<Url, OciError> {
    let location = headers.get(header::LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let location = String::from_utf8_lossy(location);
    // Without the query, as in `without_query`: it may be no URL.
    let shown = location.split(['?', '#']).next().unwrap_or_default();
    let invalid = |problem| OciError::BadRedirect {
        host: host_of(from),
        url: excerpt(shown.as_bytes()),
        problem,
    };
    let to = from.join(&location).map_err(|_| invalid("which is not a URL"))?;
    if location.is_empty() {
        return Err(invalid("which is empty"));
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(invalid("which is not HTTPS"));
    }
    Ok(to)
}

/// The host of a URL, with its port unless it is the default one.
#[must_use]
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A URL to show, without its query, which may contain a signature.
#[must_use]
pub fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// The innermost cause of an error, without the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    excerpt(cause.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use bytes::Bytes;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn redirect(from: &str, location: &'static str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_static(location));
        redirect_target(&url(from), &headers).map(|url| url.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn redirects_from_https_to_other_schemes_are_refused() {
        let from = "https://r.org/v2/a";
        assert_eq!(redirect(from, "/b").as_deref(), Ok("https://r.org/b"));
        assert_eq!(redirect(from, "https://s.org/c?d").as_deref(), Ok("https://s.org/c?d"));
        for (location, part) in [
            ("http://r.org/b", "which is not HTTPS"),
            ("http://r.org/b?signature=hush", "which is not HTTPS"),
            ("https://[?signature=hush", "which is not a URL"),
            ("file:///etc/passwd", "which is not HTTPS"),
            ("", "which is empty"),
            ("https://[", "which is not a URL"),
        ] {
            let problem = redirect(from, location).unwrap_err();
            assert!(problem.contains(part), "{location}: {problem}");
            assert!(!problem.contains("hush"), "a signature is not shown: {problem}");
        }
    }

    #[test]
    fn plain_http_is_limited_to_loopback_and_allowed_hosts() {
        let allowed = "lan:5000".parse().unwrap();
        let transport = Transport::new(&[allowed], Timeouts::default()).unwrap();
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

    fn with_short_timeouts() -> Transport {
        let short = Duration::from_millis(100);
        let timeouts = Timeouts {
            connect: short,
            idle: short,
            short: short * 3,
            backoff: Duration::from_millis(1),
            attempts: 3,
        };
        Transport::new(&[], timeouts).unwrap()
    }

    /// A server that sends `head`, and then, if it is `dripping`, a byte every 20 ms.
    fn slow(head: &'static str, dripping: bool) -> Url {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The request.
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            while dripping && stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Waits until the client closes the connection.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        url(&format!("http://{address}/"))
    }

    async fn fetch(transport: &Transport, url: Url) -> Result<Bytes, OciError> {
        let get = Get { method: Method::GET, url, accept: "*/*", authorization: None };
        let response = transport.success(transport.get(&get).await?).await?;
        transport.body(response, "a manifest", 1 << 20).await
    }

    #[tokio::test]
    async fn silent_and_slow_servers_time_out() {
        let transport = with_short_timeouts();
        for (head, dripping, part) in [
            ("", false, "sent no data for 100ms"),
            ("HTTP/1.1 200 OK\r\n\r\n", false, "sent no data for 100ms"),
            ("HTTP/1.1 200 OK\r\n\r\n", true, "did not finish within 300ms"),
        ] {
            let problem = fetch(&transport, slow(head, dripping)).await.unwrap_err().to_string();
            assert!(problem.contains(part), "{head:?}: {problem}");
        }
    }

    #[tokio::test]
    async fn large_body_extends_the_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let body = vec![b'x'; 8 << 20];
        let size = body.len();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Reads for longer than the idle timeout, with pauses.
            let (mut received, mut part) = (0, vec![0; size / 8]);
            while received < size {
                received += stream.read(&mut part).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let at = url(&format!("http://{address}/"));
        let transport = with_short_timeouts();
        let sending = transport.send(Method::PUT, &at, HeaderMap::new(), body, size as u64);
        assert_eq!(sending.await.unwrap().status(), http::StatusCode::CREATED);
    }

    #[tokio::test]
    async fn attempts_are_limited() {
        let transport = with_short_timeouts();
        let mut attempts = 0;
        let failing = transport.retry(async || {
            attempts += 1;
            Err::<(), _>(OciError::ConnectionLost { host: "r.org".into(), cause: "again".into() })
        });
        assert!(failing.await.is_err());
        assert_eq!(attempts, 3);
    }
}
