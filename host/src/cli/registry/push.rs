//! `spinfer registry push`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{Access, block_on, repository};
use crate::cli::edit::Edit;
use crate::config::manifest::TextOr;
use crate::registry::oci::auth::Scope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::component::ComponentArtifact;
use crate::registry::oci::digest::Digest;
use crate::registry::oci::manifest::Manifest;
use crate::registry::oci::model::{ModelArtifact, ModelVersion};
use crate::registry::oci::progress::Progress;
use crate::registry::oci::reference::Reference;

#[derive(Debug, Args)]
pub(super) struct Push {
    /// Where to: ghcr.io/acme/wine:1. The tag of a model is its version if none is given
    reference: Reference,

    /// A component's .wasm file, or a version's folder
    #[arg(value_name = "FILE_OR_FOLDER", required_unless_present_any = ["component", "model"],
        conflicts_with_all = ["component", "model"])]
    path: Option<PathBuf>,

    /// A component of the manifest, by its id
    #[arg(long, value_name = "ID", conflicts_with = "model")]
    component: Option<String>,

    /// A version of the application's models/ folder
    #[arg(long, value_name = "NAME/VERSION", value_parser = ModelVersion::parse)]
    model: Option<ModelVersion>,

    /// Put it in the place of something else under this tag
    #[arg(long)]
    force: bool,

    /// The manifest, or the folder that holds a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    #[command(flatten)]
    access: Access,
}

/// What is pushed.
enum Artifact {
    Component(Box<ComponentArtifact>),
    Model(Box<ModelArtifact>),
}

impl Artifact {
    fn read(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Model(Box::new(ModelArtifact::read(path)?)));
        }
        Ok(Self::Component(Box::new(ComponentArtifact::read(path)?)))
    }

    fn manifest(&self) -> &Manifest {
        match self {
            Self::Component(component) => &component.manifest,
            Self::Model(model) => &model.manifest,
        }
    }

    async fn push(&self, to: &Repository<'_>, progress: Progress) -> Result<()> {
        match self {
            Self::Component(component) => component.push(to, progress).await,
            Self::Model(model) => model.push(to, progress).await,
        }
    }
}

pub(super) fn run(push: &Push, out: &mut impl Write) -> Result<()> {
    let artifact = Artifact::read(&push.path()?)?;
    let tag = match (&push.reference.tag, &artifact) {
        _ if push.reference.digest.is_some() => {
            bail!("{}: is pushed under a tag; leave the digest out", push.reference)
        }
        (Some(tag), _) => tag.clone(),
        (None, Artifact::Model(model)) => model.version.version.clone(),
        (None, Artifact::Component(_)) => {
            bail!("{0}: give a tag, such as {0}:1.0.0", push.reference)
        }
    };
    let reference = Reference { tag: Some(tag.clone()), ..push.reference.clone() };
    let transport = push.access.transport()?;
    let repository = repository(&transport, &reference, Scope::Push)?;
    let pushing = push_under(&repository, &artifact, &tag, push.force);
    let (digest, is_new) =
        block_on(pushing).with_context(|| format!("{reference}: cannot be pushed"))?;
    let what = match &artifact {
        Artifact::Component(_) => "the component".to_owned(),
        Artifact::Model(model) => {
            format!("{}, version {},", model.version.name, model.version.version)
        }
    };
    if is_new {
        writeln!(out, "Pushed {what} to {reference}\n  digest  {digest}")?;
    } else {
        writeln!(out, "Nothing to push: {reference} is {what} already\n  digest  {digest}")?;
    }
    Ok(())
}

/// The digest, and whether it was not there before. The manifest comes last: what it lists is there then.
async fn push_under(
    repository: &Repository<'_>,
    artifact: &Artifact,
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
            "the registry has {before} under this tag, and this is {digest}; push it under another \
             tag, or replace what others may have pulled with --force"
        );
    }
    artifact.push(repository, Progress::new(false)).await?;
    repository.push_manifest(artifact.manifest(), tag).await?;
    Ok((digest, true))
}

impl Push {
    /// What is to be pushed.
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
        before.with_context(|| format!("{}: there is no manifest", path.display()))?;
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
                    "component.{id}.source: no file {}; `spinfer build` builds it",
                    source.display()
                );
                Ok(source)
            }
            TextOr::Table(_) => bail!("component.{id}.source: is elsewhere, and no file here"),
        }
    }
}
