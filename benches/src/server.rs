//! Servers to measure: binaries of the same build, which are killed when dropped.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::application::{root, state_dir};
use crate::process::Process;

/// Timeout of a line of the log.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server and waits for `Serving http://...` on its standard output. Its log is
    /// discarded.
    ///
    /// # Errors
    /// If it does not start or does not serve.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stderr(Stdio::null()).stdout(Stdio::piped()).spawn();
        Self::serving(child.with_context(|| format!("{command:?}; `make bench` builds it"))?)
    }

    /// Starts spinfer, and returns its log.
    ///
    /// # Errors
    /// If it does not start or does not serve.
    pub fn start_logged(command: &mut Command) -> Result<(Self, Log)> {
        command.args(["--log-format", "json"]).env("SPINFER_LOG", "info");
        let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("{command:?}; `make bench` builds it"))?;
        let (lines, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().context("piped")?);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                match serde_json::from_str::<Line>(&line) {
                    Ok(Line { level, fields }) if level == "INFO" => _ = lines.send(fields),
                    // Warnings and errors: why something failed.
                    _ => _ = writeln!(io::stderr(), "{line}"),
                }
            }
        });
        Ok((Self::serving(child)?, Log(log)))
    }

    fn serving(mut child: Child) -> Result<Self> {
        let mut line = String::new();
        let out = child.stdout.take().context("piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().strip_prefix("Serving http://").map(str::parse);
        let Some(Ok(address)) = address else {
            bail!("the server did not start: it printed {line:?}, {}", child.wait()?);
        };
        Ok(Self { child, address })
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
struct Line {
    level: String,
    fields: Event,
}

/// A line of the log.
#[derive(Debug, Deserialize)]
pub struct Event {
    #[serde(default)]
    pub message: String,
    pub component: Option<String>,
}

/// The log of a running spinfer.
#[derive(Debug)]
pub struct Log(Receiver<Event>);

impl Log {
    /// Receives events until `enough` returns true.
    ///
    /// # Errors
    /// If the events do not arrive in time.
    pub fn wait_until(&self, mut enough: impl FnMut(Event) -> bool) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event =
                self.0.recv_timeout(left).context("the expected line did not appear in the log")?;
            if enough(event) {
                return Ok(());
            }
        }
    }
}

/// `spinfer up` on a manifest without a response cache, with the state directory of earlier runs.
///
/// # Errors
/// If the runtime config cannot be written.
pub fn spinfer(manifest: &Path) -> Result<Command> {
    spinfer_without_cache_in(manifest, &state_dir()?)
}

/// `spinfer up` with the default response cache.
///
/// # Errors
/// If the state directory cannot be created.
pub fn spinfer_with_cache(manifest: &Path) -> Result<Command> {
    Ok(spinfer_in(manifest, &state_dir()?))
}

/// `spinfer up` with a state directory.
#[must_use]
pub fn spinfer_in(manifest: &Path, state_dir: &Path) -> Command {
    let mut command = spinfer_command();
    command
        .args(["up", "--quiet", "--no-admin", "--listen", "127.0.0.1:0", "--from"])
        .arg(manifest);
    command.arg("--state-dir").arg(state_dir);
    command
}

/// `spinfer`, for any of its commands.
#[must_use]
pub fn spinfer_command() -> Command {
    Command::new(sibling("spinfer"))
}

/// `spinfer up` with a state directory, without a response cache.
///
/// # Errors
/// If the runtime config cannot be written.
pub fn spinfer_without_cache_in(manifest: &Path, state_dir: &Path) -> Result<Command> {
    let mut command = spinfer_in(manifest, state_dir);
    let config = state_dir.join("no-cache.toml");
    std::fs::write(&config, "[cache]\nmemory = 0\n")
        .with_context(|| config.display().to_string())?;
    command.arg("--runtime-config-file").arg(config);
    Ok(command)
}

/// `spinfer up` with these `settings` under `[cache]`, which are written into `dir`.
///
/// # Errors
/// If the runtime config cannot be written.
pub fn spinfer_caching(manifest: &Path, settings: &str, dir: &Path) -> Result<Command> {
    let mut command = spinfer_with_cache(manifest)?;
    let (_, config) = tempfile::NamedTempFile::new_in(dir)?.keep()?;
    std::fs::write(&config, format!("[cache]\n{settings}\n"))?;
    command.arg("--runtime-config-file").arg(config);
    Ok(command)
}

/// The native reference server, with the graph of a model folder.
#[must_use]
pub fn reference(model: &Path) -> Command {
    let mut command = Command::new(sibling("reference"));
    command.arg(model.join("model.onnx"));
    command
}

/// The Go service (`benches/go`), with a cache of `responses` for each operation.
#[must_use]
pub fn go(responses: usize) -> Command {
    let mut command = Command::new(root().join("target/go/iris"));
    command.arg("-lru").arg(responses.to_string());
    command
}

/// A binary of the same build.
fn sibling(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}
