//! Responses on their way to clients, which can be given up: a client that does not read its response
//! loses it when others need what it holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::sync::Notify;
use tracing::warn;

use crate::metrics::RouteMetrics;

/// Time without progress after which a response can be given up. A client that reads makes progress
/// within a round trip.
pub const GRACE: Duration = Duration::from_millis(100);

/// Ends a connection (HTTP/1.1) or a stream (HTTP/2) from outside of its task.
#[derive(Debug, Default)]
pub struct Abort {
    requested: AtomicBool,
    task: AtomicWaker,
}

impl Abort {
    /// Ends it.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Is ready once it is to end. One task can wait.
    pub fn poll_requested(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        if self.is_requested() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// An extension of a response: the route that it was served on.
#[derive(Clone, Debug)]
pub struct DeliveredRoute(pub Arc<RouteMetrics>);

/// A response that is being sent.
#[derive(Debug)]
pub struct Delivery {
    client: SocketAddr,
    route: Arc<RouteMetrics>,
    abort: Arc<Abort>,
    started: Instant,
    /// When the client last took a part, in nanoseconds after `started`; [`WAITING`] while the client
    /// waits for a part.
    progress: AtomicU64,
    given_up: AtomicBool,
    gone: Notify,
}

/// The client waits for the component.
const WAITING: u64 = u64::MAX;

/// Why a response is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Other requests wait for a permit of its component.
    Permit,
    /// The memory budget of all responses is exhausted.
    Memory,
    /// Its client address is at its limit.
    ClientMemory,
}

impl Needed {
    fn explanation(self) -> &'static str {
        match self {
            Self::Permit => "requests wait for its permit (limits.instances)",
            Self::Memory => "the memory of unread responses is exhausted",
            Self::ClientMemory => "its client exceeds limits.unread_per_client",
        }
    }
}

impl Delivery {
    #[must_use]
    pub fn new(client: SocketAddr, route: Arc<RouteMetrics>, abort: Arc<Abort>) -> Self {
        Self {
            client,
            route,
            abort,
            started: Instant::now(),
            progress: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
            gone: Notify::new(),
        }
    }

    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The client has taken all parts so far; `waits`: there is no further part yet.
    pub fn progress(&self, waits: bool) {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(WAITING - 1);
        self.progress.store(if waits { WAITING } else { now }, Ordering::Relaxed);
    }

    /// Since when a part is unread; `None` if none is, or if the response was given up.
    #[must_use]
    pub fn unread_since(&self) -> Option<Instant> {
        match self.progress.load(Ordering::Relaxed) {
            _ if self.given_up.load(Ordering::Relaxed) => None,
            WAITING => None,
            nanos => Some(self.started + Duration::from_nanos(nanos)),
        }
    }

    /// Gives the response up, once, and ends its connection or stream.
    pub fn give_up(&self, needed: Needed) {
        let unread = self.unread_since().map_or(Duration::ZERO, |since| since.elapsed());
        if self.given_up.swap(true, Ordering::Relaxed) {
            return;
        }
        self.route.given_up.count();
        warn!(
            component = self.route.component,
            route = self.route.route,
            client = %self.client,
            ?unread,
            reason = needed.explanation(),
            "unread response given up"
        );
        self.abort.request();
    }

    /// Waits until it is neither sent nor held any more.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }

    /// Nothing of it is held any more. Its connection goes on.
    pub(super) fn set_gone(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.gone.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn response_is_given_up_once_and_ends_its_connection() {
        let abort = Arc::new(Abort::default());
        let route = Arc::new(RouteMetrics::new("component", "/route"));
        let client = SocketAddr::from(([127, 0, 0, 1], 80));
        let delivery = Delivery::new(client, Arc::clone(&route), Arc::clone(&abort));
        assert!(delivery.unread_since().is_some(), "the client has not read its start");
        delivery.progress(true);
        assert_eq!(delivery.unread_since(), None, "the client waits");
        delivery.progress(false);
        assert!(delivery.unread_since().is_some_and(|since| since <= Instant::now()));
        let mut ended = std::pin::pin!(std::future::poll_fn(|cx| abort.poll_requested(cx)));
        assert!(ended.as_mut().now_or_never().is_none());
        delivery.give_up(Needed::Permit);
        delivery.give_up(Needed::Memory);
        assert!(ended.now_or_never().is_some());
        assert_eq!((route.given_up.get(), delivery.unread_since()), (1, None));
    }
}
