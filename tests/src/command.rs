//! Commands of the binary that run to their end.

use std::process::{Command, ExitStatus};

use crate::{Manifest, binary, state_dir};

/// Runs the binary with `arguments` to its end.
#[must_use]
pub fn run(arguments: &[&str]) -> (ExitStatus, String) {
    run_in(&[], arguments)
}

/// The same with more in its environment.
#[must_use]
pub fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> (ExitStatus, String) {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    let output = command.output().expect("the binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// `spinfer up` on a manifest that must be refused: what it says.
#[must_use]
pub fn refused(manifest: &str) -> String {
    refuse(manifest, &["--no-admin"])
}

/// The same with arguments that must be.
#[must_use]
pub fn refused_with(manifest: &Manifest, arguments: &[&str]) -> String {
    refuse(manifest.text(), arguments)
}

fn refuse(manifest: &str, arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest).expect("a temporary file");
    let path = path.to_str().expect("a temporary path is UTF-8");
    let state_dir = state_dir();
    let state_dir = state_dir.to_str().expect("the repository's path is UTF-8");
    let up = ["up", "--listen", "127.0.0.1:0", "--from", path, "--state-dir", state_dir];
    let (status, text) = run(&[&up, arguments].concat());
    assert!(!status.success(), "it was served:\n{text}");
    text
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("SPINFER_LOG").env_remove("SPINFER_ADMIN_TOKEN");
    command
}
