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
pub fn run(options: &CompletionsOptions, mut command: Command, out: &mut impl Write) -> Result<()> {
    // Generated in memory, as the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, BINARY, &mut script);
    out.write_all(&script)?;
    Ok(())
}
