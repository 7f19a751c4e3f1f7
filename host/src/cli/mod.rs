//! The command line of `spinfer`: a module per command.

pub mod add;
pub mod baseline;
pub mod build;
pub mod cache;
pub mod check;
pub mod completions;
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
pub mod routes;
pub mod spin_flags;
pub mod state_dir;
pub mod telemetry;
pub mod up;
pub mod watch;

mod admin_client;
mod atomic_files;
mod edit;
mod output;
mod signature;
mod sparkline;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::{Args, CommandFactory, Parser, Subcommand};
use spinfer_backend_ort::{Library, OnnxRuntime, Options as OrtOptions};

use self::add::AddOptions;
use self::baseline::BaselineOptions;
use self::build::BuildOptions;
use self::cache::CacheOptions;
use self::check::CheckOptions;
use self::completions::CompletionsOptions;
use self::drift::DriftOptions;
use self::experiment::ExperimentOptions;
use self::health::HealthOptions;
use self::log::LogOptions;
use self::models::ModelsOptions;
use self::new::NewOptions;
use self::output::OptionalOutput;
use self::pull::PullOptions;
use self::registry::RegistryOptions;
use self::routes::RoutesOptions;
use self::state_dir::StateDir;
use self::up::UpOptions;
use self::watch::WatchOptions;
use crate::config::app::{App, Options};
use crate::config::manifest::{self, Manifest};
use crate::inference::trial;
use crate::process::text;
use crate::registry::oci::progress::TransferProgress;
use crate::registry::oci::reference::RegistryHost;
use crate::registry::oci::sources::{self, Fetching, Pinning};

/// Machine-learning models as serverless WebAssembly functions.
#[derive(Debug, Parser)]
#[command(name = "spinfer", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  spinfer add wine.onnx               add an ONNX file as a model with a route
  spinfer pull mlflow models:/iris/3  add a model of MLflow
  spinfer registry pull ghcr.io/acme/wine:1   add a model of an OCI registry
  spinfer models                      list the models of the application
  spinfer check                       find every problem without serving
  spinfer up                          serve ./spin.toml on 127.0.0.1:3000
  spinfer watch                       serve it again when a file changes
  spinfer routes                      list its routes, and what serves them
  spinfer up --build                  build its components first
  spinfer up --variable token=@file   set a variable of the manifest
  spinfer up -f app/ --listen 0.0.0.0:80
  spinfer cache stats                 print hit rates of the response cache
  spinfer drift                       print how far features and outputs have drifted
  spinfer log tail --follow           print each prediction when it is served
  spinfer log export -o log.parquet   export the prediction log for pandas, DuckDB, ...
  spinfer experiment ramp iris treatment=0.2   send 20 % of the users to another version
  spinfer build --optimize            build the components and shrink them for distribution
  spinfer build --aot --state-dir .spinfer     compile them to native code for an image
  curl localhost:3000/v2/models/iris-classifier/predict -d '{\"features\": [5.1, 3.5, 1.4, 0.2]}'";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an application
    Up(UpOptions),
    /// Serve an application, and serve it again when one of its files changes
    Watch(WatchOptions),
    /// Check an application without serving it: manifest, files, components, models
    Check(CheckOptions),
    /// Build the components of an application
    Build(BuildOptions),
    /// Add an ONNX file to an application as a model with a route
    Add(AddOptions),
    /// Add a model from another system to an application: MLflow
    Pull(PullOptions),
    /// List the models of an application
    Models(ModelsOptions),
    /// List the routes of an application, and what serves them
    Routes(RoutesOptions),
    /// Create a model component in Rust
    New(NewOptions),
    /// Print statistics of a host's response cache, or purge cached responses
    Cache(CacheOptions),
    /// Check whether a host is ready, for the health check of a container
    Health(HealthOptions),
    /// Compare a host's recent requests and predictions with reference data
    Drift(DriftOptions),
    /// Compute a model's baseline.json, the reference for drift, from reference data
    Baseline(BaselineOptions),
    /// Push components and models to OCI registries, and pull them
    Registry(RegistryOptions),
    /// Read the prediction log: records, statistics, exports
    Log(LogOptions),
    /// List the experiments of a host, change the shares of variants, or stop an experiment
    Experiment(ExperimentOptions),
    /// Print a script that completes commands and flags in a shell
    Completions(CompletionsOptions),
    /// Try the graph on standard input
    #[command(name = trial::COMMAND, hide = true)]
    TryGraph { memory: u64, seconds: u64, library: PathBuf },
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // `spinfer log tail --follow | head` is not a failure.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // An error of standard error cannot be reported anywhere.
            let _ = writeln!(io::stderr(), "Error: {}", text::cut_lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    // A reader that closes the output ends the commands that only print records, not those that do more.
    let out = &mut OptionalOutput::new(io::stdout());
    match command {
        Command::Up(options) => up::run(&options),
        Command::Watch(options) => watch::run(&options),
        Command::Check(options) => check::run(&options, out),
        Command::Build(options) => build::run(&options),
        Command::Add(options) => add::run(&options, out),
        Command::Pull(options) => pull::run(&options, out),
        Command::Models(options) => models::run(&options, out),
        Command::Routes(options) => routes::run(&options, out),
        Command::New(options) => new::run(&options, out),
        Command::Cache(options) => cache::run(&options, out),
        Command::Health(options) => health::run(&options, out),
        Command::Drift(options) => drift::run(&options, out),
        Command::Baseline(options) => baseline::run(&options, out),
        Command::Registry(options) => registry::run(&options, out),
        Command::Log(options) => log::run(&options, &mut io::stdout()),
        Command::Experiment(options) => experiment::run(&options, out),
        Command::Completions(options) => completions::run(&options, &Cli::command(), out),
        Command::TryGraph { memory, seconds, library } => {
            let limit = usize::try_from(memory).unwrap_or(usize::MAX);
            let options = OrtOptions { library: Library::At(library), memory: limit };
            trial::run(Arc::new(OnnxRuntime::new(options)), memory, seconds)
        }
    }
}

