//! `spinfer registry push`: pushes a component or a model version.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{AccessOptions, block_on, repository};
use crate::cli::edit::Edit;
use crate::config::manifest::{self, TextOr};
use crate::registry::oci::auth::TokenScope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::component::ComponentArtifact;
use crate::registry::oci::digest::Digest;
use crate::registry::oci::manifest::OciManifest;
use crate::registry::oci::model::{ModelArtifact, ModelVersion};
use crate::registry::oci::progress::TransferProgress;
use crate::registry::oci::reference::ArtifactReference;

#[derive(Debug, Args)]
pub(super) struct PushOptions {
    /// Destination: ghcr.io/acme/wine:1. The default tag of a model is its version
    reference: ArtifactReference,

    /// Component (.wasm file), or folder of a model version
    #[arg(value_name = "FILE_OR_FOLDER", required_unless_present_any = ["component", "model"],
        conflicts_with_all = ["component", "model"])]
    path: Option<PathBuf>,

    /// Push a component of the manifest, by its id
    #[arg(long, value_name = "ID", conflicts_with = "model")]
    component: Option<String>,

    /// Push a model version in the application's models/ folder
    #[arg(long, value_name = "NAME/VERSION", value_parser = ModelVersion::parse)]
    model: Option<ModelVersion>,

    /// Overwrite the tag if it refers to something else
    #[arg(long)]
    force: bool,

    /// Manifest, or the folder with a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    #[command(flatten)]
    access: AccessOptions,
}

/// What is pushed.
enum PushedArtifact {
    Component(Box<ComponentArtifact>),
    Model(Box<ModelArtifact>),
}

impl PushedArtifact {
    fn read(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Model(Box::new(ModelArtifact::read(path)?)));
        }
        Ok(Self::Component(Box::new(ComponentArtifact::read(path)?)))
    }

    fn manifest(&self) -> &OciManifest {
        match self {
            Self::Component(component) => &component.manifest,
            Self::Model(model) => &model.manifest,
        }
    }

    async fn push(&self, to: &Repository<'_>, progress: TransferProgress) -> Result<()> {
        match self {
            Self::Component(component) => component.push(to, progress).await,
            Self::Model(model) => model.push(to, progress).await,
        }
    }
}

pub(super) fn run(push: &PushOptions, out: &mut impl Write) -> Result<()> {
    let artifact = PushedArtifact::read(&push.path()?)?;
    let tag = match (&push.reference.tag, &artifact) {
        _ if push.reference.digest.is_some() => {
            bail!("{}: push to a tag; omit the digest", push.reference)
        }
        (Some(tag), _) => tag.clone(),
        (None, PushedArtifact::Model(model)) => model.version.version.clone(),
        (None, PushedArtifact::Component(_)) => {
            bail!("{0}: the tag is missing; write {0}:1.0.0", push.reference)
        }
    };
    let reference = ArtifactReference { tag: Some(tag.clone()), ..push.reference.clone() };
    let transport = push.access.transport()?;
    let repository = repository(&transport, &reference, TokenScope::Push)?;
    let pushing = push_under(&repository, &artifact, &tag, push.force);
    let (digest, is_new) =
        block_on(pushing).with_context(|| format!("{reference}: cannot be pushed"))?;
    let what = match &artifact {
        PushedArtifact::Component(_) => "the component".to_owned(),
        PushedArtifact::Model(model) => {
            format!("{}, version {},", model.version.name, model.version.version)
        }
    };
    if is_new {
        writeln!(out, "Pushed {what} to {reference}\n  digest  {digest}")?;
    } else {
        writeln!(out, "Nothing to push: {reference} is already {what}\n  digest  {digest}")?;
    }
    Ok(())
}

/// Pushes the artifact; the digest, and whether it is new. The manifest is pushed last, when everything
/// it refers to exists.
async fn push_under(
    repository: &Repository<'_>,
    artifact: &PushedArtifact,
    tag: &str,
    force: bool,
) -> Result<(Digest, bool)> {
    let digest = artifact.manifest().digest()?;
    let before = repository.tagged(tag).await?;
    if before == Some(digest) {
        return Ok((digest, false));
    }
    if let Some(before) = before.filter(|_| !force) {
        bail!(
            "the tag refers to {before} in the registry, and this is {digest}; push to another tag, or \
             overwrite it with --force"
        );
    }
    artifact.push(repository, TransferProgress::new(false)).await?;
    repository.push_manifest(artifact.manifest(), tag).await?;
    Ok((digest, true))
}

impl PushOptions {
    /// Path of the component or folder to push.
    fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.path {
            ensure!(path.exists(), "{}: there is no such file or folder", path.display());
            return Ok(path.clone());
        }
        let Edit { path, base, before, manifest, .. } = Edit::open(&self.from)?;
        if let Some(model) = &self.model {
            let folder = base.join(model.folder());
            ensure!(
                folder.is_dir(),
                "--model {}/{}: there is no folder {}",
                model.name,
                model.version,
                folder.display()
            );
            return Ok(folder);
        }
        before.ok_or_else(|| manifest::missing(&path))?;
        let id = self.component.as_deref().unwrap_or_default();
        let Some(component) = manifest.component.get(id) else {
            let ids: Vec<_> = manifest.component.keys().map(String::as_str).collect();
            bail!("--component: there is no [component.{id}]; the manifest has {}", ids.join(", "))
        };
        match &component.source {
            TextOr::Text(source) => {
                let source = base.join(source);
                ensure!(
                    source.is_file(),
                    "component.{id}.source: there is no file {}; run `spinfer build`",
                    source.display()
                );
                Ok(source)
            }
            TextOr::Table(_) => {
                bail!("component.{id}.source: is remote; only local files are pushed")
            }
        }
    }
}
