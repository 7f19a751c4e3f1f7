//! Client of one repository of a registry: the part of the distribution API used for artifacts.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use reqwest::{Body, Response, Url};
use tokio::time::timeout;

use super::auth::{self, TokenScope};
use super::credentials::RegistryCredentials;
use super::digest::Digest;
use super::error::OciError;
use super::manifest::{Descriptor, INDEX, MANIFEST, MAX_MANIFEST, OciManifest};
use super::progress::TransferProgress;
use super::reference::RegistryHost;
use super::response::{ExpectedContent, Sink, content_type, unexpected};
use super::transport::{Get, Transport, host_of};

/// Header with the digest of a manifest.
const DIGEST_HEADER: &str = "docker-content-digest";
/// Media type of blobs in requests.
const OCTETS: &str = "application/octet-stream";
/// Size of the buffer to read a file that is pushed, in bytes.
const BUFFER: usize = 64 << 10;

/// A repository, with the authorization of requests to it.
#[derive(Debug)]
pub struct Repository<'a> {
    transport: &'a Transport,
    host: RegistryHost,
    name: String,
    credentials: Option<RegistryCredentials>,
    scope: TokenScope,
    /// The header of the last challenge that was met.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A fetched manifest.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    pub manifest: OciManifest,
    pub digest: Digest,
}

/// Content to push.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

impl<'a> Repository<'a> {
    #[must_use]
    pub fn new(
        transport: &'a Transport,
        host: &RegistryHost,
        name: &str,
        credentials: Option<RegistryCredentials>,
        scope: TokenScope,
    ) -> Self {
        let (host, name) = (host.clone(), name.to_owned());
        Self { transport, host, name, credentials, scope, authorization: Mutex::default() }
    }

    fn url(&self, path: &str) -> Result<Url, OciError> {
        self.transport.url(&self.host, &format!("/v2/{}/{path}", self.name))
    }

    /// The manifest under a tag or a digest.
    pub async fn manifest(&self, selector: &str) -> Result<FetchedManifest, OciError> {
        let url = self.url(&format!("manifests/{selector}"))?;
        self.transport.retry(async || self.fetch_manifest(&url, selector).await).await
    }

    async fn fetch_manifest(&self, url: &Url, selector: &str) -> Result<FetchedManifest, OciError> {
        let response = self.get(Method::GET, url, &format!("{MANIFEST}, {INDEX}")).await?;
        let response = self.transport.success(response).await?;
        let host = host_of(response.url());
        let kind = content_type(&response);
        let declared = response.headers().get(DIGEST_HEADER).cloned();
        let body = self.transport.body(response, "a manifest", MAX_MANIFEST).await?;
        let digest = Digest::of(&body);
        let declared = declared.as_ref().and_then(|declared| declared.to_str().ok());
        // Digests of other algorithms are ignored; a SHA-256 must match.
        let expected = [Some(selector), declared].into_iter().flatten();
        let expected = expected.filter_map(|digest| digest.parse().ok());
        for expected in expected {
            if digest != expected {
                let what = "the manifest".into();
                return Err(OciError::WrongDigest { what, host, expected, actual: digest });
            }
        }
        let manifest = OciManifest::parse(&body).map_err(|problem| {
            if serde_json::from_slice::<serde_json::Value>(&body).is_ok() {
                let (host, received) = (host.clone(), format!("another: {problem}"));
                return OciError::Unexpected { host, expected: "an OCI manifest", received };
            }
            unexpected(&host, "an OCI manifest (JSON)", kind.as_deref(), &body)
        })?;
        Ok(FetchedManifest { manifest, digest })
    }

