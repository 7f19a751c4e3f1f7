//! The command line: `spinfer up`, `spinfer check`, `spinfer build`, and the [`commands`].

pub mod add;
pub mod baseline;
pub mod build;
pub mod cache;
pub mod drift;
pub mod experiment;
pub mod flags;
pub mod health;
pub mod log;
pub mod models;
pub mod new;
pub mod optimize;
pub mod pull;
pub mod registry;
pub mod state_dir;
pub mod telemetry;

mod admin_client;
mod atomic_files;
mod edit;
mod signature;
mod sparkline;
mod table;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use spinfer_backend_ort::{Library, OnnxRuntime, Options as OrtOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::admin::{Admin, METRICS};
use crate::config::app::{App, Options, Target};
use crate::guest::artifact::{Makes, PRIVATE, READABLE};
use add::{Add};
use baseline::{BaselineCommand};
use cache::{Cache};
use drift::{Drift};
use experiment::{Experiment};
use health::{Health};
use log::{Log};
use models::{Models};
use new::{New};
use pull::{Pull};
use registry::{Registry};
use flags::Flags;
use crate::host::Host;
use crate::inference::trial;
use crate::server::listen_address::{self, ListenAddress};
use crate::config::manifest::{self, Manifest};
use crate::process::heap;
use crate::process::priority::be_prompt;
use crate::registry::oci::progress::Progress;
use crate::registry::oci::reference::Host as RegistryHost;
use crate::registry::oci::sources::{self, Fetching, Pinning};
use crate::registry::oci::store;
use state_dir::StateDir;
use telemetry::{LogFormat};
use crate::server::{self, tls};

/// How long a thread for what blocks waits for more of it: less than what it loaded stays in memory, as
/// a thread that waits keeps what others free of it.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// How long prediction records have to be written after the last request was served.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// Machine-learning models as serverless WebAssembly functions.
#[derive(Debug, Parser)]
#[command(name = "spinfer", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  spinfer add wine.onnx               make an ONNX file a model here, with a route
  spinfer pull mlflow models:/iris/3  the same with a model of MLflow
  spinfer models                      list its models
  spinfer up                          serve the spin.toml of this folder on 127.0.0.1:3000
  spinfer up --build                  build its components first
  spinfer up --variable token=@file   give a variable of the manifest its value
  spinfer check                       find all that is wrong, serve nothing
  spinfer registry pull ghcr.io/acme/wine:1  have a model of a registry here, with a route
  spinfer cache stats                 how often the response cache has an answer
  spinfer drift                       which features and outputs have moved, by how much
  spinfer log tail --follow           see predictions as they are served
  spinfer log export -o log.parquet   the prediction log for pandas, DuckDB, ...
  spinfer experiment ramp iris treatment=0.2   send a fifth of the users to another version
  spinfer build --optimize            build its components and make them smaller, to hand them out
  spinfer build --aot --state-dir .spinfer   compile them to native code too, for an image
  spinfer up -f app/ --listen 0.0.0.0:80
  curl localhost:3000/v2/models/iris-classifier/predict -d '{\"features\": [5.1, 3.5, 1.4, 0.2]}'";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an application
    Up(Up),
    /// Check an application without serving it: manifest, files, components, models
    Check(Check),
    /// Build an application's components
    Build(Build),
    /// Add a model to an application: an ONNX file becomes a route
    Add(Add),
    /// Add a model from elsewhere to an application: from MLflow
    Pull(Pull),
    /// List an application's models
    Models(Models),
    /// Make a model component of your own
    New(New),
    /// See what the response cache of a host does, or have it forget answers
    Cache(Cache),
    /// Check whether a host is ready: for the health check of a container
    Health(Health),
    /// Compare what models are asked and predict with their reference data
    Drift(Drift),
    /// Make a model's baseline.json, which drift is told from, from reference data
    Baseline(BaselineCommand),
    /// Push components and models to OCI registries, and pull them
    Registry(Registry),
    /// See the prediction log: its records, statistics, exports
    Log(Log),
    /// See the experiments of a host, change the shares of their variants, or end one
    Experiment(Experiment),
    /// Try the graph on standard input
    #[command(name = trial::COMMAND, hide = true)]
    TryGraph { memory: u64, seconds: u64, library: PathBuf },
}

#[derive(Debug, Args)]
struct From {
    /// The manifest, or the folder that holds a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    /// Use this profile of components that have it: [component.<id>.profile.<PROFILE>]
    #[arg(long)]
    profile: Option<String>,

    #[command(flatten)]
    remote: Remote,
}

/// Components that the manifest has elsewhere.
#[derive(Debug, Args)]
struct Remote {
    /// Fetch packages only if spinfer.lock has what they are: nothing new is pinned
    #[arg(long)]
    locked: bool,

    /// Ask this host over plain HTTP for components; this machine is always. May be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_http: Vec<RegistryHost>,
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    from: From,

    /// Compile them to native code too, for images that start at once, on any processor of this kind
    /// (x86-64, aarch64)
    #[arg(long)]
    aot: bool,

