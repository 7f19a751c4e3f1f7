//! `spinfer registry update`: packages pinned anew.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::Access;
use crate::guest::artifact::PRIVATE;
use crate::config::manifest::{self, TextOr};
use crate::registry::oci::lock;
use crate::registry::oci::progress::Progress;
use crate::registry::oci::remote::Remote;
use crate::registry::oci::sources::{self, Fetching, Pinning, Update as Updated};
use crate::cli::state_dir::StateDir;

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The manifest, or the folder that holds a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    /// Use this profile of components that have it
    #[arg(long)]
    profile: Option<String>,

    #[command(flatten)]
    state: StateDir,

    #[command(flatten)]
    access: Access,
}

pub(super) fn run(update: &Update, out: &mut impl Write) -> Result<()> {
    let Update { from, profile, state, access } = update;
    let path = if from.is_dir() { from.join("spin.toml") } else { from.clone() };
    let mut manifest = manifest::read(&path)?;
    if let Some(profile) = profile {
        manifest.apply_profile(profile).with_context(|| path.display().to_string())?;
    }
    for (id, component) in &manifest.component {
        if let TextOr::Table(source) = &component.source
            && let Err(problem) = Remote::parse(source)
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
        progress: Progress::new(false),
    };
    let updates = sources::fetch(&mut manifest, &fetching)
        .with_context(|| format!("{} is as it was", base.join(lock::NAME).display()))?;
    if updates.is_empty() {
        writeln!(out, "{}: no component is a package of a registry", path.display())?;
    }
    for Updated { package, before, now } in updates {
        match before {
            None => writeln!(out, "{package}: {now}")?,
            Some(before) if before == now => writeln!(out, "{package}: {now}, as before")?,
            Some(before) => writeln!(out, "{package}: {before} -> {now}")?,
        }
    }
    Ok(())
}
