//! `spinfer registry login` and `logout`: store and remove credentials.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{AccessOptions, block_on};
use crate::registry::oci::auth::TokenScope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::credentials::{self, CredentialLocation, RegistryCredentials};
use crate::registry::oci::reference::RegistryHost;

/// Maximum size of a password, in bytes: tokens of cloud registries have some thousands.
const MAX_PASSWORD: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(super) struct LoginOptions {
    /// Registry: ghcr.io, localhost:5000
    host: RegistryHost,

    /// User name
    #[arg(short, long)]
    user: String,

    /// Read the password from standard input; the default, so that it is in no process list or shell
    /// history
    #[arg(long)]
    password_stdin: bool,

    #[command(flatten)]
    access: AccessOptions,
}

#[derive(Debug, Args)]
pub(super) struct LogoutOptions {
    /// Registry: ghcr.io, localhost:5000
    host: RegistryHost,
}

pub(super) fn login(login: &LoginOptions, out: &mut impl Write) -> Result<()> {
    let LoginOptions { host, user, password_stdin: _, access } = login;
    ensure!(
        !user.is_empty() && !user.contains(':'),
        "--user: must not be empty or contain a colon"
    );
    let password = password()?;
    let transport = access.transport()?;
    let given = RegistryCredentials::Password { user: user.clone(), password: password.clone() };
    let repository = Repository::new(&transport, host, "", Some(given), TokenScope::Login);
    block_on(async { Ok(repository.check_credentials().await?) })
        .with_context(|| format!("{host} rejected this user and password"))?;
    match credentials::store(host, user, &password)? {
        CredentialLocation::File(path) => writeln!(
            out,
            "Logged in to {host} as {user}; the password is stored in {}, readable only by you",
            path.display()
        )?,
        CredentialLocation::Helper(helper) => {
            writeln!(out, "Logged in to {host} as {user}; the password is stored by {helper}")?;
        }
    }
    Ok(())
}

/// Reads the password from standard input, without the line ending.
fn password() -> Result<String> {
    let mut input = io::stdin();
    if input.is_terminal() {
        bail!(
            "the password is not read from a terminal; pipe it in: spinfer registry login ... \
             --password-stdin < file"
        );
    }
    let mut text = String::new();
    let count = input.by_ref().take(MAX_PASSWORD + 1).read_to_string(&mut text);
    let count = count.context("the password on standard input is not text")?;
    ensure!(count as u64 <= MAX_PASSWORD, "the password is longer than {MAX_PASSWORD} bytes");
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    ensure!(!password.is_empty(), "standard input is empty; pipe the password in");
    Ok(password.to_owned())
}

pub(super) fn logout(logout: &LogoutOptions, out: &mut impl Write) -> Result<()> {
    let LogoutOptions { host } = logout;
    match credentials::remove(host)? {
        Some(CredentialLocation::File(path)) => {
            writeln!(
                out,
                "Logged out of {host}: its password was removed from {}",
                path.display()
            )?;
        }
        Some(CredentialLocation::Helper(helper)) => {
            writeln!(out, "Logged out of {host}: its password was removed from {helper}")?;
        }
        None => writeln!(out, "Not logged in to {host}: there is no stored password")?,
    }
    Ok(())
}
