//! The connections of a listener: how many there may be, which are no longer wanted, and which give
//! way to another.
//!
//! A connection is wanted while it has a request. Without one it is asked to go after a time, and
//! before that when few places are left, the one that has been without for longest first: as nginx
//! does it. A limit for each address would be one for all whom a proxy or a gateway stands in front
//! of, and none for who has many addresses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::process::memory_budget::MemoryBudget;
use crate::config::limits::MAX_DURATION;

/// A client has this long to begin, and to send its first request's head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Who is asked to go, and has no request, has so long: a client far away has heard of it by then,
/// and whoever does not listen does not keep its place.
const LEAVE: Duration = Duration::from_secs(1);
/// One of so many places is kept free, so that who comes need not wait until another has gone.
const RESERVE: usize = 16;
/// Where there is no place, whether a connection has become idle is looked for so often.
const LOOK: Duration = Duration::from_millis(100);

/// How many connections there may be, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// At a time; more wait to be accepted.
    pub most: usize,
    /// Without a request, after the first.
    pub keep_alive: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        // Proxies keep connections for 60 seconds, and send requests on those that just close.
        Self { most: 4096, keep_alive: Duration::from_secs(75) }
    }
}

/// Each is a descriptor, and some memory.
const MAX_CONNECTIONS: usize = 1_000_000;

impl ConnectionLimits {
    /// Sets what is said; fails with the setting, and what is wrong with it.
    pub fn set(
        &mut self,
        most: Option<usize>,
        keep_alive: Option<Duration>,
    ) -> Result<(), (&'static str, String)> {
        let Self { most: now, keep_alive: kept } = *self;
        *self = Self { most: most.unwrap_or(now), keep_alive: keep_alive.unwrap_or(kept) };
        if !(1..=MAX_CONNECTIONS).contains(&self.most) {
            return Err(("connections", format!("must be between 1 and {MAX_CONNECTIONS}")));
        }
        if self.keep_alive.is_zero() || self.keep_alive > MAX_DURATION {
            return Err(("keep_alive", "must be more than zero and at most a day: \"75s\"".into()));
        }
        Ok(())
    }
}

/// Those of a listener.
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    answers: MemoryBudget,
    places: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    accepted: u64,
    by_number: BTreeMap<u64, Arc<State>>,
}

/// A place that no connection has yet.
#[derive(Debug)]
pub struct Place(OwnedSemaphorePermit);

impl Connections {
    /// None yet. What is on its way to clients is counted among `answers`.
    #[must_use]
    pub fn new(limits: ConnectionLimits, answers: MemoryBudget) -> Self {
        let places = Arc::new(Semaphore::new(limits.most));
        Self { limits, answers, places, open: Mutex::default() }
    }

    /// Waits for a place.
    pub async fn place(&self) -> Place {
        loop {
            if let Ok(Ok(place)) = timeout(LOOK, Arc::clone(&self.places).acquire_owned()).await {
                return Place(place);
            }
            self.make_room();
        }
    }

    /// A connection was accepted.
    pub fn enter(self: &Arc<Self>, Place(place): Place) -> Connection {
        self.make_room();
        let state = Arc::new(State::new(self.limits.keep_alive, Arc::clone(&self.answers)));
        let mut open = self.open();
        open.accepted += 1;
        let number = open.accepted;
        open.by_number.insert(number, Arc::clone(&state));
        drop(open);
        Connection { state, number, all: Arc::clone(self), _place: place }
    }

    /// Asks the idlest to go if there is no room for another.
    fn make_room(&self) {
        let most = self.limits.most - (self.limits.most / RESERVE).max(1);
        let open = self.open();
        if open.by_number.len() < most {
            return;
        }
        let staying = open.by_number.values().filter(|state| !state.is_leaving()).count();
        open.ask((staying + 1).saturating_sub(most));
    }

    /// Asks the idlest to go: something else than places is short.
    pub fn shrink(&self) {
        self.open().ask((self.limits.most / RESERVE).max(1));
    }

