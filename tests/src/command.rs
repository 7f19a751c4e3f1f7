//! Commands of the binary other than `spinfer up`.

use std::process::{Command, ExitStatus};

use crate::binary;

/// Runs the binary with `arguments`: the exit status and the output.
#[must_use]
pub fn run(arguments: &[&str]) -> (ExitStatus, String) {
    run_in(&[], arguments)
}

/// [`run`] with more environment variables.
#[must_use]
pub fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> (ExitStatus, String) {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    output(command)
}

/// The exit status of a command, and its standard output and standard error.
pub(crate) fn output(mut command: Command) -> (ExitStatus, String) {
    let output = command.output().expect("the binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("SPINFER_LOG").env_remove("SPINFER_ADMIN_TOKEN");
    command
}
