//! Servers to measure: started from binaries of the same build, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::application::state_dir;
use crate::process::Process;

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

/// `spinfer up` on a manifest, with the state of the runs before.
pub fn spinfer(manifest: &Path) -> Result<Command> {
    let mut command = Command::new(beside("spinfer"));
    command.args(["up", "--quiet", "--listen", "127.0.0.1:0", "--from"]).arg(manifest);
    command.arg("--state-dir").arg(state_dir()?.join("compiled"));
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
