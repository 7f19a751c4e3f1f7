//! The command line: `spinfer up`, `spinfer build`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::host::Host;
use crate::manifest::{self, Manifest};
use crate::telemetry::{self, LogFormat};
use crate::{build, server};

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
  spinfer up -f app/ --listen 0.0.0.0:80
  curl localhost:3000/v2/models/iris-classifier/predict -d '{\"features\": [5.1, 3.5, 1.4, 0.2]}'";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an application
    Up(Up),
    /// Build an application's components
    Build(From),
}

#[derive(Debug, Args)]
struct From {
    /// The manifest, or the folder that holds a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    from: From,

    /// Address to serve on; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,

    /// Where to keep compiled components [default: .spinfer beside the manifest]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

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
        Command::Build(from) => {
            from.load().and_then(|(manifest, base)| build::run(&manifest, &base, &mut io::stderr()))
        }
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

fn up(options: &Up) -> Result<()> {
    let Up { from, listen, state_dir, build, quiet, log_format } = options;
    telemetry::init(*log_format, *quiet);
    let (manifest, base) = from.load()?;
    if *build {
        build::run(&manifest, &base, &mut io::stderr())?;
    }
    let app = from.resolve(&manifest, &base)?;
    let state_dir = state_dir.clone().unwrap_or_else(|| base.join(".spinfer"));
    std::fs::create_dir_all(&state_dir)
        .and_then(|()| state_dir.canonicalize())
        .with_context(|| format!("{}: cannot keep state here (--state-dir)", state_dir.display()))
        .and_then(|state_dir| {
            let host = Arc::new(Host::new(&app, &state_dir)?);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(&app, host, *listen, *quiet))
        })
}

async fn serve(app: &App, host: Arc<Host>, listen: SocketAddr, quiet: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; another address is given by --listen, port 0 is any")
    })?;
    announce(app, &host, listener.local_addr()?, quiet)?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server::serve(listener, host, shutdown).await
}

fn announce(app: &App, host: &Host, address: SocketAddr, quiet: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Serving http://{address}")?;
    if !quiet {
        writeln!(out, "Routes of {}:", app.name)?;
        let width = app.routes.iter().map(|r| r.pattern.to_string().len()).max().unwrap_or(0);
        for route in &app.routes {
            let doors = host.service(&route.component).map_or("", |service| service.doors());
            let pattern = route.pattern.to_string();
            writeln!(out, "  {pattern:width$}  {} ({doors} door)", route.component)?;
        }
    }
    out.flush()?;
    Ok(())
}
