//! `spinfer check`: everything that `up` does before it serves, including loading the models, except
//! that it leaves the state of the application unchanged.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use super::flags::Flags;
use super::state_dir::StateDir;
use super::telemetry::{self, LogFormat, LogOptions};
use super::{FetchState, ManifestOptions};
use crate::config::app::App;
use crate::guest::artifact::PRIVATE;
use crate::host::Host;
use crate::registry::oci::progress::TransferProgress;

#[derive(Debug, Args)]
pub struct CheckOptions {
    #[command(flatten)]
    from: ManifestOptions,

    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    state: StateDir,
}

/// Checks an application, and prints the number of its routes and components to `out`.
///
/// # Errors
/// Every problem that keeps the application from being served.
pub fn run(options: &CheckOptions, out: &mut impl Write) -> Result<()> {
    let CheckOptions { from, flags, state } = options;
    telemetry::init(LogFormat::Human, LogOptions { quiet: true, ..LogOptions::default() });
    let app = check(from, flags, state)?;
    writeln!(
        out,
        "{}: no problems found ({}, {})",
        from.from.display(),
        counted(app.routes.len(), "route"),
        counted(app.components.len(), "component")
    )?;
    Ok(())
}

/// A number of things, in the singular or the plural.
fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Checks an application as far as it can be without a socket.
pub(super) fn check(from: &ManifestOptions, flags: &Flags, state: &StateDir) -> Result<App> {
    let (mut manifest, base) = from.load()?;
    let (mut options, state_dir) = flags.read(&base)?;
    let state = state.or(state_dir);
    options.state_dir.clone_from(&state.state_dir);
    let progress = TransferProgress::new(false);
    from.fetch(&mut manifest, &base, &FetchState { dir: &state, mode: PRIVATE, progress })?;
    let mut app = from.resolve(&manifest, &base, &options)?;
    let _scratch = use_scratch_state(&mut app)?;
    let host = Host::without_log(&app, &state.open(&base, PRIVATE)?)
        .map_err(|error| from.unserved(error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(host.load_models());
    host.ready().map_err(|error| from.unserved(error))?;
    let refusals = runtime.block_on(host.refusals());
    ensure!(refusals.is_empty(), "{}:\n{}", from.cannot_be_served(), refusals.join("\n"));
    Ok(app)
}

/// Gives `app` an empty folder for its key-value stores, databases and keys, which is removed on drop:
/// a command that does not serve leaves the state of the application unchanged, which a host may be
/// using.
pub(super) fn use_scratch_state(app: &mut App) -> Result<TempDir> {
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    for folder in [&mut app.state_folder, &mut app.key_value.folder, &mut app.sqlite.folder] {
        *folder = scratch.path().to_owned();
    }
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_in_the_singular() {
        let texts = [0, 1, 2].map(|number| counted(number, "route"));
        assert_eq!(texts, ["0 routes", "1 route", "2 routes"]);
    }
}