    /// Asks all to go, and waits until they have. Nobody may be accepted any more.
    pub async fn close(&self) {
        for state in self.open().by_number.values() {
            state.ask();
        }
        while !self.open().by_number.is_empty() {
            // Each that goes gives its place back.
            let free = u32::try_from(self.limits.most).unwrap_or(u32::MAX);
            let _ = self.places.acquire_many(free).await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Asks so many that have no request, the idlest first.
    fn ask(&self, count: usize) {
        let idle = |state: &&Arc<State>| !state.is_leaving() && state.is_idle();
        let mut idle: Vec<_> = self.by_number.values().filter(idle).collect();
        idle.sort_by_key(|state| state.since());
        for state in idle.into_iter().take(count) {
            state.ask();
        }
    }
}

/// A connection, and its place.
#[derive(Debug)]
pub struct Connection {
    state: Arc<State>,
    number: u64,
    all: Arc<Connections>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct State {
    keep_alive: Duration,
    answers: MemoryBudget,
    accepted: Instant,
    /// Requests under way.
    requests: AtomicUsize,
    /// Nanoseconds from when it was accepted to when its last request ended; 0: it had none.
    since: AtomicU64,
    leaving: AtomicBool,
    asked: Notify,
}

impl State {
    fn new(keep_alive: Duration, answers: MemoryBudget) -> Self {
        Self {
            keep_alive,
            answers,
            accepted: Instant::now(),
            requests: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            asked: Notify::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }

    /// Since when, if it is idle.
    fn since(&self) -> Instant {
        self.accepted + Duration::from_nanos(self.since.load(Ordering::Relaxed))
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    fn ask(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// How long it may be without a request.
    fn patience(&self) -> Duration {
        let begun = self.since.load(Ordering::Relaxed) > 0;
        if begun { self.keep_alive } else { HEAD_TIMEOUT }
    }

    /// Waits until it has had no request since `from`, for as long as `patience` says.
    async fn idle(&self, from: Instant, patience: impl Fn() -> Duration) {
        // What is waited for changes with requests that come and end, and they do not say so.
        let step = self.keep_alive.max(LOOK);
        loop {
            let mut left = patience();
            if self.is_idle() {
                left = left.saturating_sub(self.since().max(from).elapsed());
            }
            if left.is_zero() {
                return;
            }
            sleep(left.min(step)).await;
        }
    }
}

impl Connection {
    /// A request has come; it is under way until the result is dropped.
    #[must_use]
    pub fn begin(&self) -> UnderWay {
        self.state.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.state))
    }

    /// Whether it has no request.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state.is_idle()
    }

    /// Waits until it has to go: it was asked to, or has had no request for too long.
    pub async fn asked_to_go(&self) {
        let State { accepted, asked, leaving, .. } = &*self.state;
        tokio::select! {
            biased;
            () = asked.notified() => {}
            () = self.state.idle(*accepted, || self.state.patience()) => {}
        }
        leaving.store(true, Ordering::Relaxed);
    }

    /// Waits until it should be gone, if its client had heard now that it should go.
    pub async fn out_of_time(&self) {
        self.state.idle(Instant::now(), || LEAVE).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open().by_number.remove(&self.number);
    }
}

/// A request, from its head until its answer is sent.
#[derive(Debug)]
pub struct UnderWay(Arc<State>);

impl UnderWay {
    /// Where answers are counted.
    #[must_use]
    pub fn answers(&self) -> &MemoryBudget {
        &self.0.answers
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let since = u64::try_from(self.0.accepted.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.since.store(since.max(1), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn connections(most: usize, keep_alive: Duration) -> Arc<Connections> {
        Arc::new(Connections::new(ConnectionLimits { most, keep_alive }, Arc::default()))
    }

    async fn entered(all: &Arc<Connections>) -> Connection {
        all.enter(all.place().await)
    }

    fn leaving<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> Vec<bool> {
        connections.into_iter().map(|one| one.state.is_leaving()).collect()
    }

    /// It has had a request.
    fn served(connection: &Connection) {
        drop(connection.begin());
    }

    #[tokio::test]
    async fn the_idlest_gives_way_and_nobody_with_a_request() {
        let all = connections(4, Duration::from_secs(60));
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(entered(&all).await);
        }
        assert_eq!(leaving(&open), [false; 3]);
        let busy = open[0].begin();
        served(&open[1]);
        open.push(entered(&all).await);
        assert_eq!(leaving(&open), [false, false, true, false]);
        // One is leaving already: that is its place.
        drop(open.remove(2));
        open.push(entered(&all).await);
        assert_eq!(leaving(&open), [false, true, false, false]);
        drop(busy);
    }

    #[tokio::test]
    async fn who_comes_to_a_full_house_waits_until_one_is_idle() {
        let all = connections(1, Duration::from_secs(60));
        let only = entered(&all).await;
        let busy = only.begin();
        let mut next = std::pin::pin!(all.place());
        assert!(timeout(3 * LOOK, next.as_mut()).await.is_err());
        assert_eq!(leaving([&only]), [false]);
        drop(busy);
        tokio::select! {
            _ = next.as_mut() => unreachable!("there is one place"),
            () = only.asked_to_go() => {}
        }
        drop(only);
        next.await;
    }

    #[tokio::test]
    async fn a_connection_goes_when_it_has_had_no_request_for_a_time() {
        let keep_alive = Duration::from_millis(30);
        let all = connections(1, keep_alive);
        let one = entered(&all).await;
        // Its first may take longer.
        assert_eq!(one.state.patience(), HEAD_TIMEOUT);
        let busy = one.begin();
        served(&one);
        assert!(timeout(3 * keep_alive, one.asked_to_go()).await.is_err(), "one is under way");
        drop(busy);
        let idle = Instant::now();
        one.asked_to_go().await;
        assert!(idle.elapsed() >= keep_alive);
        let heard = Instant::now();
        one.out_of_time().await;
        assert!(heard.elapsed() >= LEAVE);
    }

    #[tokio::test]
    async fn all_go_when_it_closes() {
        let all = connections(3, Duration::from_secs(60));
        let (one, two) = (entered(&all).await, entered(&all).await);
        let mut closing = std::pin::pin!(all.close());
        assert!(closing.as_mut().now_or_never().is_none());
        assert_eq!(leaving([&one, &two]), [true; 2]);
        one.asked_to_go().await;
        drop(one);
        assert!(closing.as_mut().now_or_never().is_none());
        drop(two);
        closing.await;
    }
}
