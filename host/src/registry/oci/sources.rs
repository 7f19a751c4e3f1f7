//! Fetches, checks, caches and pins the remote components of a manifest before it is resolved.
//! Afterwards their `source` is a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use http::Method;
use reqwest::Url;
use serde::Deserialize;
use tracing::{debug, warn};

use super::auth::TokenScope;
use super::client::Repository;
use super::component;
use super::credentials::RegistryCredentials;
use super::digest::Digest;
use super::error::OciError;
use super::lock::{self, Lock, Pinned};
use super::progress::TransferProgress;
use super::reference::{ArtifactReference, Package, RegistryHost};
use super::remote::RemoteComponent;
use super::response::ExpectedContent;
use super::store::ComponentStore;
use super::transport::{Get, Timeouts, Transport, without_query};
use crate::config::manifest::{Manifest, TextOr};
use crate::guest::artifact::MAX_COMPONENT;

/// Path of a registry's metadata with the location of its packages (wasm-pkg-tools).
const METADATA: &str = "/.well-known/wasm-pkg/registry.json";
/// Maximum size of the metadata, in bytes.
const MAX_METADATA: u64 = 64 << 10;

/// Options of a fetch.
#[derive(Debug)]
pub struct Fetching<'a> {
    /// Folder of the manifest.
    pub base: &'a Path,
    /// State directory.
    pub state: &'a Path,
    /// Permissions of folders created in the state directory.
    pub mode: u32,
    /// Registries reached over plain HTTP.
    pub plain_http: &'a [RegistryHost],
    pub pinning: Pinning,
    pub progress: TransferProgress,
}

/// Which packages are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// Packages that are not pinned yet.
    New,
    /// None: every package must be pinned already.
    Locked,
    /// All packages, to their current digests.
    Update,
}

/// A fetched package.
#[derive(Debug)]
pub struct FetchedPackage {
    pub package: String,
    /// Digest of the manifest that was pinned before.
    pub before: Option<Digest>,
    /// Digest of the manifest that is pinned now.
    pub now: Digest,
}

/// Whether a component is remote.
#[must_use]
pub fn has_remote(manifest: &Manifest) -> bool {
    manifest.component.values().any(|component| matches!(component.source, TextOr::Table(_)))
}

/// Fetches the remote components of `manifest`, and replaces their `source` by the path of the file.
/// Invalid sources are left to [`crate::config::app`], which reports all problems of the manifest.
///
/// # Errors
/// Every source that cannot be fetched, with its key. Fetched components stay cached; nothing is pinned.
pub fn fetch(manifest: &mut Manifest, fetching: &Fetching<'_>) -> Result<Vec<FetchedPackage>> {
    let mut fetcher = Fetcher::open(fetching)?;
    let (mut updates, mut problems) = (Vec::new(), Vec::new());
    for (id, component) in &mut manifest.component {
        let TextOr::Table(source) = &component.source else { continue };
        let Ok(remote) = RemoteComponent::parse(source) else { continue };
        match fetcher.source(&remote, &mut updates) {
            Ok(path) => {
                let path = path.to_str().context("--state-dir: its path is not UTF-8")?;
                component.source = TextOr::Text(path.to_owned());
            }
            Err(problem) => problems.push(format!("component.{id}.source: {problem:#}")),
        }
    }
    ensure!(problems.is_empty(), problems.join("\n"));
    if let Err(error) = fetcher.lock.write() {
        ensure!(fetching.pinning != Pinning::Update, error);
        let error = format!("{error:#}");
        warn!(error, "lock file not written: the fetched packages are not pinned");
    }
    fetcher.store.remove_expired();
    Ok(updates)
}

struct Fetcher<'a> {
    fetching: &'a Fetching<'a>,
    store: ComponentStore,
    lock: Lock,
    network: Network,
}

/// Created for the first request: if everything is cached, there is none.
#[derive(Default)]
struct Network(Option<(tokio::runtime::Runtime, Transport)>);

impl Network {
    fn get(
        &mut self,
        plain_http: &[RegistryHost],
    ) -> Result<(&tokio::runtime::Runtime, &Transport)> {
        let (runtime, transport) = match self.0.take() {
            Some(network) => self.0.insert(network),
            None => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                self.0.insert((runtime, Transport::new(plain_http, Timeouts::default())?))
            }
        };
        Ok((runtime, transport))
    }
}

