//! `spinfer up`: serves an application until the process is terminated.

mod signals;
mod startup;

use std::io;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::FalseyValueParser;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use self::signals::Signals;
use self::startup::{Startup, example};
use super::flags::{self, Flags};
use super::output::OptionalOutput;
use super::spin_flags::SpinFlags;
use super::state_dir::StateDir;
use super::telemetry::{self, LogFormat, LogOptions};
use super::{FetchState, ManifestOptions, build, check};
use crate::admin::{Admin, AdminListener};
use crate::config::app::App;
use crate::config::instance_reuse::parse_duration_or_range;
use crate::guest::artifact::PRIVATE;
use crate::host::Host;
use crate::process::priority::shorten_time_slice;
use crate::process::{heap, open_files};
use crate::registry::oci::progress::TransferProgress;
use crate::server::connections::Drain;
use crate::server::listen_address::{BoundAddress, ListenAddress};
use crate::server::{self, tls};
use crate::storage::sqlite::InitialStatements;

/// Idle timeout of threads for blocking work: an idle thread keeps memory that other threads free from
/// being returned to the system.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Maximum time to write prediction records after the last request.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of ports that `--find-free-port` tries.
const PORTS_TRIED: u16 = 10;

#[derive(Debug, Args)]
pub struct UpOptions {
    #[command(flatten)]
    from: ManifestOptions,

    /// Address to serve on, such as localhost:3000 or [::1]:3000; 3000 and :3000 are on 127.0.0.1, and
    /// port 0 takes a free one. A name is resolved once at startup; of several addresses, the first that
    /// this machine has is used, IPv4 before IPv6
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SPIN_HTTP_LISTEN_ADDR",
        default_value = "127.0.0.1:3000"
    )]
    listen: ListenAddress,

    /// Address of the admin plane: metrics, cache statistics [default: 127.0.0.1:3001, or a free port
    /// if that is taken]. Addresses other than loopback require SPINFER_ADMIN_TOKEN
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "no_admin")]
    admin: Option<ListenAddress>,

    /// Disable the admin plane
    #[arg(long)]
    no_admin: bool,

    /// If the port is taken, use the next free one, of at most ten
    #[arg(long)]
    find_free_port: bool,

    /// Serve HTTPS with this certificate chain, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "SPIN_TLS_CERT", hide_env = true)]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "SPIN_TLS_KEY", hide_env = true)]
    tls_key: Option<PathBuf>,

    /// Execute SQL before serving; can be repeated. @FILE reads it from a file, for the database
    /// `default` or that of LABEL
    #[arg(long, value_name = "STATEMENT|@FILE[:LABEL]")]
    sqlite: Vec<InitialStatements>,

    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    state: StateDir,

    /// Set an entry of the default key-value store before serving; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = flags::pair)]
    key_value: Vec<(String, String)>,

    /// Log the output of this component only; can be repeated
    #[arg(long, value_name = "ID", conflicts_with = "quiet")]
    follow: Vec<String>,

    /// Empty the files of --log-dir first
    #[arg(long)]
    truncate_logs: bool,

    /// Build the components first
    #[arg(long, env = "SPIN_ALWAYS_BUILD", hide_env = true,
          value_parser = FalseyValueParser::new())]
    build: bool,

    /// Time from SIGTERM until connections are refused. Until then the host is not ready, but serves
    /// requests and closes each connection after its response, while load balancers take it out of
    /// service. SIGINT (Ctrl-C) waits one second at most, and only for open connections
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration_or_range)]
    drain: Duration,

    /// Log each request: method, path, status, duration and route
    #[arg(long)]
    log_requests: bool,

    /// Print only the address, log only warnings
    #[arg(short, long, aliases = ["sh", "shush"])]
    quiet: bool,

    #[command(flatten)]
    spin: SpinFlags,

    /// Check the application, and exit
    #[arg(long, hide = true)]
    check_only: bool,

    /// Exit with the parent process
    #[arg(long, hide = true)]
    ends_with_parent: bool,

    /// Format of the log
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl UpOptions {
    /// The manifest to serve.
    pub(super) fn manifest(&self) -> &ManifestOptions {
        &self.from
    }
}

