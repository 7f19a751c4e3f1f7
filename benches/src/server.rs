//! Servers to measure: started from binaries of the same build, ended when dropped.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::application::state_dir;
use crate::process::Process;

/// Lines of the log that take longer to come end the tool.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that serves.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Waits for `Serving http://...` on its standard output. Its log is not kept.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stderr(Stdio::null()).stdout(Stdio::piped()).spawn();
        Self::serving(child.with_context(|| format!("{command:?}; `make bench` builds it"))?)
    }

    /// The same for spinfer, with its log.
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
                    // Why something fails, if it does.
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
            bail!("it did not serve: {line:?}, {}", child.wait()?);
        };
        Ok(Self { child, address })
    }

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

/// What a line of the log says.
#[derive(Debug, Deserialize)]
pub struct Event {
    #[serde(default)]
    pub message: String,
    pub component: Option<String>,
}

/// The log of a spinfer, as it comes.
#[derive(Debug)]
pub struct Log(Receiver<Event>);

impl Log {
    /// Takes events until `enough` says so.
    pub fn wait_until(&self, mut enough: impl FnMut(Event) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.0.recv_timeout(left).context("waited for a line of the log")?;
            if enough(event) {
                return Ok(());
            }
        }
    }
}

/// `spinfer up` on a manifest, with the state of the runs before and no cache: what is measured is how
/// answers are made, not that they are kept.
pub fn spinfer(manifest: &Path) -> Result<Command> {
    let mut command = spinfer_with_cache(manifest)?;
    let config = state_dir()?.join("no-cache.toml");
    std::fs::write(&config, "[cache]\nmemory = 0\n")
        .with_context(|| config.display().to_string())?;
    command.arg("--runtime-config-file").arg(config);
    Ok(command)
}

/// The same with the cache as it is by default.
pub fn spinfer_with_cache(manifest: &Path) -> Result<Command> {
    Ok(spinfer_in(manifest, &state_dir()?))
}

/// The same with its state in `state_dir`.
#[must_use]
pub fn spinfer_in(manifest: &Path, state_dir: &Path) -> Command {
    let mut command = spinfer_command();
    command
        .args(["up", "--quiet", "--no-admin", "--listen", "127.0.0.1:0", "--from"])
        .arg(manifest);
    command.arg("--state-dir").arg(state_dir);
    command
}

/// The program itself, for another of its commands.
#[must_use]
pub fn spinfer_command() -> Command {
    Command::new(beside("spinfer"))
}

/// The same with `[cache]` as `settings` say.
pub fn spinfer_caching(manifest: &Path, settings: &str, dir: &Path) -> Result<Command> {
    let mut command = spinfer_with_cache(manifest)?;
    let (_, config) = tempfile::NamedTempFile::new_in(dir)?.keep()?;
    std::fs::write(&config, format!("[cache]\n{settings}\n"))?;
    command.arg("--runtime-config-file").arg(config);
    Ok(command)
}

/// The native reference, on the graph of a model folder.
#[must_use]
pub fn reference(model: &Path) -> Command {
    let mut command = Command::new(beside("reference"));
    command.arg(model.join("model.onnx"));
    command
}

/// A binary of the same build.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}