impl<'a> Fetcher<'a> {
    fn open(fetching: &'a Fetching<'a>) -> Result<Self> {
        let store = ComponentStore::open(fetching.state, fetching.mode)?;
        let lock = Lock::read(fetching.base)?;
        Ok(Self { fetching, store, lock, network: Network::default() })
    }

    fn source(
        &mut self,
        remote: &RemoteComponent,
        updates: &mut Vec<FetchedPackage>,
    ) -> Result<PathBuf> {
        match remote {
            RemoteComponent::Url { url, digest } => match self.store.get(*digest) {
                Some(path) => Ok(path),
                None => self.file(url, *digest).with_context(|| without_query(url)),
            },
            RemoteComponent::Package { registry, package } => {
                self.package(registry, package, updates)
            }
        }
    }

    /// Fetches a file with the given digest.
    fn file(&mut self, url: &Url, digest: Digest) -> Result<PathBuf> {
        let progress = self.fetching.progress;
        let mut staged = self.store.stage()?;
        let (runtime, transport) = self.network.get(self.fetching.plain_http)?;
        progress.line(&format!("Fetching {}", without_query(url)));
        let get = Get { method: Method::GET, url: url.clone(), accept: "*/*", authorization: None };
        let what = "the component";
        let content = ExpectedContent { what, size: None, limit: MAX_COMPONENT, digest };
        let file = staged.as_file_mut();
        runtime.block_on(transport.retry(async || {
            let response = transport.success(transport.get(&get).await?).await?;
            let size = response.content_length().unwrap_or_default();
            let transfer = progress.transfer("fetched the component", size);
            transport.content(response, &content, file, transfer).await
        }))?;
        component::check_file(staged.as_file_mut())?;
        self.store.put(staged, digest)
    }

    fn package(
        &mut self,
        registry: &RegistryHost,
        package: &Package,
        updates: &mut Vec<FetchedPackage>,
    ) -> Result<PathBuf> {
        let name = package.to_string();
        let before = self.lock.find(registry.as_str(), &name).cloned();
        let Fetching { pinning, plain_http, progress, .. } = *self.fetching;
        let pinned = before.as_ref().filter(|_| pinning != Pinning::Update);
        if let Some(path) = pinned.and_then(|pinned| self.store.get(pinned.component)) {
            debug!(package = name, "package is pinned and cached: no request to the registry");
            return Ok(path);
        }
        ensure!(
            pinned.is_some() || pinning != Pinning::Locked,
            "{name} is not in {}, and --locked allows no new pin; omit --locked once",
            self.lock.path().display()
        );
        let (runtime, transport) = self.network.get(plain_http)?;
        let fetching = async {
            let reference = locate(transport, registry, package).await;
            let reference = reference.with_context(|| format!("{name} of {registry}"))?;
            let pull =
                ComponentPull { transport, reference: &reference, store: &self.store, progress };
            pull.component(pinned).await.with_context(|| reference.to_string())
        };
        let Pulled { path, manifest, component } = runtime.block_on(fetching)?;
        updates.push(FetchedPackage {
            package: format!("{name} of {registry}"),
            before: before.map(|before| before.manifest),
            now: manifest,
        });
        let registry = registry.to_string();
        self.lock.pin(Pinned { registry, package: name, manifest, component });
        Ok(path)
    }
}

/// Fetches an artifact of a component into the cache.
struct ComponentPull<'a> {
    transport: &'a Transport,
    reference: &'a ArtifactReference,
    store: &'a ComponentStore,
    progress: TransferProgress,
}

struct Pulled {
    path: PathBuf,
    manifest: Digest,
    component: Digest,
}

