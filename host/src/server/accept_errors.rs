//! Failures to accept connections: without a free file descriptor, none can be accepted until one is
//! closed. This is reported once, not for each attempt.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{debug, info, warn};

use crate::process::open_files;

/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(50);
/// Time without a failure after which connections are accepted again. Between two failures, some are
/// accepted when others close.
const RECOVERED: Duration = Duration::from_secs(10);

/// The failures of a listener.
#[derive(Debug, Default)]
pub struct AcceptErrors {
    /// The last failure, while connections cannot be accepted.
    last: Mutex<Option<Instant>>,
}

impl AcceptErrors {
    /// Reports that a connection was accepted.
    pub fn accepted(&self) {
        if self.recovers(Instant::now()) {
            info!("connections are accepted again");
        }
    }

    /// Reports a failure; whether to wait before the next attempt.
    pub fn failed(&self, error: &io::Error) -> bool {
        // The client has closed the connection already.
        let of_client =
            [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::Interrupted];
        if of_client.contains(&error.kind()) {
            debug!(%error, "a connection was closed before it was accepted");
            return false;
        }
        if self.starts(Instant::now()) {
            warn!("cannot accept connections: {error}{}; open ones are served", remedy(error));
        }
        true
    }

    /// Waits before the next attempt.
    pub async fn pause() {
        tokio::time::sleep(PAUSE).await;
    }

    /// Whether a failure at `now` is the first.
    fn starts(&self, now: Instant) -> bool {
        self.last.lock().replace(now).is_none()
    }

    /// Whether a connection accepted at `now` ends a period with failures.
    fn recovers(&self, now: Instant) -> bool {
        let mut last = self.last.lock();
        let recovers = last.is_some_and(|last| now.saturating_duration_since(last) >= RECOVERED);
        if recovers {
            *last = None;
        }
        recovers
    }
}

/// What the operator can do about it.
fn remedy(error: &io::Error) -> String {
    match (error.raw_os_error(), open_files::limit()) {
        (Some(libc::EMFILE), Some(limit)) => {
            format!("; raise the limit of {limit} files (`ulimit -n`, `LimitNOFILE` of systemd)")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_of_failures_is_reported_at_its_start_and_its_end() {
        let errors = AcceptErrors::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!errors.recovers(at(0)), "none has failed");
        assert!(errors.starts(at(0)));
        // Some are accepted when others close.
        for second in 1..30 {
            assert!(!errors.recovers(at(second)) && !errors.starts(at(second)), "{second}");
        }
        assert!(!errors.recovers(at(38)));
        assert!(errors.recovers(at(39)));
        assert!(!errors.recovers(at(40)));
        assert!(errors.starts(at(41)), "the next period");
    }

    #[test]
    fn a_client_that_closes_its_connection_does_not_delay_others() {
        let errors = AcceptErrors::default();
        assert!(!errors.failed(&ErrorKind::ConnectionAborted.into()));
        assert!(errors.failed(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(errors.last.lock().is_some());
    }

    #[test]
    fn the_message_names_the_limit() {
        let text = remedy(&io::Error::from_raw_os_error(libc::EMFILE));
        assert!(text.contains("ulimit -n"), "{text}");
        assert_eq!(remedy(&io::Error::from_raw_os_error(libc::ENFILE)), "");
    }
}