/// Serves an application until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// If the application cannot be served, or a second signal aborts the drain.
pub fn run(options: &UpOptions) -> Result<()> {
    let UpOptions {
        from,
        listen,
        admin,
        no_admin,
        find_free_port,
        tls_cert,
        tls_key,
        sqlite,
        flags,
        state,
        key_value,
        follow,
        truncate_logs,
        build,
        drain,
        log_requests,
        quiet,
        spin,
        check_only,
        ends_with_parent,
        log_format,
    } = options;

    if *ends_with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    }

    // 1 Bind the addresses, and resolve the application.
    let startup = Startup::new(Instant::now(), *quiet);
    telemetry::init(
        *log_format,
        LogOptions { quiet: *quiet || *check_only, requests: *log_requests },
    );
    spin.check()?;
    if *check_only {
        return check::check(from, flags, state).map(drop);
    }
    open_files::raise_limit();
    let tls = tls_cert.as_ref().zip(tls_key.as_ref());
    let tls = tls.map(|(certificate, key)| tls::acceptor(certificate, key)).transpose()?;
    let (mut manifest, base) = from.load()?;
    let ports = if *find_free_port { PORTS_TRIED } else { 1 };
    let bound = bind(listen, ports)?;
    let admin = if *no_admin { None } else { Some(Admin::bind(admin.as_ref())?) };
    if *build {
        build::run_commands(&manifest, &base, &mut OptionalOutput::new(io::stderr()))?;
    }
    let (mut options, state_dir) = flags.read(&base)?;
    let state = state.or(state_dir);
    options.state_dir.clone_from(&state.state_dir);
    options.follow.clone_from(follow);
    options.truncate_logs = *truncate_logs;
    let progress = TransferProgress::new(*quiet);
    from.fetch(&mut manifest, &base, &FetchState { dir: &state, mode: PRIVATE, progress })?;
    let app = from.resolve(&manifest, &base, &options)?;

    // 2 Load the components, on a thread that exits: memory that it allocated and other threads free is
    // then returned to the system at once.
    let state = state.open(&base, PRIVATE)?;
    let host = thread::scope(|scope| scope.spawn(|| Host::new(&app, &state)).join())
        .unwrap_or_else(|panic| resume_unwind(panic))?;
    app.sqlite.execute(sqlite)?;

    if *log_requests {
        host.request_log().enable();
    }

    // 3 Serve until a signal.
    let runtime = runtime()?;
    let serving = async {
        host.set_default_entries(key_value).await.context("--key-value")?;
        let listener = match bound.listen() {
            // Another process has bound it at the same time, and listens first.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => bind(listen, ports)?.listen(),
            listening => listening,
        };
        let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
        let admin = admin.map(Admin::listen).transpose()?;
        let serving = Serving { app: &app, host: Arc::clone(&host), listener, admin, tls };
        serving.until_signal(*drain, startup).await
    };
    let served = runtime.block_on(serving);

    // 4 Shut down. A guest may still be computing for a request that has ended: it is not awaited.
    runtime.shutdown_background();
    if let Some(log) = host.prediction_log() {
        log.shut_down(LOG_TIMEOUT);
    }
    host.remove_copies();
    served
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .on_thread_start(shorten_time_slice)
        .on_thread_park(heap::trim_if_requested)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .enable_all()
        .build()
}

/// Binds `listen`, or the first free one of the following ports, at most `ports` in total.
fn bind(listen: &ListenAddress, ports: u16) -> Result<BoundAddress> {
    let mut addresses = listen.resolve()?;
    for remaining in (0..ports).rev() {
        match BoundAddress::bind(&addresses) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && remaining > 0 => {
                let next = addresses[0].port().checked_add(1);
                let Some(next) = next else { break };
                addresses.iter_mut().for_each(|address| address.set_port(next));
            }
            bound => {
                return bound.with_context(|| {
                    let tried: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                    format!(
                        "cannot listen on {}; choose another address with --listen (port 0 takes a \
                         free one), or add --find-free-port",
                        tried.join(" or ")
                    )
                });
            }
        }
    }
    bail!(
        "no free port from {listen} up; choose another address with --listen (port 0 takes a free one)"
    )
}

/// An application that listens.
struct Serving<'a> {
    app: &'a App,
    host: Arc<Host>,
    listener: TcpListener,
    admin: Option<AdminListener>,
    tls: Option<TlsAcceptor>,
}

impl Serving<'_> {
    /// Serves until a signal, then drains.
    async fn until_signal(self, drain: Duration, startup: Startup) -> Result<()> {
        let Self { app, host, listener, admin, tls } = self;
        let mut signals = Signals::listen()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = listener.local_addr()?;
        let url = format!("{scheme}://{address}");
        let admin_address = admin.as_ref().map(AdminListener::address).transpose()?;
        startup.print_routes(app, &host, &url, admin_address)?;
        let example = example(app, scheme, address);
        let loaded = move |ready| startup.print_ready(ready, example.as_deref());
        if let Some(admin) = admin {
            // The admin plane stays up during the drain, until the process exits.
            tokio::spawn(admin.serve(Arc::clone(&host)));
        }
        let (stop, stopped) = oneshot::channel();
        // The sender is dropped only together with the server.
        let stopped = async { stopped.await.unwrap_or_else(|_| Drain::short(drain)) };
        let serving = server::serve(listener, tls, host, loaded, stopped);
        let aborted = async {
            let drain = signals.stop(drain).await;
            let _ = stop.send(drain);
            signals.abort().await;
        };
        tokio::select! {
            served = serving => served,
            () = aborted => bail!("second signal: requests in flight were aborted"),
        }
    }
}