    /// With --aot: only for processors with the features of this one, as `spinfer up` would. For
    /// components that compute much by themselves
    #[arg(long, requires = "aot")]
    native: bool,

    /// Make them smaller with `wasm-opt`, a part of Binaryen that has to be installed: a seventh
    /// of what Rust builds
    #[arg(long)]
    optimize: bool,

    /// Do not run the build commands of the manifest: the components are built, for example where an
    /// image has no toolchain
    #[arg(long)]
    no_commands: bool,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    from: From,

    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    from: From,

    /// Address to serve on, such as localhost:3000 or [::1]:3000; port 0 takes a free one. A name is
    /// resolved once, at the start; of several addresses the first is served that this machine has,
    /// IPv4 before IPv6
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
    listen: ListenAddress,

    /// Address of the admin plane: metrics, cache statistics [default: 127.0.0.1:3001, or any port if
    /// that is taken]. Beyond loopback SPINFER_ADMIN_TOKEN has to be set
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "no_admin")]
    admin: Option<ListenAddress>,

    /// Serve no admin plane
    #[arg(long)]
    no_admin: bool,

    /// If another process listens there, take the next port that is free, of ten
    #[arg(long)]
    find_free_port: bool,

    /// Serve https: the certificate chain, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    #[command(flatten)]
    flags: Flags,

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
        Command::Check(options) => check(&options),
        Command::Build(options) => build(&options),
        Command::Add(options) => add::run(&options, &mut io::stdout()),
        Command::Pull(options) => pull::run(&options, &mut io::stdout()),
        Command::Models(options) => models::run(&options, &mut io::stdout()),
        Command::New(options) => new::run(&options, &mut io::stdout()),
        Command::Cache(options) => cache::run(&options, &mut io::stdout()),
        Command::Health(options) => health::run(&options, &mut io::stdout()),
        Command::Drift(options) => drift::run(&options, &mut io::stdout()),
        Command::Baseline(options) => baseline::run(&options, &mut io::stdout()),
        Command::Registry(options) => registry::run(&options, &mut io::stdout()),
        Command::Log(options) => log::run(&options, &mut io::stdout()),
        Command::Experiment(options) => experiment::run(&options, &mut io::stdout()),
        Command::TryGraph { memory, seconds, library } => {
            let limit = usize::try_from(memory).unwrap_or(usize::MAX);
            let options = OrtOptions { library: Library::At(library), memory: limit };
            trial::run(Arc::new(OnnxRuntime::new(options)), memory, seconds)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `spinfer drift | head` is no failure.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if standard error is gone.
            let _ = writeln!(io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether whoever reads what is printed has had enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        io.or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind())
    };
    error.chain().filter_map(kind).any(|kind| kind == io::ErrorKind::BrokenPipe)
}

impl From {
    fn load(&self) -> Result<(Manifest, PathBuf)> {
        let path = if self.from.is_dir() { self.from.join("spin.toml") } else { self.from.clone() };
        let mut manifest = manifest::read(&path)?;
        if let Some(profile) = &self.profile {
            manifest.apply_profile(profile).with_context(|| path.display().to_string())?;
        }
        let base = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
        Ok((manifest, base))
    }

    /// Has the components here that the manifest has elsewhere.
    fn fetch(&self, manifest: &mut Manifest, base: &Path, state: &State<'_>) -> Result<()> {
        if !sources::has_remote(manifest) {
            return Ok(());
        }
        let State { dir, mode, progress } = *state;
        let Remote { locked, insecure_http } = &self.remote;
        let fetching = Fetching {
            base,
            state: &dir.open(base, mode)?,
            mode,
            plain_http: insecure_http,
            pinning: if *locked { Pinning::Locked } else { Pinning::New },
            progress,
        };
        sources::fetch(manifest, &fetching)
            .map(drop)
            .with_context(|| format!("{} cannot be served", self.from.display()))
    }

    fn resolve(&self, manifest: &Manifest, base: &Path, options: &Options) -> Result<App> {
        App::resolve_with(manifest, base, options)
            .with_context(|| format!("{} cannot be served", self.from.display()))
    }
}

/// Where components are kept that are fetched.
struct State<'a> {
    dir: &'a StateDir,
    /// Permissions of what is created.
    mode: u32,
    progress: Progress,
}

fn build(options: &Build) -> Result<()> {
    let Build { from, optimize, aot, native, no_commands, state } = options;
    telemetry::init(LogFormat::Human, false);
    let (mut manifest, base) = from.load()?;
    if !*no_commands {
        build::run(&manifest, &base, &mut io::stderr())?;
    }
    let options = Options { without_values: true, ..Options::default() };
    if *optimize || *aot {
        let mode = if *aot { READABLE } else { PRIVATE };
        let state = State { dir: state, mode, progress: Progress::new(false) };
        from.fetch(&mut manifest, &base, &state)?;
    }
    if *optimize {
        let app = from.resolve(&manifest, &base, &options)?;
        // What was fetched is named by its digest, and other applications have it too.
        let is_own = |source: &Path| !source.parent().is_some_and(|p| p.ends_with(store::FOLDER));
        optimize::run(&app, is_own, &mut io::stderr())?;
    }
    if *aot {
        let folder = state.open(&base, READABLE)?;
        let makes = if *native { Makes::Native } else { Makes::Portable };
        let count = Host::compile(&from.resolve(&manifest, &base, &options)?, &folder, makes)?;
        writeln!(io::stderr(), "{count} components compiled in {}", folder.display())?;
    }
    Ok(())
}