impl ComponentPull<'_> {
    async fn component(&self, pinned: Option<&Pinned>) -> Result<Pulled> {
        let Self { transport, reference, store, progress } = *self;
        progress.line(&format!("Fetching {reference}"));
        let ArtifactReference { host, repository: name, tag, .. } = reference;
        let credentials = RegistryCredentials::find(host)?;
        let repository =
            Repository::new(transport, host, name, credentials, TokenScope::Pull(name.clone()));
        let fetched = repository.manifest(tag.as_deref().unwrap_or_default()).await?;
        if let Some(pinned) = pinned.filter(|pinned| pinned.manifest != fetched.digest) {
            bail!(
                "the registry has {} for this version, but {} has {}; to accept the change, run \
                 `spinfer registry update`",
                fetched.digest,
                lock::NAME,
                pinned.manifest
            );
        }
        let layer = component::layer(&fetched.manifest)?
            .with_context(|| format!("not a component, but {}", fetched.manifest.kind()))?;
        let path = match store.get(layer.digest) {
            Some(path) => path,
            None => {
                let mut staged = store.stage()?;
                component::pull(&repository, layer, staged.as_file_mut(), progress).await?;
                store.put(staged, layer.digest)?
            }
        };
        Ok(Pulled { path, manifest: fetched.digest, component: layer.digest })
    }
}

/// The repository of a package: the one with its name, unless the registry's metadata has another one.
async fn locate(
    transport: &Transport,
    registry: &RegistryHost,
    package: &Package,
) -> Result<ArtifactReference> {
    let url = transport.url(registry, METADATA)?;
    let get = Get { method: Method::GET, url, accept: "application/json", authorization: None };
    let metadata = match transport.get(&get).await {
        Ok(response) if response.status().is_success() => {
            // The body may be any page of a web server.
            transport.body(response, METADATA, MAX_METADATA).await.unwrap_or_default()
        }
        Ok(_) => bytes::Bytes::new(),
        // The packages could not be fetched either.
        Err(
            error @ (OciError::Unreachable { .. }
            | OciError::IdleTimeout { .. }
            | OciError::PlainHttp { .. }),
        ) => {
            return Err(error.into());
        }
        Err(_) => bytes::Bytes::new(),
    };
    let (host, prefix) = Metadata::read(&metadata, registry).map_err(anyhow::Error::msg)?;
    package.reference(host, &prefix).map_err(|problem| anyhow!(problem))
}

/// Metadata of a registry; older ones use other names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    oci: Option<OciMetadata>,
    oci_registry: Option<String>,
    oci_namespace_prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciMetadata {
    registry: Option<String>,
    namespace_prefix: Option<String>,
}

impl Metadata {
    /// The host of the repositories, and the prefix of their names.
    fn read(body: &[u8], registry: &RegistryHost) -> Result<(RegistryHost, String), String> {
        let Self { oci, oci_registry, oci_namespace_prefix } =
            serde_json::from_slice(body).unwrap_or_default();
        let (host, prefix) = match oci {
            Some(OciMetadata { registry, namespace_prefix }) => (registry, namespace_prefix),
            None => (oci_registry, oci_namespace_prefix),
        };
        let host = match host {
            Some(host) => host.parse().map_err(|problem| format!("{METADATA}: {problem}"))?,
            None => registry.clone(),
        };
        Ok((host, prefix.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn metadata_locates_the_packages_of_a_registry() {
        let registry: RegistryHost = "acme.org".parse().unwrap();
        for (body, host, prefix) in [
            (r#"{"oci": {"registry": "ghcr.io", "namespacePrefix": "acme/"}}"#, "ghcr.io", "acme/"),
            (r#"{"ociRegistry": "ghcr.io", "ociNamespacePrefix": "acme/"}"#, "ghcr.io", "acme/"),
            (r#"{"preferredProtocol": "oci", "oci": {}}"#, "acme.org", ""),
            ("<html>", "acme.org", ""),
            ("", "acme.org", ""),
        ] {
            let (found, found_prefix) = Metadata::read(body.as_bytes(), &registry).unwrap();
            assert_eq!((found.as_str(), found_prefix.as_str()), (host, prefix), "{body}");
        }
        let problem = Metadata::read(br#"{"ociRegistry": "a b"}"#, &registry).unwrap_err();
        assert!(problem.contains("registry.json"), "{problem}");
    }

    proptest! {
        #[test]
        fn arbitrary_metadata_does_not_panic(body in "(\\{|\\}|\"oci\"|\"registry\"|:|,|\"a\"|\\PC){0,20}") {
            let _ = Metadata::read(body.as_bytes(), &"acme.org".parse().unwrap());
        }
    }
}
