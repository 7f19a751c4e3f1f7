//! `spinfer registry`: components and model versions to and from OCI registries.

mod login;
mod pull;
mod push;
mod update;

use std::future::Future;
use std::io::Write;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::registry::oci::auth::Scope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::credentials::Credentials;
use crate::registry::oci::reference::{Host, Reference};
use crate::registry::oci::transport::{Timeouts, Transport};

#[derive(Debug, Args)]
pub struct Registry {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push a component, or a version of a model
    Push(push::Push),
    /// Pull what was pushed: a model is added as `spinfer add` does, a component is written to a file
    Pull(pull::Pull),
    /// Take what registries have now for the manifest's packages, into spinfer.lock
    Update(update::Update),
    /// Keep a user and a password for a registry, where Docker's tools keep theirs
    Login(login::Login),
    /// Remove the user and password kept for a registry
    Logout(login::Logout),
}

#[derive(Debug, Args)]
struct Access {
    /// Ask this host over plain HTTP; this machine is always. May be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_http: Vec<Host>,
}

impl Access {
    fn transport(&self) -> Result<Transport> {
        Transport::new(&self.insecure_http, Timeouts::default())
    }
}

/// The repository of `reference`, with the credentials there are for it.
fn repository<'a>(
    transport: &'a Transport,
    reference: &Reference,
    scope: impl FnOnce(String) -> Scope,
) -> Result<Repository<'a>> {
    let Reference { host, repository, .. } = reference;
    let credentials = Credentials::find(host)?;
    Ok(Repository::new(transport, host, repository, credentials, scope(repository.clone())))
}

/// Runs what is asynchronous to its end.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Tells `out` what was done.
pub fn run(registry: &Registry, out: &mut impl Write) -> Result<()> {
    match &registry.command {
        Command::Push(push) => push::run(push, out),
        Command::Pull(pull) => pull::run(pull, out),
        Command::Update(update) => update::run(update, out),
        Command::Login(login) => login::login(login, out),
        Command::Logout(logout) => login::logout(logout, out),
    }
}
