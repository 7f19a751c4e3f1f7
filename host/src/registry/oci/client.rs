//! One repository of a registry: the distribution API, as far as artifacts need it.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Body, Response, Url};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::auth::{self, Scope};
use super::credentials::Credentials;
use super::digest::Digest;
use super::error::Error;
use super::manifest::{Descriptor, INDEX, MANIFEST, MAX_MANIFEST, Manifest};
use super::progress::{Progress, Transfer};
use super::reference::Host;
use super::transport::{Get, MIN_SPEED, Transport, content_type, host_of, unexpected};

/// What a registry says the digest of a response is.
const DIGEST_HEADER: &str = "docker-content-digest";
/// Of content that has no type here.
const OCTETS: &str = "application/octet-stream";
/// Bytes that are read of a file to be sent at a time.
const PART: usize = 64 << 10;

/// A repository, and how requests to it are authorized.
#[derive(Debug)]
pub struct Repository<'a> {
    transport: &'a Transport,
    host: Host,
    name: String,
    credentials: Option<Credentials>,
    scope: Scope,
    /// What the registry took last.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest that was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub manifest: Manifest,
    pub digest: Digest,
}

/// Where content is written that is fetched; from its beginning again, if an attempt fails.
pub trait Sink: Write {
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

/// Content to be sent.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

impl<'a> Repository<'a> {
    #[must_use]
    pub fn new(
        transport: &'a Transport,
        host: &Host,
        name: &str,
        credentials: Option<Credentials>,
        scope: Scope,
    ) -> Self {
        let (host, name) = (host.clone(), name.to_owned());
        Self { transport, host, name, credentials, scope, authorization: Mutex::default() }
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.transport.url(&self.host, &format!("/v2/{}/{path}", self.name))
    }

    /// The manifest under a tag or a digest.
    pub async fn manifest(&self, selector: &str) -> Result<Fetched, Error> {
        let url = self.url(&format!("manifests/{selector}"))?;
        self.transport.retry(async || self.fetch_manifest(&url, selector).await).await
    }

    async fn fetch_manifest(&self, url: &Url, selector: &str) -> Result<Fetched, Error> {
        let response = self.get(Method::GET, url, &format!("{MANIFEST}, {INDEX}")).await?;
        let response = self.transport.success(response).await?;
        let host = host_of(response.url());
        let kind = content_type(&response);
        let said = response.headers().get(DIGEST_HEADER).cloned();
        let body = self.transport.body(response, "a manifest", MAX_MANIFEST).await?;
        let digest = Digest::of(&body);
        let said = said.as_ref().and_then(|said| said.to_str().ok());
        // Other algorithms than ours may be named; what is named by ours has to be right.
        let expected = [Some(selector), said].into_iter().flatten().filter_map(|d| d.parse().ok());
        for expected in expected {
            if digest != expected {
                let what = "the manifest".into();
                return Err(Error::WrongDigest { what, host, expected, actual: digest });
            }
        }
        let manifest = Manifest::parse(&body).map_err(|problem| {
            if serde_json::from_slice::<serde_json::Value>(&body).is_ok() {
                let came = format!("another: {problem}");
                return Error::Unexpected { host: host.clone(), expected: "an OCI manifest", came };
            }
            unexpected(&host, "an OCI manifest (JSON)", kind.as_deref(), &body)
        })?;
        Ok(Fetched { manifest, digest })
    }

