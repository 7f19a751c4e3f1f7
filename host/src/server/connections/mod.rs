//! The connections of a listener: their number, their idle timeout, and which are closed to admit
//! others.
//!
//! A connection with a request in flight stays open. An idle one is closed after `keep_alive`, and
//! earlier if few permits are left, the longest idle first, as in nginx. There is no limit for each
//! address: it would apply to all clients behind one proxy together, and not to a client with many
//! addresses.
//!
//! Before shutdown the connections drain ([`ConnectionLimiter::drain`]). A client of HTTP/1.1 may send a
//! request at any time, so the host closes a connection only after a response with `Connection: close`, after
//! which the client sends no more. HTTP/2 has `GOAWAY` for this.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Version;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::config::limits::MAX_DURATION;
use crate::http::body::delivery::Abort;
use crate::http::body::response_memory::ResponseMemory;

/// Time for a client to send the preface, and the head of its first request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for an idle connection to close once it was asked to. A distant client has received `GOAWAY`
/// by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// One in this many permits is kept free, so that a new connection does not wait for another to close.
const RESERVE: usize = 16;
/// Idle time of a connection that is closed for lack of another resource.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// Maximum time of a short drain, for which a user waits at a terminal.
const SHORT_DRAIN: Duration = Duration::from_secs(1);
/// Interval at which idle connections are looked for while no permit is free.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Limits of the connections of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of open connections; others wait to be accepted.
    pub max: usize,
    /// Idle timeout of a connection after its first request.
    pub keep_alive: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        // Longer than the 60 seconds of common proxies, which would otherwise send a request on a
        // connection that is being closed.
        Self { max: 4096, keep_alive: Duration::from_secs(75) }
    }
}

/// How a listener drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Time for which connections and requests are still accepted.
    pub time: Duration,
    /// Whether to stop as soon as no connection is open.
    pub until_unused: bool,
}

impl Drain {
    /// For `time` in any case, since a load balancer notices only then that the host is not ready.
    #[must_use]
    pub fn complete(time: Duration) -> Self {
        Self { time, until_unused: false }
    }

    /// For a second of `time` at most, and only while a connection is open.
    #[must_use]
    pub fn short(time: Duration) -> Self {
        Self { time: time.min(SHORT_DRAIN), until_unused: true }
    }
}

/// Maximum of the setting `connections`. Each connection takes a file descriptor and some kilobytes.
const MAX_CONNECTIONS: usize = 1_000_000;

impl ConnectionLimits {
    /// Sets the limits that are given.
    ///
    /// # Errors
    /// The name of an invalid setting, and what is wrong with it.
    pub fn set(
        &mut self,
        max: Option<usize>,
        keep_alive: Option<Duration>,
    ) -> Result<(), (&'static str, String)> {
        self.max = max.unwrap_or(self.max);
        self.keep_alive = keep_alive.unwrap_or(self.keep_alive);
        if !(1..=MAX_CONNECTIONS).contains(&self.max) {
            return Err(("connections", format!("must be between 1 and {MAX_CONNECTIONS}")));
        }
        if self.keep_alive.is_zero() || self.keep_alive > MAX_DURATION {
            return Err(("keep_alive", "must be more than zero and at most a day: \"75s\"".into()));
        }
        Ok(())
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limits: ConnectionLimits,
    responses: ResponseMemory,
    permits: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
    /// Notified when a connection is closed.
    closed: Notify,
    draining: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    accepted: u64,
    by_number: BTreeMap<u64, Arc<ConnectionState>>,
}

/// The right to accept one connection.
#[derive(Debug)]
pub struct ConnectionPermit(OwnedSemaphorePermit);

impl ConnectionLimiter {
    /// No connections yet. Responses that are being sent are charged to `responses`.
    #[must_use]
    pub fn new(limits: ConnectionLimits, responses: ResponseMemory) -> Self {
        let permits = Arc::new(Semaphore::new(limits.max));
        Self {
            limits,
            responses,
            permits,
            open: Mutex::default(),
            closed: Notify::new(),
            draining: Arc::default(),
        }
    }

    /// Waits for the permit to accept a connection, and closes idle ones if none is free.
    pub async fn permit(&self) -> ConnectionPermit {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned();
            if let Ok(Ok(permit)) = timeout(POLL_INTERVAL, permit).await {
                return ConnectionPermit(permit);
            }
            self.close_idle();
        }
    }

    /// Registers a connection of `client` that was accepted.
    pub fn open(
        self: &Arc<Self>,
        ConnectionPermit(permit): ConnectionPermit,
        client: SocketAddr,
    ) -> ClientConnection {
        self.close_idle();
        let state = Arc::new(ConnectionState::new(self, client));
        let mut open = self.open.lock();
        open.accepted += 1;
        let number = open.accepted;
        open.by_number.insert(number, Arc::clone(&state));
        drop(open);
        ClientConnection { state, number, all: Arc::clone(self), _permit: permit }
    }

    /// Closes the longest idle connections if only the reserve is left.
    fn close_idle(&self) {
        let most = self.limits.max - self.reserve();
        let open = self.open.lock();
        if open.by_number.len() < most {
            return;
        }
        let staying = open.by_number.values().filter(|state| !state.is_closing()).count();
        open.close_idle((staying + 1).saturating_sub(most), Duration::ZERO);
    }

    /// Closes the longest idle connection, when another resource than permits is exhausted. One that was
    /// just accepted may be about to send its request.
    pub fn shrink(&self) {
        self.open.lock().close_idle(1, MIN_IDLE);
    }

    fn reserve(&self) -> usize {
        (self.limits.max / RESERVE).max(1)
    }

