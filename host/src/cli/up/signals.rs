//! The signals that stop the host.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::server::connections::Drain;

/// Time within which a further signal is the same request to stop: a terminal sends SIGINT to each process
/// of a group, and a process that runs another passes it on too.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the request to stop. SIGTERM drains for `drain`: a load balancer sends new connections
    /// until it has noticed. SIGINT comes from a terminal, where a user waits: the drain is short.
    pub(super) async fn stop(&mut self, drain: Duration) -> Drain {
        tokio::select! {
            _ = self.terminate.recv() => Drain::complete(drain),
            _ = self.interrupt.recv() => Drain::short(drain),
        }
    }

    /// Waits, after [`Self::stop`], for the request to stop at once.
    pub(super) async fn abort(&mut self) {
        let same = Instant::now() + SAME_REQUEST;
        loop {
            self.stop(Duration::ZERO).await;
            if Instant::now() >= same {
                return;
            }
        }
    }
}
