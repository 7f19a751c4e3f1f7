//! `spinfer registry`: pushes and pulls components and model versions to and from OCI registries.

mod login;
mod pull;
mod push;
mod update;

use std::future::Future;
use std::io::Write;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::registry::oci::auth::TokenScope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::credentials::RegistryCredentials;
use crate::registry::oci::reference::{ArtifactReference, RegistryHost};
use crate::registry::oci::transport::{Timeouts, Transport};

#[derive(Debug, Args)]
pub struct RegistryOptions {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    /// Push a component or a model version
    Push(push::PushOptions),
    /// Pull a model version, and add it as `spinfer add` does, or a component, to a file
    Pull(pull::RegistryPullOptions),
    /// Resolve the manifest's packages again, and pin the current digests in spinfer.lock
    Update(update::UpdateOptions),
    /// Store a user and password for a registry, in Docker's configuration
    Login(login::LoginOptions),
    /// Remove the stored user and password of a registry
    Logout(login::LogoutOptions),
}

#[derive(Debug, Args)]
struct AccessOptions {
    /// Use plain HTTP for this registry, as is always done for this machine; can be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_http: Vec<RegistryHost>,
}

impl AccessOptions {
    fn transport(&self) -> Result<Transport> {
        Transport::new(&self.insecure_http, Timeouts::default())
    }
}

/// The repository of `reference`, with the stored credentials.
fn repository<'a>(
    transport: &'a Transport,
    reference: &ArtifactReference,
    scope: impl FnOnce(String) -> TokenScope,
) -> Result<Repository<'a>> {
    let ArtifactReference { host, repository, .. } = reference;
    let credentials = RegistryCredentials::find(host)?;
    Ok(Repository::new(transport, host, repository, credentials, scope(repository.clone())))
}

/// Runs a future to completion.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Runs the command, and prints the result to `out`.
///
/// # Errors
/// If a registry cannot be reached or refuses the request, or a local file does not match.
pub fn run(registry: &RegistryOptions, out: &mut impl Write) -> Result<()> {
    match &registry.command {
        RegistryCommand::Push(push) => push::run(push, out),
        RegistryCommand::Pull(pull) => pull::run(pull, out),
        RegistryCommand::Update(update) => update::run(update, out),
        RegistryCommand::Login(login) => login::login(login, out),
        RegistryCommand::Logout(logout) => login::logout(logout, out),
    }
}
