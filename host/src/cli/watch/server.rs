//! `spinfer up` as a process.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::UpArguments;
use super::{Event, own_binary};

/// Maximum time for a process to end after SIGTERM; then it is killed.
const MAX_DRAIN: Duration = Duration::from_secs(10);
/// Not inherited by the processes: `spinfer watch` builds.
const ALWAYS_BUILD: &str = "SPIN_ALWAYS_BUILD";
/// The line with the address, the first of standard output.
const SERVING: &str = "Serving ";

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    pid: Pid,
    /// Receives nothing, and ends when the process has exited.
    exited: Receiver<()>,
}

impl Server {
    /// Starts `spinfer up`. If it may listen on any port, further starts use the same one.
    pub(super) fn start(arguments: &mut UpArguments, events: Sender<Event>) -> Result<Self> {
        let any_port = arguments.any_port();
        let mut command = Command::new(own_binary()?);
        command.args(arguments.as_slice()).arg("--ends-with-parent");
        command.env_remove(ALWAYS_BUILD).stdin(Stdio::null());
        if any_port {
            command.stdout(Stdio::piped());
        }
        let mut child = command.spawn().context("cannot start `spinfer up`")?;
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            let mut first = String::new();
            stdout.read_line(&mut first)?;
            let url = first.trim().strip_prefix(SERVING).and_then(|url| url.split_once("://"));
            if let Some((_, address)) = url {
                arguments.pin_listen(address);
            }
            let mut out = io::stdout();
            out.write_all(first.as_bytes())?;
            out.flush()?;
            // Ends with the process. Without a reader the process could block.
            thread::spawn(move || io::copy(&mut stdout, &mut io::stdout()));
        }
        let pid = Pid::from_child(&child);
        let (sender, exited) = mpsc::channel();
        thread::spawn(move || {
            let _ = child.wait();
            drop(sender);
            let _ = events.send(Event::Exited(child.id()));
        });
        Ok(Self { pid, exited })
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends the process, after the requests in flight if they end soon.
    pub(super) fn stop(self) {
        for (signal, time) in [(Signal::TERM, MAX_DRAIN), (Signal::KILL, Duration::MAX)] {
            // It may have exited already.
            let _ = kill_process(self.pid, signal);
            if self.exited.recv_timeout(time) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

/// Whether the application could be served. Its problems are printed by the process that checks it.
pub(super) fn check(arguments: &UpArguments) -> Result<bool> {
    let status = Command::new(own_binary()?)
        .args(arguments.as_slice())
        .args(["--check-only", "--ends-with-parent"])
        .env_remove(ALWAYS_BUILD)
        .stdin(Stdio::null())
        .status()
        .context("cannot start `spinfer up`")?;
    Ok(status.success())
}

/// Sends [`Event::Stop`] for SIGTERM and SIGINT.
pub(super) fn forward_signals(events: Sender<Event>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = runtime.block_on(async {
        io::Result::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    })?;
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let _ = events.send(Event::Stop);
    });
    Ok(())
}
