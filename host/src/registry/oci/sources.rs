//! The components of a manifest that are elsewhere: fetched, checked, cached and pinned, before the manifest
//! is resolved. Afterwards their `source` is a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use http::Method;
use reqwest::Url;
use serde::Deserialize;
use tracing::{debug, warn};

use super::auth::Scope;
use super::client::{Repository, Wanted};
use super::component;
use super::credentials::Credentials;
use super::digest::Digest;
use super::error::Error;
use super::lock::{self, Lock, Pinned};
use super::progress::Progress;
use super::reference::{Host, Package, Reference};
use super::remote::Remote;
use super::store::ComponentStore;
use super::transport::{Get, Timeouts, Transport};
use crate::guest::artifact::MAX_COMPONENT;
use crate::config::manifest::{Manifest, TextOr};

/// Where a registry says where its packages are (wasm-pkg-tools).
const METADATA: &str = "/.well-known/wasm-pkg/registry.json";
const MAX_METADATA: u64 = 64 << 10;

/// How sources are fetched.
#[derive(Debug)]
pub struct Fetching<'a> {
    /// The manifest's folder.
    pub base: &'a Path,
    /// The state directory, and the permissions of what is created in it.
    pub state: &'a Path,
    pub mode: u32,
    /// Registries that are asked over plain HTTP.
    pub plain_http: &'a [Host],
    pub pinning: Pinning,
    pub progress: Progress,
}

/// What may be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// What is not pinned yet.
    New,
    /// Nothing: every package has to be pinned.
    Locked,
    /// Everything anew, whatever it was.
    Update,
}

/// A package that was fetched.
#[derive(Debug)]
pub struct Update {
    pub package: String,
    pub before: Option<Digest>,
    pub now: Digest,
}

/// Whether something has to be fetched.
#[must_use]
pub fn has_remote(manifest: &Manifest) -> bool {
    manifest.component.values().any(|component| matches!(component.source, TextOr::Table(_)))
}

/// Fetches what `manifest` has elsewhere, and puts the files in its place. What is not valid is left to
/// [`crate::config::app`], which finds everything else that is wrong, too.
///
/// # Errors
/// Every source that cannot be had, each with its key. What was fetched stays cached; nothing is pinned.
pub fn fetch(manifest: &mut Manifest, fetching: &Fetching<'_>) -> Result<Vec<Update>> {
    let mut fetcher = Fetcher::open(fetching)?;
    let (mut updates, mut problems) = (Vec::new(), Vec::new());
    for (id, component) in &mut manifest.component {
        let TextOr::Table(source) = &component.source else { continue };
        let Ok(remote) = Remote::parse(source) else { continue };
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
        warn!(error, "cannot be written: what was fetched is not pinned");
    }
    fetcher.store.remove_old();
    Ok(updates)
}

struct Fetcher<'a> {
    fetching: &'a Fetching<'a>,
    store: ComponentStore,
    lock: Lock,
    network: Network,
}

/// Set up for the first request: where everything is cached, nothing is asked.
#[derive(Default)]
struct Network(Option<(tokio::runtime::Runtime, Transport)>);

