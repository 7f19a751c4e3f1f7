//! `spinfer build`: runs the build commands of the manifest, and optimises or compiles the components.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::output::OptionalOutput;
use super::state_dir::StateDir;
use super::telemetry::{self, LogFormat, LogOptions};
use super::{FetchState, ManifestOptions, optimize};
use crate::config::app::{self, Options};
use crate::config::manifest::Manifest;
use crate::guest::artifact::{CompileTarget, PRIVATE, READABLE};
use crate::host::Host;
use crate::registry::oci::progress::TransferProgress;
use crate::registry::oci::store;

#[derive(Debug, Args)]
pub struct BuildOptions {
    #[command(flatten)]
    from: ManifestOptions,

    /// Also compile to native code for any processor of this architecture (x86-64, aarch64): images
    /// that contain it start without compiling
    #[arg(long)]
    aot: bool,

    /// With --aot: use all features of this processor, as `spinfer up` does, for components that
    /// compute much outside of their graph
    #[arg(long, requires = "aot")]
    native: bool,

    /// Make the components about 14 % smaller with Binaryen's `wasm-opt`, which must be installed
    #[arg(long)]
    optimize: bool,

    /// Do not run the build commands of the manifest, for example in an image without a toolchain
    #[arg(long)]
    no_commands: bool,

    #[command(flatten)]
    state: StateDir,
}

/// Builds the components of an application, with progress on standard error.
///
/// # Errors
/// If a build command, `wasm-opt` or the compilation fails.
pub fn run(options: &BuildOptions) -> Result<()> {
    let BuildOptions { from, optimize, aot, native, no_commands, state } = options;
    telemetry::init(LogFormat::Human, LogOptions::default());
    let report = &mut OptionalOutput::new(io::stderr());
    let (mut manifest, base) = from.load()?;
    if !*no_commands {
        run_commands(&manifest, &base, report)?;
    }
    let options = Options { without_values: true, ..Options::default() };
    if *optimize || *aot {
        let mode = if *aot { READABLE } else { PRIVATE };
        let progress = TransferProgress::new(false);
        from.fetch(&mut manifest, &base, &FetchState { dir: state, mode, progress })?;
    }
    if *optimize {
        let app = from.resolve(&manifest, &base, &options)?;
        // Fetched components are named by their digest and shared with other applications.
        let is_own = |source: &Path| !source.parent().is_some_and(|p| p.ends_with(store::FOLDER));
        optimize::run(&app, is_own, report)?;
    }
    if *aot {
        let folder = state.open(&base, READABLE)?;
        let target = if *native { CompileTarget::Native } else { CompileTarget::Portable };
        let count = Host::compile(&from.resolve(&manifest, &base, &options)?, &folder, target)?;
        writeln!(report, "{count} components compiled in {}", folder.display())?;
    }
    Ok(())
}

/// Runs `[component.<id>.build]` of each component, in the order of the manifest, and reports to
/// `progress`. Commands shared by several components run once.
pub(super) fn run_commands(
    manifest: &Manifest,
    base: &Path,
    progress: &mut impl Write,
) -> Result<()> {
    let builds: Vec<_> = app::builds(manifest).collect();
    if builds.is_empty() {
        writeln!(progress, "Nothing to build: no component has [component.<id>.build].")?;
        return Ok(());
    }
    let mut done = Vec::new();
    for (index, (id, build)) in builds.iter().enumerate() {
        let steps = (&build.workdir, build.command.lines());
        if done.contains(&steps) {
            writeln!(progress, "[{}/{}] {id}: built above", index + 1, builds.len())?;
            continue;
        }
        let workdir = build.workdir.as_ref().map_or_else(|| base.to_owned(), |dir| base.join(dir));
        for line in build.command.lines() {
            writeln!(progress, "[{}/{}] {id}: {line}", index + 1, builds.len())?;
            let start = Instant::now();
            run_shell(line, &workdir).with_context(|| format!("component.{id}.build.command"))?;
            writeln!(progress, "      done in {:.1} s", start.elapsed().as_secs_f64())?;
        }
        done.push(steps);
    }
    Ok(())
}

/// Runs a line in a shell. Its output goes to standard error: standard output of `up` is the address.
fn run_shell(line: &str, workdir: &Path) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", line])
        .current_dir(workdir)
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("cannot run `{line}` in {}", workdir.display()))?;
    if !status.success() {
        bail!("`{line}` failed in {}: {status}", workdir.display());
    }
    Ok(())
}