/// Whether an error is that the reader of the output has closed the pipe.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        io.or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind())
    };
    error.chain().filter_map(kind).any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// The manifest options shared by `up`, `check` and `build`.
#[derive(Debug, Args)]
struct ManifestOptions {
    /// Manifest, or the folder with a spin.toml
    #[arg(
        short = 'f',
        long = "from",
        aliases = ["file", "from-file"],
        value_name = "PATH",
        default_value = "spin.toml"
    )]
    from: PathBuf,

    /// Profile to apply to components that have it: [component.<id>.profile.<PROFILE>]
    #[arg(long)]
    profile: Option<String>,

    #[command(flatten)]
    remote: RemoteOptions,
}

/// Options for remote components of a manifest.
#[derive(Debug, Args)]
struct RemoteOptions {
    /// Fetch only packages pinned in spinfer.lock, and pin no new ones
    #[arg(long)]
    locked: bool,

    /// Use plain HTTP for this registry, as is always done for this machine; can be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_http: Vec<RegistryHost>,
}

/// Where fetched components are cached.
struct FetchState<'a> {
    dir: &'a StateDir,
    /// Permissions of created folders.
    mode: u32,
    progress: TransferProgress,
}

impl ManifestOptions {
    /// Path of the manifest.
    fn path(&self) -> PathBuf {
        if self.from.is_dir() { self.from.join("spin.toml") } else { self.from.clone() }
    }

    /// The manifest, and its folder.
    fn load(&self) -> Result<(Manifest, PathBuf)> {
        let path = self.path();
        let mut manifest = manifest::read(&path)?;
        if let Some(profile) = &self.profile {
            manifest.apply_profile(profile).with_context(|| path.display().to_string())?;
        }
        let base = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
        Ok((manifest, base))
    }

    /// Fetches the remote components of `manifest`.
    fn fetch(&self, manifest: &mut Manifest, base: &Path, state: &FetchState<'_>) -> Result<()> {
        if !sources::has_remote(manifest) {
            return Ok(());
        }
        let FetchState { dir, mode, progress } = *state;
        let RemoteOptions { locked, insecure_http } = &self.remote;
        let fetching = Fetching {
            base,
            state: &dir.open(base, mode)?,
            mode,
            plain_http: insecure_http,
            pinning: if *locked { Pinning::Locked } else { Pinning::New },
            progress,
        };
        sources::fetch(manifest, &fetching).map(drop).map_err(|error| self.unserved(error))
    }

    /// Resolves `manifest`, whose folder is `base`.
    fn resolve(&self, manifest: &Manifest, base: &Path, options: &Options) -> Result<App> {
        App::resolve_with(manifest, base, options).map_err(|error| self.unserved(error))
    }

    /// An error that keeps the application from being served. Several problems start on their own line.
    fn unserved(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        let problems = format!("{:#}", error.into());
        let separator = if problems.contains('\n') { "\n" } else { " " };
        anyhow!("{}:{separator}{problems}", self.cannot_be_served())
    }

    /// The start of an error that keeps the application from being served.
    fn cannot_be_served(&self) -> String {
        format!("{} cannot be served", self.from.display())
    }
}
