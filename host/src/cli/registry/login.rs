//! `spinfer registry login` and `logout`.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{Access, block_on};
use crate::registry::oci::auth::Scope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::credentials::{self, Credentials, Kept};
use crate::registry::oci::reference::Host;

/// Bytes of a password: tokens of cloud registries have some thousands.
const MAX_PASSWORD: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(super) struct Login {
    /// The registry: ghcr.io, localhost:5000
    host: Host,

    /// The user
    #[arg(short, long)]
    user: String,

    /// Read the password from standard input, as is done anyway: no list of processes, and no shell's
    /// history, has it then
    #[arg(long)]
    password_stdin: bool,

    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(super) struct Logout {
    /// The registry: ghcr.io, localhost:5000
    host: Host,
}

pub(super) fn login(login: &Login, out: &mut impl Write) -> Result<()> {
    let Login { host, user, password_stdin: _, access } = login;
    ensure!(!user.is_empty() && !user.contains(':'), "--user: a user's name has no colon");
    let password = password()?;
    let transport = access.transport()?;
    let given = Credentials::Password { user: user.clone(), password: password.clone() };
    let repository = Repository::new(&transport, host, "", Some(given), Scope::Login);
    block_on(async { Ok(repository.check_credentials().await?) })
        .with_context(|| format!("{host} does not take this user and password"))?;
    match credentials::keep(host, user, &password)? {
        Kept::File(path) => writeln!(
            out,
            "Logged in to {host} as {user}; the password is in {}, which only you may read",
            path.display()
        )?,
        Kept::Helper(helper) => {
            writeln!(out, "Logged in to {host} as {user}; {helper} has the password")?;
        }
    }
    Ok(())
}

/// What standard input has, without the end of its line.
fn password() -> Result<String> {
    let mut input = io::stdin();
    if input.is_terminal() {
        bail!(
            "the password is read from standard input, where it is not shown: \
             spinfer registry login ... --password-stdin < file"
        );
    }
    let mut text = String::new();
    let count = input.by_ref().take(MAX_PASSWORD + 1).read_to_string(&mut text);
    let count = count.context("the password on standard input is not text")?;
    ensure!(count as u64 <= MAX_PASSWORD, "standard input is too long for a password");
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    ensure!(!password.is_empty(), "standard input has no password");
    Ok(password.to_owned())
}

pub(super) fn logout(logout: &Logout, out: &mut impl Write) -> Result<()> {
    let Logout { host } = logout;
    match credentials::forget(host)? {
        Some(Kept::File(path)) => {
            writeln!(out, "Logged out of {host}: its password is removed from {}", path.display())?;
        }
        Some(Kept::Helper(helper)) => {
            writeln!(out, "Logged out of {host}: its password is removed from {helper}")?;
        }
        None => writeln!(out, "There was no password for {host}")?,
    }
    Ok(())
}
