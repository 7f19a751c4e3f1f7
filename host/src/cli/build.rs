//! `spinfer build`: runs each component's `[component.<id>.build]`.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::config::app;
use crate::config::manifest::Manifest;

/// Builds the components in manifest order, telling `progress` how it goes. What several components
/// have in common runs once.
pub fn run(manifest: &Manifest, base: &Path, progress: &mut impl Write) -> Result<()> {
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
            shell(line, &workdir).with_context(|| format!("component.{id}.build.command"))?;
            writeln!(progress, "      done in {:.1} s", start.elapsed().as_secs_f64())?;
        }
        done.push(steps);
    }
    Ok(())
}

/// Its output goes to standard error: standard output says where the application is served.
fn shell(line: &str, workdir: &Path) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", line])
        .current_dir(workdir)
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run `{line}` in {}", workdir.display()))?;
    if !status.success() {
        bail!("`{line}` failed in {}: {status}", workdir.display());
    }
    Ok(())
}