    /// The digest of what is under a tag, if there is something.
    pub async fn tagged(&self, tag: &str) -> Result<Option<Digest>, Error> {
        match self.manifest(tag).await {
            Ok(fetched) => Ok(Some(fetched.digest)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the content `descriptor` describes, of `limit` bytes at the most, into `sink`.
    pub async fn blob(
        &self,
        descriptor: &Descriptor,
        what: &str,
        limit: u64,
        sink: &mut impl Sink,
        progress: Progress,
    ) -> Result<(), Error> {
        let Descriptor { digest, size, .. } = *descriptor;
        if size > limit {
            let (what, host) = (what.to_owned(), self.host.to_string());
            return Err(Error::TooLarge { what, host, limit, came: size.to_string() });
        }
        let url = self.url(&format!("blobs/{digest}"))?;
        let label = format!("fetched {what}");
        self.transport
            .retry(async || {
                let response = self.get(Method::GET, &url, OCTETS).await?;
                let response = self.transport.success(response).await?;
                let wanted = Wanted { what, size: Some(size), limit: size, digest };
                let transfer = progress.transfer(&label, size);
                self.transport.content(response, &wanted, sink, transfer).await
            })
            .await
    }

    /// Whether the repository has some content already.
    async fn has(&self, digest: Digest) -> Result<bool, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.get(Method::HEAD, &url, OCTETS).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.transport.success(response).await?;
        Ok(true)
    }

    /// Sends content, unless the repository has it.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        what: &str,
        content: Content<'_>,
        progress: Progress,
    ) -> Result<(), Error> {
        let Descriptor { digest, size, .. } = *descriptor;
        let has = self.transport.retry(async || self.has(digest).await).await?;
        if has {
            progress.line(&format!("  {what} is there already"));
            return Ok(());
        }
        let transfer = progress.transfer(&format!("pushed {what}"), size);
        self.transport.retry(async || self.upload(digest, size, content).await).await?;
        transfer.done();
        Ok(())
    }

    async fn upload(&self, digest: Digest, size: u64, content: Content<'_>) -> Result<(), Error> {
        let begin = self.url("blobs/uploads/")?;
        let response = self.send(Method::POST, &begin, HeaderMap::new(), Vec::new()).await?;
        let response = self.transport.success(response).await?;
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let url = location.and_then(|location| response.url().join(location).ok());
        let Some(mut url) = url else {
            return Err(Error::Unexpected {
                host: self.host.to_string(),
                expected: "the place to upload to (Location)",
                came: "none".into(),
            });
        };
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        headers.insert(header::CONTENT_LENGTH, size.into());
        let body = match content {
            Content::Bytes(bytes) => Body::from(bytes.to_vec()),
            Content::File(path) => file_body(path, size).map_err(|cause| {
                Error::Local(format!("{}: cannot be read: {cause}", path.display()))
            })?,
        };
        let response = self.authorized_once(Method::PUT, &url, headers, body, size).await?;
        self.transport.success(response).await?;
        Ok(())
    }

    /// Puts a manifest under a tag; its digest.
    pub async fn push_manifest(&self, manifest: &Manifest, tag: &str) -> Result<Digest, Error> {
        let body = manifest
            .bytes()
            .map_err(|error| Error::Local(format!("cannot write the manifest: {error}")))?;
        let digest = Digest::of(&body);
        let url = self.url(&format!("manifests/{tag}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MANIFEST));
        let body = Bytes::from(body);
        let response = self
            .transport
            .retry(async || {
                let (headers, body) = (headers.clone(), body.clone());
                let response = self.send(Method::PUT, &url, headers, body).await?;
                self.transport.success(response).await
            })
            .await?;
        let said = response.headers().get(DIGEST_HEADER).and_then(|said| said.to_str().ok());
        match said.and_then(|said| said.parse().ok()) {
            Some(actual) if actual != digest => Err(Error::WrongDigest {
                what: "the manifest that was pushed".into(),
                host: self.host.to_string(),
                expected: digest,
                actual,
            }),
            _ => Ok(digest),
        }
    }

    /// Whether the registry takes the credentials at all.
    pub async fn check_credentials(&self) -> Result<(), Error> {
        let url = self.transport.url(&self.host, "/v2/")?;
        let response = self.get(Method::GET, &url, "application/json").await?;
        self.transport.success(response).await.map(drop)
    }

    async fn get(&self, method: Method, url: &Url, accept: &str) -> Result<Response, Error> {
        let request =
            |authorization| Get { method: method.clone(), url: url.clone(), accept, authorization };
        let response = self.transport.get(&request(self.authorization())).await?;
        if !self.authorize(&response).await? {
            return Ok(response);
        }
        self.transport.get(&request(self.authorization())).await
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Response, Error> {
        let body = body.into();
        let size = body.len() as u64;
        let first = self.authorized_once(method.clone(), url, headers.clone(), body.clone(), size);
        let first = first.await?;
        if !self.authorize(&first).await? {
            return Ok(first);
        }
        self.authorized_once(method, url, headers, body, size).await
    }

    async fn authorized_once(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: impl Into<Body>,
        size: u64,
    ) -> Result<Response, Error> {
        // The upload may go to another host, which has no business with it.
        let own = self.transport.url(&self.host, "/")?.origin() == url.origin();
        if let Some(authorization) = self.authorization().filter(|_| own) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        self.transport.send(method, url, headers, body, size).await
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Meets the challenge of a response that has one; whether there is something to try again with.
    async fn authorize(&self, response: &Response) -> Result<bool, Error> {
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(false);
        }
        let asking = auth::authorization(
            self.transport,
            &self.host,
            response,
            self.credentials.as_ref(),
            &self.scope,
        );
        let short = self.transport.timeouts.short;
        let new = timeout(short, asking).await.unwrap_or_else(|_| {
            Err(Error::TooSlow { host: self.host.to_string(), timeout: short })
        })?;
        let mut authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = new.is_some() && *authorization != new;
        if changed {
            *authorization = new;
        }
        Ok(changed)
    }
}

/// Content as it should come.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub what: &'a str,
    /// Bytes, where they are known.
    pub size: Option<u64>,
    /// Bytes at the most.
    pub limit: u64,
    pub digest: Digest,
}

impl Transport {
    /// Writes a body that has to be what is `wanted` into `sink`.
    pub async fn content(
        &self,
        response: Response,
        wanted: &Wanted<'_>,
        sink: &mut impl Sink,
        transfer: Transfer,
    ) -> Result<(), Error> {
        let host = host_of(response.url());
        let limit = self.timeouts.short + Duration::from_secs(wanted.limit / MIN_SPEED);
        let writing = self.write(response, wanted, sink, &transfer);
        timeout(limit, writing).await.unwrap_or(Err(Error::TooSlow { host, timeout: limit }))?;
        transfer.done();
        Ok(())
    }

    async fn write(
        &self,
        mut response: Response,
        wanted: &Wanted<'_>,
        sink: &mut impl Sink,
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let Wanted { what, size, limit, digest: expected } = *wanted;
        let host = host_of(response.url());
        let wrong_size = |came: String| {
            let (what, host) = (what.to_owned(), host.clone());
            match size {
                Some(expected) => Error::Size { what, host, expected, came },
                None => Error::TooLarge { what, host, limit, came },
            }
        };
        let is_wrong = |bytes: u64| size.map_or(bytes > limit, |size| bytes != size);
        if let Some(length) = response.content_length().filter(|&length| is_wrong(length)) {
            return Err(wrong_size(length.to_string()));
        }
        let failed = |cause| Error::Write { host: host.clone(), cause };
        sink.restart().map_err(failed)?;
        let (mut hasher, mut came) = (Sha256::new(), 0_u64);
        while let Some(chunk) = self.chunk(&mut response).await? {
            came += chunk.len() as u64;
            if came > limit {
                return Err(wrong_size("more".into()));
            }
            hasher.update(&chunk);
            sink.write_all(&chunk).map_err(failed)?;
            transfer.at(came);
        }
        if is_wrong(came) {
            return Err(wrong_size(came.to_string()));
        }
        let actual = Digest::finish(hasher);
        if actual != expected {
            return Err(Error::WrongDigest { what: what.to_owned(), host, expected, actual });
        }
        Ok(())
    }
}

/// A file's first `size` bytes, read as they are sent.
fn file_body(path: &Path, size: u64) -> std::io::Result<Body> {
    let file = std::fs::File::open(path)?.take(size);
    let parts = futures::stream::try_unfold(file, async |mut file| {
        let mut part = vec![0; PART];
        let count = file.read(&mut part)?;
        part.truncate(count);
        Ok::<_, std::io::Error>((count > 0).then_some((part, file)))
    });
    Ok(Body::wrap_stream(parts))
}