    /// Drains from now on, for the time of the result: each connection closes after its next response, and
    /// those of HTTP/2 are closed in order. Connections are still accepted.
    pub fn drain(&self, Drain { time, until_unused }: Drain) -> impl Future<Output = ()> {
        self.draining.store(true, Ordering::SeqCst);
        for state in self.open.lock().by_number.values() {
            if state.is_http2.load(Ordering::SeqCst) {
                state.close();
            }
        }
        async move {
            if until_unused {
                let _ = timeout(time, self.unused()).await;
            } else {
                sleep(time).await;
            }
        }
    }

    /// Closes all connections, and waits until they are closed. No more may be accepted.
    pub async fn close(&self) {
        for state in self.open.lock().by_number.values() {
            state.close();
        }
        self.unused().await;
    }

    /// Waits until no connection is open.
    async fn unused(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open.lock().by_number.is_empty() {
                return;
            }
            closed.await;
        }
    }
}

impl OpenConnections {
    /// Closes at most `count` connections that have been idle for `at_least`, the longest idle first.
    fn close_idle(&self, count: usize, at_least: Duration) {
        let idle = |state: &&Arc<ConnectionState>| {
            !state.is_closing() && state.is_idle() && state.idle_since().elapsed() >= at_least
        };
        let mut idle: Vec<_> = self.by_number.values().filter(idle).collect();
        idle.sort_by_key(|state| state.idle_since());
        for state in idle.into_iter().take(count) {
            state.close();
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub struct ClientConnection {
    state: Arc<ConnectionState>,
    number: u64,
    all: Arc<ConnectionLimiter>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct ConnectionState {
    keep_alive: Duration,
    responses: ResponseMemory,
    client: SocketAddr,
    accepted: Instant,
    /// Requests in flight.
    requests: AtomicUsize,
    /// When the last request ended, in nanoseconds after `accepted`; 0 before the first.
    idle_since: AtomicU64,
    is_http2: AtomicBool,
    draining: Arc<AtomicBool>,
    closing: AtomicBool,
    close: Notify,
    abort: Arc<Abort>,
}

impl ConnectionState {
    fn new(all: &ConnectionLimiter, client: SocketAddr) -> Self {
        Self {
            keep_alive: all.limits.keep_alive,
            responses: all.responses.clone(),
            client,
            accepted: Instant::now(),
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            is_http2: AtomicBool::new(false),
            draining: Arc::clone(&all.draining),
            closing: AtomicBool::new(false),
            close: Notify::new(),
            abort: Arc::default(),
        }
    }

    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }

    /// The start of the idle period, if the connection is idle.
    fn idle_since(&self) -> Instant {
        self.accepted + Duration::from_nanos(self.idle_since.load(Ordering::Relaxed))
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.close.notify_one();
    }

    fn idle_timeout(&self) -> Duration {
        let had_requests = self.idle_since.load(Ordering::Relaxed) > 0;
        if had_requests { self.keep_alive } else { HEAD_TIMEOUT }
    }

    /// Waits until the connection has been idle for `timeout`, counted from `from` at the earliest.
    async fn idle(&self, from: Instant, timeout: impl Fn() -> Duration) {
        // Requests move the end of the wait without waking it, so it is computed anew after each step.
        let step = self.keep_alive.max(POLL_INTERVAL);
        loop {
            let mut left = timeout();
            if self.is_idle() {
                left = left.saturating_sub(self.idle_since().max(from).elapsed());
            }
            if left.is_zero() {
                return;
            }
            sleep(left.min(step)).await;
        }
    }
}

impl ClientConnection {
    /// Counts a request as in flight until the result is dropped.
    #[must_use]
    pub fn begin(&self, version: Version) -> RequestInFlight {
        self.state.requests.fetch_add(1, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            // One of the two, this or `drain`, sees what the other has stored.
            self.state.is_http2.store(true, Ordering::SeqCst);
            if self.state.draining.load(Ordering::SeqCst) {
                self.state.close();
            }
        }
        RequestInFlight(Arc::clone(&self.state))
    }

    /// Whether no request is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state.is_idle()
    }

    /// Waits until the connection has to close: for the idle timeout, or for another connection.
    pub async fn closing(&self) {
        let ConnectionState { accepted, close, closing, .. } = &*self.state;
        tokio::select! {
            biased;
            () = close.notified() => {}
            () = self.state.idle(*accepted, || self.state.idle_timeout()) => {}
        }
        closing.store(true, Ordering::Relaxed);
    }

    /// Ends the connection at once.
    #[must_use]
    pub fn abort(&self) -> &Arc<Abort> {
        &self.state.abort
    }

    /// Waits until the connection has to end at once, as its response was given up.
    pub async fn aborted(&self) {
        poll_fn(|cx| self.state.abort.poll_requested(cx)).await;
    }

    /// Waits until the connection has been idle for the time a client has to close it.
    pub async fn close_timeout(&self) {
        self.state.idle(Instant::now(), || CLOSE_TIMEOUT).await;
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.all.open.lock().by_number.remove(&self.number);
        self.all.closed.notify_waiters();
    }
}

/// A request in flight, from its head until its response is sent.
#[derive(Debug)]
pub struct RequestInFlight(Arc<ConnectionState>);

impl RequestInFlight {
    /// Whether the connection closes after the response to this request.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// The memory of unread responses.
    #[must_use]
    pub fn response_memory(&self) -> &ResponseMemory {
        &self.0.responses
    }

    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.0.client
    }

    /// Ends the connection.
    #[must_use]
    pub fn abort(&self) -> &Arc<Abort> {
        &self.0.abort
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.accepted.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.idle_since.store(now.max(1), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