/// All that `up` does before it serves, models loaded included.
fn check(options: &Check) -> Result<()> {
    let Check { from, flags, state } = options;
    telemetry::init(LogFormat::Human, true);
    let (mut manifest, base) = from.load()?;
    let (mut options, state_dir) = flags.read(&base)?;
    let state = state.or(state_dir);
    options.state_dir.clone_from(&state.state_dir);
    let fetched = State { dir: &state, mode: PRIVATE, progress: Progress::new(false) };
    from.fetch(&mut manifest, &base, &fetched)?;
    let app = from.resolve(&manifest, &base, &options)?;
    let host = Host::new(&app, &state.open(&base, PRIVATE)?)
        .with_context(|| format!("{} cannot be served", from.from.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(host.load_models());
    host.ready().with_context(|| format!("{} cannot be served", from.from.display()))?;
    let (routes, components) = (app.routes.len(), app.components.len());
    writeln!(
        io::stdout(),
        "{}: nothing is wrong ({routes} routes, {components} components)",
        from.from.display()
    )?;
    Ok(())
}

fn up(options: &Up) -> Result<()> {
    let Up {
        from,
        listen,
        admin,
        no_admin,
        find_free_port,
        tls_cert,
        tls_key,
        flags,
        state,
        build,
        quiet,
        log_format,
    } = options;
    telemetry::init(*log_format, *quiet);
    let tls = tls_cert.as_ref().zip(tls_key.as_ref());
    let tls = tls.map(|(certificate, key)| tls::acceptor(certificate, key)).transpose()?;
    let (mut manifest, base) = from.load()?;
    if *build {
        build::run(&manifest, &base, &mut io::stderr())?;
    }
    let (mut options, state_dir) = flags.read(&base)?;
    let state = state.or(state_dir);
    options.state_dir.clone_from(&state.state_dir);
    let fetched = State { dir: &state, mode: PRIVATE, progress: Progress::new(*quiet) };
    from.fetch(&mut manifest, &base, &fetched)?;
    let app = from.resolve(&manifest, &base, &options)?;
    let state = state.open(&base, PRIVATE)?;
    // On a thread that ends: what the others free of what it made goes back at once.
    let making = || thread::scope(|scope| scope.spawn(|| Host::new(&app, &state)).join());
    let host = making().unwrap_or_else(|panic| resume_unwind(panic))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .on_thread_start(be_prompt)
        .on_thread_park(heap::rest)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()?;
    let ports = if *find_free_port { PORTS_TRIED } else { 1 };
    let serving = async {
        let listener = bind(listen, ports).await?;
        let admin = if *no_admin { None } else { Some(Admin::bind(admin.as_ref()).await?) };
        serve(&app, Arc::clone(&host), listener, admin, tls, *quiet).await
    };
    let served = runtime.block_on(serving);
    // A guest may be computing still: one that nobody waits for must not hold us up.
    runtime.shutdown_background();
    if let Some(log) = host.prediction_log() {
        log.shut_down(LOG_TIMEOUT);
    }
    host.remove_copies();
    served
}

/// Ports that `--find-free-port` tries.
const PORTS_TRIED: u16 = 10;

/// Listens on `listen`, or on the first of the next ports that is free, `ports` in all.
async fn bind(listen: &ListenAddress, ports: u16) -> Result<TcpListener> {
    let mut addresses = listen.resolve().await?;
    for left in (0..ports).rev() {
        match listen_address::bind(&addresses).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && left > 0 => {
                let next = addresses[0].port().checked_add(1);
                let Some(next) = next else { break };
                addresses.iter_mut().for_each(|address| address.set_port(next));
            }
            bound => {
                return bound.with_context(|| {
                    let tried: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                    format!(
                        "cannot listen on {}; another address is given by --listen, port 0 is any, \
                         --find-free-port takes the next",
                        tried.join(" or ")
                    )
                });
            }
        }
    }
    anyhow::bail!("no port is free from {listen} on; --listen with port 0 takes any")
}

async fn serve(
    app: &App,
    host: Arc<Host>,
    listener: TcpListener,
    admin: Option<Admin>,
    tls: Option<TlsAcceptor>,
    quiet: bool,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);
    announce(app, &host, &url, admin.as_ref().map(Admin::address), quiet)?;
    if let Some(admin) = admin {
        // Until the process ends: what goes on while it drains can be seen.
        tokio::spawn(admin.serve(Arc::clone(&host)));
    }
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

fn announce(
    app: &App,
    host: &Host,
    url: &str,
    admin: Option<SocketAddr>,
    quiet: bool,
) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Serving {url}")?;
    if !quiet {
        if let Some(admin) = admin {
            writeln!(out, "Metrics at http://{admin}{METRICS}")?;
        }
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