    /// The digest of the manifest under a tag, if the tag exists.
    pub async fn tagged(&self, tag: &str) -> Result<Option<Digest>, OciError> {
        match self.manifest(tag).await {
            Ok(fetched) => Ok(Some(fetched.digest)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches the content of `descriptor`, at most `limit` bytes, into `sink`. `what` names it in
    /// messages.
    pub async fn blob(
        &self,
        descriptor: &Descriptor,
        what: &str,
        limit: u64,
        sink: &mut impl Sink,
        progress: TransferProgress,
    ) -> Result<(), OciError> {
        let Descriptor { digest, size, .. } = *descriptor;
        if size > limit {
            let (what, host) = (what.to_owned(), self.host.to_string());
            return Err(OciError::TooLarge { what, host, limit, received: size.to_string() });
        }
        let url = self.url(&format!("blobs/{digest}"))?;
        let label = format!("fetched {what}");
        self.transport
            .retry(async || {
                let response = self.get(Method::GET, &url, OCTETS).await?;
                let response = self.transport.success(response).await?;
                let content = ExpectedContent { what, size: Some(size), limit: size, digest };
                let transfer = progress.transfer(&label, size);
                self.transport.content(response, &content, sink, transfer).await
            })
            .await
    }

    /// Whether the repository has the content with this digest.
    async fn has(&self, digest: Digest) -> Result<bool, OciError> {
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
        progress: TransferProgress,
    ) -> Result<(), OciError> {
        let Descriptor { digest, size, .. } = *descriptor;
        let has = self.transport.retry(async || self.has(digest).await).await?;
        if has {
            progress.line(&format!("  {what} already exists"));
            return Ok(());
        }
        let transfer = progress.transfer(&format!("pushed {what}"), size);
        self.transport.retry(async || self.upload(digest, size, content).await).await?;
        transfer.finish();
        Ok(())
    }

    async fn upload(
        &self,
        digest: Digest,
        size: u64,
        content: Content<'_>,
    ) -> Result<(), OciError> {
        let begin = self.url("blobs/uploads/")?;
        let response = self.send(Method::POST, &begin, HeaderMap::new(), Vec::new()).await?;
        let response = self.transport.success(response).await?;
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let url = location.and_then(|location| response.url().join(location).ok());
        let Some(mut url) = url else {
            return Err(OciError::Unexpected {
                host: self.host.to_string(),
                expected: "the URL of the upload (Location)",
                received: "none".into(),
            });
        };
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        headers.insert(header::CONTENT_LENGTH, size.into());
        let body = match content {
            Content::Bytes(bytes) => Body::from(bytes.to_vec()),
            Content::File(path) => file_body(path, size).map_err(|cause| {
                OciError::Local(format!("{}: cannot be read: {cause}", path.display()))
            })?,
        };
        let response = self.authorized_once(Method::PUT, &url, headers, body, size).await?;
        self.transport.success(response).await?;
        Ok(())
    }

    /// Pushes a manifest to a tag; its digest.
    pub async fn push_manifest(
        &self,
        manifest: &OciManifest,
        tag: &str,
    ) -> Result<Digest, OciError> {
        let body = manifest
            .bytes()
            .map_err(|error| OciError::Local(format!("cannot write the manifest: {error}")))?;
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
        let declared = response.headers().get(DIGEST_HEADER);
        let declared = declared.and_then(|declared| declared.to_str().ok());
        match declared.and_then(|declared| declared.parse().ok()) {
            Some(actual) if actual != digest => Err(OciError::WrongDigest {
                what: "the pushed manifest".into(),
                host: self.host.to_string(),
                expected: digest,
                actual,
            }),
            _ => Ok(digest),
        }
    }

    /// Checks that the registry accepts the credentials.
    pub async fn check_credentials(&self) -> Result<(), OciError> {
        let url = self.transport.url(&self.host, "/v2/")?;
        let response = self.get(Method::GET, &url, "application/json").await?;
        self.transport.success(response).await.map(drop)
    }

    async fn get(&self, method: Method, url: &Url, accept: &str) -> Result<Response, OciError> {
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
    ) -> Result<Response, OciError> {
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
    ) -> Result<Response, OciError> {
        // The upload may go to another host, which must not receive the credentials.
        let own = self.transport.url(&self.host, "/")?.origin() == url.origin();
        if let Some(authorization) = self.authorization().filter(|_| own) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        self.transport.send(method, url, headers, body, size).await
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().clone()
    }

    /// Obtains the authorization that a 401 response requests; returns whether to retry with it.
    async fn authorize(&self, response: &Response) -> Result<bool, OciError> {
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(false);
        }
        let authorization = auth::authorization(
            self.transport,
            &self.host,
            response,
            self.credentials.as_ref(),
            &self.scope,
        );
        let short = self.transport.timeouts.short;
        let new = timeout(short, authorization).await.unwrap_or_else(|_| {
            Err(OciError::TooSlow { host: self.host.to_string(), timeout: short })
        })?;
        let mut authorization = self.authorization.lock();
        let changed = new.is_some() && *authorization != new;
        if changed {
            *authorization = new;
        }
        Ok(changed)
    }
}

/// The first `size` bytes of a file as a streamed body.
fn file_body(path: &Path, size: u64) -> std::io::Result<Body> {
    let file = std::fs::File::open(path)?.take(size);
    let parts = futures::stream::try_unfold(file, async |mut file| {
        let mut part = vec![0; BUFFER];
        let count = file.read(&mut part)?;
        part.truncate(count);
        Ok::<_, std::io::Error>((count > 0).then_some((part, file)))
    });
    Ok(Body::wrap_stream(parts))
}
