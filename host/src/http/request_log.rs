//! The lines of the log about single requests: those that fail on the host's side, or all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Uri};
use parking_lot::Mutex;
use tracing::{debug, info, warn};

use crate::http::error::{Failure, Reason};
use crate::process::text::shortened;

/// Maximum number of failed requests that are logged in [`WINDOW`].
const MAX_FAILURES: u64 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Logs requests that fail on the host's side, and all of them if it is enabled.
#[derive(Debug, Default)]
pub struct RequestLog {
    all: AtomicBool,
    failures: Mutex<FailureWindow>,
}

/// The failed requests of one period.
#[derive(Debug, Default)]
struct FailureWindow {
    start: Option<Instant>,
    logged: u64,
    dropped: u64,
}

/// What is logged of a request before it is served. Not its query, in which clients send keys.
#[derive(Debug)]
pub(crate) struct LoggedRequest {
    method: Method,
    uri: Uri,
}

impl LoggedRequest {
    pub(crate) fn of<B>(request: &http::Request<B>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone() }
    }
}

/// The response to a request.
#[derive(Debug)]
pub(crate) struct LoggedResponse {
    pub status: StatusCode,
    pub took: Duration,
    /// Why the host responds with an error.
    pub failure: Option<(Reason, String)>,
}

impl LoggedResponse {
    pub(crate) fn failure_of<T>(served: &Result<T, Failure>) -> Option<(Reason, String)> {
        let failure = served.as_ref().err()?;
        // The text of a client's errors is in the response.
        failure.status().is_server_error().then(|| (failure.reason(), failure.to_string()))
    }
}

impl RequestLog {
    /// Logs every request.
    pub fn enable(&self) {
        self.all.store(true, Ordering::Relaxed);
    }

    /// Logs a request that was served; `route` is the pattern of its route.
    pub(crate) fn served<'r>(
        &self,
        LoggedRequest { method, uri }: &LoggedRequest,
        LoggedResponse { status, took, failure }: LoggedResponse,
        route: impl Fn(&str) -> Option<&'r str>,
    ) {
        let path = shortened(uri.path());
        let code = status.as_u16();
        if is_failure(status, failure.as_ref().map(|(reason, _)| *reason)) {
            let (log, dropped) = self.failures.lock().failed(Instant::now());
            log_dropped(dropped);
            if log {
                let route = route(uri.path()).unwrap_or_default();
                let reason = failure.map_or_else(|| BY_COMPONENT.to_owned(), |(_, text)| text);
                warn!(%method, path, status = code, ?took, route, reason, "request failed");
            }
        }
        if self.all.load(Ordering::Relaxed) {
            let route = route(uri.path()).unwrap_or_default();
            info!(target: "requests", %method, path, status = code, ?took, route, "request");
        } else {
            debug!(%method, path, status = code, ?took, "served");
        }
    }

    /// Logs the number of failed requests of a period that is over, which were not logged.
    pub fn log_dropped(&self) {
        log_dropped(self.failures.lock().end(Instant::now()));
    }
}

/// Reason of an error that is a response of the component.
const BY_COMPONENT: &str = "the component responded with this status";

/// Whether the failure is worth a warning. A probe of readiness and a request for cached responses only
/// fail in regular operation.
fn is_failure(status: StatusCode, reason: Option<Reason>) -> bool {
    status.is_server_error() && !matches!(reason, Some(Reason::NotReady | Reason::NotCached))
}

fn log_dropped(dropped: u64) {
    if dropped > 0 {
        warn!(requests = dropped, "more requests failed");
    }
}

impl FailureWindow {
    /// Counts a failed request at `now`. Whether to log it, and the number of earlier ones that were not
    /// logged.
    fn failed(&mut self, now: Instant) -> (bool, u64) {
        let dropped = self.end(now);
        self.start.get_or_insert(now);
        let log = self.logged < MAX_FAILURES;
        if log {
            self.logged += 1;
        } else {
            self.dropped += 1;
        }
        (log, dropped)
    }

    /// Ends the period if it is over at `now`; the number of requests that were not logged.
    fn end(&mut self, now: Instant) -> u64 {
        if self.start.is_none_or(|start| now.saturating_duration_since(start) < WINDOW) {
            return 0;
        }
        std::mem::take(self).dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_up_to_a_rate() {
        let mut window = FailureWindow::default();
        let start = Instant::now();
        assert_eq!(window.end(start), 0);
        for _ in 0..MAX_FAILURES {
            assert_eq!(window.failed(start), (true, 0));
        }
        for _ in 0..7 {
            assert_eq!(window.failed(start + WINDOW / 2), (false, 0));
        }
        assert_eq!(window.end(start + WINDOW / 2), 0, "it is not over");
        assert_eq!(window.failed(start + WINDOW), (true, 7));
        assert_eq!(window.end(start + 3 * WINDOW), 0, "all were logged");
    }

    #[test]
    fn only_unexpected_errors_of_the_host_are_failures() {
        for (status, reason, failure) in [
            (500, None, true),
            (503, Some(Reason::Busy), true),
            (503, Some(Reason::NotReady), false),
            (504, Some(Reason::NotCached), false),
            (504, Some(Reason::Deadline), true),
            (404, Some(Reason::NoRoute), false),
            (200, None, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_failure(status, reason), failure, "{status} {reason:?}");
        }
    }
}
