//! `spinfer completions`: scripts that complete commands and flags in a shell.

use std::io::Write;

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

/// Name of the binary in the scripts.
const BINARY: &str = "spinfer";

#[derive(Debug, Args)]
#[command(after_help = INSTALL)]
pub struct CompletionsOptions {
    /// Shell to complete in
    #[arg(value_enum)]
    shell: Shell,
}

const INSTALL: &str = "\
Install:
  bash  spinfer completions bash > ~/.local/share/bash-completion/completions/spinfer
  zsh   spinfer completions zsh > ~/.zfunc/_spinfer     (with fpath+=~/.zfunc before compinit)
  fish  spinfer completions fish > ~/.config/fish/completions/spinfer.fish";

/// Writes the script for `command` to `out`.
///
/// # Errors
/// If `out` cannot be written.
pub fn run(options: &CompletionsOptions, command: &Command, out: &mut impl Write) -> Result<()> {
    // Generated in memory, as the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut visible(command), BINARY, &mut script);
    out.write_all(&script)?;
    Ok(())
}

/// `command` without hidden flags and subcommands, which the generator would complete.
fn visible(command: &Command) -> Command {
    // The name has to live as long as the process, which exits after the script.
    let name: &'static str = command.get_name().to_owned().leak();
    let flags = command.get_arguments().filter(|flag| !flag.is_hide_set());
    let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let mut shown = Command::new(name).args(flags).subcommands(subcommands.map(visible));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    shown
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn hidden_flags_and_subcommands_are_not_completed() {
        let up = Command::new("up").about("Serve").arg(Arg::new("listen").long("listen"));
        let up = up.arg(Arg::new("secret").long("secret").hide(true));
        let command = Command::new(BINARY).subcommand(up).subcommand(Command::new("x").hide(true));
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            run(&CompletionsOptions { shell }, &command, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("listen") && !script.contains("secret"), "{shell}: {script}");
        }
    }
}