impl Network {
    fn get(&mut self, plain_http: &[Host]) -> Result<(&tokio::runtime::Runtime, &Transport)> {
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

    fn source(&mut self, remote: &Remote, updates: &mut Vec<Update>) -> Result<PathBuf> {
        match remote {
            Remote::Url { url, digest } => match self.store.get(*digest) {
                Some(path) => Ok(path),
                None => self.file(url, *digest).with_context(|| url.to_string()),
            },
            Remote::Package { registry, package } => self.package(registry, package, updates),
        }
    }

    /// Fetches a file that has to have a digest.
    fn file(&mut self, url: &Url, digest: Digest) -> Result<PathBuf> {
        let progress = self.fetching.progress;
        let mut staged = self.store.stage()?;
        let (runtime, transport) = self.network.get(self.fetching.plain_http)?;
        progress.line(&format!("Fetching {url}"));
        let get = Get { method: Method::GET, url: url.clone(), accept: "*/*", authorization: None };
        let wanted = Wanted { what: "the component", size: None, limit: MAX_COMPONENT, digest };
        let file = staged.as_file_mut();
        runtime.block_on(transport.retry(async || {
            let response = transport.success(transport.get(&get).await?).await?;
            let size = response.content_length().unwrap_or_default();
            let transfer = progress.transfer("fetched the component", size);
            transport.content(response, &wanted, file, transfer).await
        }))?;
        component::check_file(staged.as_file_mut())?;
        self.store.put(staged, digest)
    }

    fn package(
        &mut self,
        registry: &Host,
        package: &Package,
        updates: &mut Vec<Update>,
    ) -> Result<PathBuf> {
        let name = package.to_string();
        let before = self.lock.find(registry.as_str(), &name).cloned();
        let Fetching { pinning, plain_http, progress, .. } = *self.fetching;
        let pinned = before.as_ref().filter(|_| pinning != Pinning::Update);
        if let Some(path) = pinned.and_then(|pinned| self.store.get(pinned.component)) {
            debug!(package = name, "pinned and cached: the registry is not asked");
            return Ok(path);
        }
        ensure!(
            pinned.is_some() || pinning != Pinning::Locked,
            "{name} is not in {}, and --locked allows no new pin; leave --locked out once",
            self.lock.path().display()
        );
        let (runtime, transport) = self.network.get(plain_http)?;
        let fetching = async {
            let reference = locate(transport, registry, package).await;
            let reference = reference.with_context(|| format!("{name} of {registry}"))?;
            let pull = Pull { transport, reference: &reference, store: &self.store, progress };
            pull.component(pinned).await.with_context(|| reference.to_string())
        };
        let Pulled { path, manifest, component } = runtime.block_on(fetching)?;
        updates.push(Update {
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
struct Pull<'a> {
    transport: &'a Transport,
    reference: &'a Reference,
    store: &'a ComponentStore,
    progress: Progress,
}

struct Pulled {
    path: PathBuf,
    manifest: Digest,
    component: Digest,
}

impl Pull<'_> {
    async fn component(&self, pinned: Option<&Pinned>) -> Result<Pulled> {
        let Self { transport, reference, store, progress } = *self;
        progress.line(&format!("Fetching {reference}"));
        let Reference { host, repository: name, tag, .. } = reference;
        let credentials = Credentials::find(host)?;
        let repository =
            Repository::new(transport, host, name, credentials, Scope::Pull(name.clone()));
        let fetched = repository.manifest(tag.as_deref().unwrap_or_default()).await?;
        if let Some(pinned) = pinned.filter(|pinned| pinned.manifest != fetched.digest) {
            bail!(
                "the registry has {} under this version now, but {} has {}; if that is meant, \
                 `spinfer registry update` takes it",
                fetched.digest,
                lock::NAME,
                pinned.manifest
            );
        }
        let layer = component::layer(&fetched.manifest)?
            .with_context(|| format!("it is no component, but {}", fetched.manifest.kind()))?;
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

/// Where a registry has a package: in a repository of its name, unless it says another place.
async fn locate(transport: &Transport, registry: &Host, package: &Package) -> Result<Reference> {
    let url = transport.url(registry, METADATA)?;
    let get = Get { method: Method::GET, url, accept: "application/json", authorization: None };
    let metadata = match transport.get(&get).await {
        Ok(response) if response.status().is_success() => {
            // Another page, of a host that serves pages.
            transport.body(response, METADATA, MAX_METADATA).await.unwrap_or_default()
        }
        Ok(_) => bytes::Bytes::new(),
        // Then it serves no packages either.
        Err(
            error @ (Error::Unreachable { .. } | Error::Silent { .. } | Error::PlainHttp { .. }),
        ) => {
            return Err(error.into());
        }
        Err(_) => bytes::Bytes::new(),
    };
    let (host, prefix) = Metadata::read(&metadata, registry).map_err(anyhow::Error::msg)?;
    package.reference(host, &prefix).map_err(|problem| anyhow!(problem))
}

/// What a registry says of itself; older ones by other names.
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
    /// The host of the repositories, and what their names begin with.
    fn read(body: &[u8], registry: &Host) -> Result<(Host, String), String> {
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
    fn a_registry_may_say_where_its_packages_are() {
        let registry: Host = "acme.org".parse().unwrap();
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
        fn any_metadata_is_read_or_left(body in "(\\{|\\}|\"oci\"|\"registry\"|:|,|\"a\"|\\PC){0,20}") {
            let _ = Metadata::read(body.as_bytes(), &"acme.org".parse().unwrap());
        }
    }
}
