//! The command line: `spinfer up`, `spinfer build`.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::app::{App, Target};
use crate::artifact::{PRIVATE, READABLE};
use crate::host::Host;
use crate::manifest::{self, Manifest};
use crate::priority::be_prompt;
use crate::telemetry::{self, LogFormat};
use crate::{build, server, tls};

/// Machine-learning models as serverless WebAssembly functions.
#[derive(Debug, Parser)]
#[command(name = "spinfer", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  spinfer up                          serve the spin.toml of this folder on 127.0.0.1:3000
  spinfer up --build                  build its components first
  spinfer build --aot --state-dir .spinfer   compile them to native code too, for an image
  spinfer up -f app/ --listen 0.0.0.0:80
  curl localhost:3000/v2/models/iris-classifier/predict -d '{\"features\": [5.1, 3.5, 1.4, 0.2]}'";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an application
    Up(Up),
    /// Build an application's components
    Build(Build),
}

#[derive(Debug, Args)]
struct From {
    /// The manifest, or the folder that holds a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,
}

#[derive(Debug, Args)]
struct StateDir {
    /// Where to keep compiled components [default: spinfer in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    from: From,

    /// Compile them to native code too, as `spinfer up` would: for images that start at once.
    /// Good for processors with the features of this one
    #[arg(long)]
    aot: bool,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    from: From,

    /// Address to serve on; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,

    /// Serve https: the certificate chain, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    #[command(flatten)]
    state: StateDir,

    /// Build the components first
    #[arg(long)]
    build: bool,

    /// Print only the address, log only warnings
    #[arg(short, long)]
    quiet: bool,

    /// How the log is written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(options) => up(&options),
        Command::Build(options) => build(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if standard error is gone.
            let _ = writeln!(io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl From {
    fn load(&self) -> Result<(Manifest, PathBuf)> {
        let path = if self.from.is_dir() { self.from.join("spin.toml") } else { self.from.clone() };
        let manifest = manifest::read(&path)?;
        let base = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
        Ok((manifest, base))
    }

    fn resolve(&self, manifest: &Manifest, base: &Path) -> Result<App> {
        App::resolve(manifest, base)
            .with_context(|| format!("{} cannot be served", self.from.display()))
    }
}

impl StateDir {
    /// The folder, made if there is none, with the permissions `mode`. What is compiled is native
    /// code: nobody else may write there.
    fn open(&self, base: &Path, mode: u32) -> Result<PathBuf> {
        let folder =
            self.state_dir.clone().or_else(user_cache).unwrap_or_else(|| base.join(".spinfer"));
        let made = DirBuilder::new().recursive(true).mode(mode).create(&folder);
        made.and_then(|()| folder.canonicalize())
            .with_context(|| format!("{}: cannot keep state here (--state-dir)", folder.display()))
    }
}

fn build(options: &Build) -> Result<()> {
    let Build { from, aot, state } = options;
    telemetry::init(LogFormat::Human, false);
    let (manifest, base) = from.load()?;
    build::run(&manifest, &base, &mut io::stderr())?;
    if *aot {
        let folder = state.open(&base, READABLE)?;
        let count = Host::compile(&from.resolve(&manifest, &base)?, &folder)?;
        writeln!(io::stderr(), "{count} components compiled in {}", folder.display())?;
    }
    Ok(())
}

fn up(options: &Up) -> Result<()> {
    let Up { from, listen, tls_cert, tls_key, state, build, quiet, log_format } = options;
    telemetry::init(*log_format, *quiet);
    let tls = tls_cert.as_ref().zip(tls_key.as_ref());
    let tls = tls.map(|(certificate, key)| tls::acceptor(certificate, key)).transpose()?;
    let (manifest, base) = from.load()?;
    if *build {
        build::run(&manifest, &base, &mut io::stderr())?;
    }
    let app = from.resolve(&manifest, &base)?;
    let host = Host::new(&app, &state.open(&base, PRIVATE)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .on_thread_start(be_prompt)
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(&app, host, *listen, tls, *quiet));
    // A guest may be computing still: one that nobody waits for must not hold us up.
    runtime.shutdown_background();
    served
}

/// `spinfer` in the user's cache folder, by the XDG base directory specification. Not beside the
/// manifest: an application from elsewhere could bring compiled code along.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(cache?.join("spinfer"))
}

async fn serve(
    app: &App,
    host: Arc<Host>,
    listen: SocketAddr,
    tls: Option<TlsAcceptor>,
    quiet: bool,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; another address is given by --listen, port 0 is any")
    })?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    announce(app, &host, &format!("{scheme}://{}", listener.local_addr()?), quiet)?;
    let mut asked_to_end = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let (begin, shutdown) = tokio::sync::oneshot::channel::<()>();
    let serving = server::serve(listener, tls, host, async { drop(shutdown.await) });
    let asked_twice = async {
        asked_to_end().await;
        drop(begin);
        asked_to_end().await;
    };
    tokio::select! {
        served = serving => served,
        () = asked_twice => anyhow::bail!("asked to end twice: requests under way were cut off"),
    }
}

fn announce(app: &App, host: &Host, url: &str, quiet: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Serving {url}")?;
    if !quiet {
        writeln!(out, "Routes of {}:", app.name)?;
        let width = app.routes.iter().map(|r| r.pattern.to_string().len()).max().unwrap_or(0);
        for route in &app.routes {
            let (pattern, target) = (route.pattern.to_string(), &route.target);
            let door = match target {
                Target::Component(id) => host.service(id).map(|service| service.door()),
                Target::Static(_) => None,
            };
            let door = door.map(|door| format!(" ({door} door)")).unwrap_or_default();
            writeln!(out, "  {pattern:width$}  {target}{door}")?;
        }
    }
    out.flush()?;
    Ok(())
}
