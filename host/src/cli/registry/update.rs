//! `spinfer registry update`: pins packages to their current digests.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::AccessOptions;
use crate::cli::state_dir::StateDir;
use crate::config::manifest::{self, TextOr};
use crate::guest::artifact::PRIVATE;
use crate::registry::oci::lock;
use crate::registry::oci::progress::TransferProgress;
use crate::registry::oci::remote::RemoteComponent;
use crate::registry::oci::sources::{self, FetchedPackage as Updated, Fetching, Pinning};

#[derive(Debug, Args)]
pub(super) struct UpdateOptions {
    /// Manifest, or the folder with a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    /// Profile to apply to components that have it
    #[arg(long)]
    profile: Option<String>,

    #[command(flatten)]
    state: StateDir,

    #[command(flatten)]
    access: AccessOptions,
}

pub(super) fn run(update: &UpdateOptions, out: &mut impl Write) -> Result<()> {
    let UpdateOptions { from, profile, state, access } = update;
    let path = if from.is_dir() { from.join("spin.toml") } else { from.clone() };
    let mut manifest = manifest::read(&path)?;
    if let Some(profile) = profile {
        manifest.apply_profile(profile).with_context(|| path.display().to_string())?;
    }
    for (id, component) in &manifest.component {
        if let TextOr::Table(source) = &component.source
            && let Err(problem) = RemoteComponent::parse(source)
        {
            bail!("{}: component.{id}.source: {problem}", path.display());
        }
    }
    let base = path.parent().filter(|base| !base.as_os_str().is_empty());
    let base = base.unwrap_or(Path::new("."));
    let fetching = Fetching {
        base,
        state: &state.open(base, PRIVATE)?,
        mode: PRIVATE,
        plain_http: &access.insecure_http,
        pinning: Pinning::Update,
        progress: TransferProgress::new(false),
    };
    let updates = sources::fetch(&mut manifest, &fetching)
        .with_context(|| format!("{} is unchanged", base.join(lock::NAME).display()))?;
    if updates.is_empty() {
        writeln!(out, "{}: no component comes from a registry", path.display())?;
    }
    for Updated { package, before, now } in updates {
        match before {
            None => writeln!(out, "{package}: {now}")?,
            Some(before) if before == now => writeln!(out, "{package}: {now}, unchanged")?,
            Some(before) => writeln!(out, "{package}: {before} -> {now}")?,
        }
    }
    Ok(())
}
