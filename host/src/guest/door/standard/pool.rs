//! Who serves which request: requests that wait, workers that are open for one, and how many
//! workers there may be. Knows nothing of WebAssembly.
//!
//! A request waits until a worker takes it, and is never handed over: a worker that was called may
//! find its guest computing. Then another one is called, or started, and whoever comes first takes
//! what waits longest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Context;
use std::time::Instant;

use futures::task::AtomicWaker;
use tokio::sync::mpsc;

use crate::guest::door::Leaving;

/// A component's requests, of type `J`, and workers.
pub(super) struct Pool<J> {
    places: usize,
    /// Idle workers to be kept while several are busy.
    spare: usize,
    start: Box<dyn Fn(Place<J>) + Send + Sync>,
    state: Mutex<State<J>>,
}

struct State<J> {
    waiting: VecDeque<(u64, J)>,
    next_id: u64,
    /// The last used on top, so that the rest grow old and are dropped.
    open: Vec<Open>,
    taken: usize,
    /// Workers that have no instance yet.
    starting: usize,
    closed: bool,
}

/// A worker that could take a request.
struct Open {
    seat: Arc<Seat>,
    /// `None` if it has others.
    idle_since: Option<Instant>,
}

/// How a worker is reached.
#[derive(Default)]
struct Seat {
    waker: AtomicWaker,
    /// Whether a request waits for it. Changed only under the pool's lock.
    called: AtomicBool,
    /// Set if it has to leave. It is gone when this is.
    leave: OnceLock<mpsc::Sender<Infallible>>,
}

impl<J> fmt::Debug for Pool<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("places", &self.places).finish_non_exhaustive()
    }
}

impl<J> Pool<J> {
    /// For up to `places` workers, each begun by `start`; while several are busy, `spare` are started
    /// before they are needed.
    pub(super) fn new(
        places: usize,
        spare: usize,
        start: impl Fn(Place<J>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state = State {
            waiting: VecDeque::new(),
            next_id: 0,
            open: Vec::new(),
            taken: 0,
            starting: 0,
            closed: false,
        };
        Arc::new(Self { places, spare, start: Box::new(start), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `job` wait for a worker, for as long as the ticket lives.
    pub(super) fn submit(self: &Arc<Self>, job: J) -> Ticket<J> {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.push_back((id, job));
        self.call(state);
        Ticket { pool: Arc::clone(self), id }
    }

    /// Calls the idle worker that was used last, or another that is open, or starts one. If none can
    /// be, whichever worker opens or ends next looks by itself.
    fn call(self: &Arc<Self>, mut state: MutexGuard<'_, State<J>>) {
        let idle = state.open.iter().rposition(|open| open.idle_since.is_some());
        let open = idle.map(|at| state.open.remove(at)).or_else(|| state.open.pop());
        let starts =
            if open.is_some() { self.lacks_spare(&state) } else { state.taken < self.places };
        if starts {
            state.taken += 1;
            state.starting += 1;
        }
        if let Some(Open { seat, .. }) = &open {
            seat.called.store(true, Ordering::Relaxed);
        }
        drop(state);
        if starts {
            (self.start)(Place {
                pool: Arc::clone(self),
                seat: Arc::default(),
                is_spare: open.is_some(),
                starting: AtomicBool::new(true),
                begun: AtomicBool::new(false),
                retired: AtomicBool::new(false),
            });
        }
        if let Some(Open { seat, .. }) = open {
            seat.waker.wake();
        }
    }

    /// Whether several are busy, and too few idle for whoever comes next.
    fn lacks_spare(&self, state: &State<J>) -> bool {
        if state.taken >= self.places || state.starting >= self.spare {
            return false;
        }
        let idle = state.open.iter().filter(|open| open.idle_since.is_some()).count();
        state.taken - idle > 1 && idle + state.starting < self.spare
    }

    /// Whether a worker is about to be there.
    pub(super) fn is_starting(&self) -> bool {
        self.state().starting > 0
    }

    /// Sends away the workers that have been idle since `since` or longer.
    pub(super) fn drop_idle(&self, since: Instant) -> Leaving {
        let (leave, leaving) = mpsc::channel(1);
        let mut state = self.state();
        let idle = |open: &mut Open| open.idle_since.is_some_and(|idle| idle <= since);
        let sent: Vec<Open> = state.open.extract_if(.., idle).collect();
        drop(state);
        for Open { seat, .. } in &sent {
            // It has been told already if this fails.
            let _ = seat.leave.set(leave.clone());
            seat.waker.wake();
        }
        Leaving::workers(sent.len(), leaving)
    }

    /// Sends away every worker, as soon as it has nothing more to do.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let open = std::mem::take(&mut state.open);
        drop(state);
        open.iter().for_each(|open| open.seat.waker.wake());
    }
}

/// A request's place among those that wait.
pub(super) struct Ticket<J> {
    pool: Arc<Pool<J>>,
    id: u64,
}

impl<J> Ticket<J> {
    /// The request, if no worker has taken it.
    pub(super) fn withdraw(&self) -> Option<J> {
        let mut state = self.pool.state();
        let position = state.waiting.iter().position(|(id, _)| *id == self.id)?;
        state.waiting.remove(position).map(|(_, job)| job)
    }
}

impl<J> Drop for Ticket<J> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// What a worker is to do.
pub(super) enum Next<J> {
    Serve(J),
    /// Nothing, until it is woken.
    Wait,
    Leave,
}

/// A worker's right to be.
pub(super) struct Place<J> {
    pool: Arc<Pool<J>>,
    seat: Arc<Seat>,
    is_spare: bool,
    starting: AtomicBool,
    begun: AtomicBool,
    retired: AtomicBool,
}

impl<J> Place<J> {
    /// Whether nobody needs the worker yet.
    pub(super) fn is_spare(&self) -> bool {
        self.is_spare
    }

    /// The worker has begun. One that could not, as everything ends, is not followed by another.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// The worker has its instance, or cannot have one.
    pub(super) fn has_started(&self) {
        self.started(&mut self.pool.state());
    }

    fn started(&self, state: &mut State<J>) {
        state.starting -= usize::from(self.starting.swap(false, Ordering::Relaxed));
    }

    /// Gives the place back if there are other workers, and leaves to them what waits.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.pool.state();
        let others = state.taken > 1;
        if others {
            state.taken -= 1;
            self.retired.store(true, Ordering::Relaxed);
        }
        others
    }

    /// What is next for a worker that could, or could not, take a request.
    pub(super) fn poll_next(
        &self,
        cx: &Context<'_>,
        open: bool,
        idle_since: Option<Instant>,
    ) -> Next<J> {
        self.seat.waker.register(cx.waker());
        let mut state = self.pool.state();
        let called = self.stand_up(&mut state);
        if self.seat.leave.get().is_some() || state.closed {
            self.pass_on(called, state);
            return Next::Leave;
        }
        if !open {
            self.pass_on(called, state);
            return Next::Wait;
        }
        if let Some((_, job)) = state.waiting.pop_front() {
            return Next::Serve(job);
        }
        state.open.push(Open { seat: Arc::clone(&self.seat), idle_since });
        Next::Wait
    }

    /// What waits longest.
    pub(super) fn take(&self) -> Option<J> {
        self.pool.state().waiting.pop_front().map(|(_, job)| job)
    }

    /// Nobody is to count on this worker until it asks what is next.
    pub(super) fn step_aside(&self) {
        let mut state = self.pool.state();
        let called = self.stand_up(&mut state);
        self.pass_on(called, state);
    }

    /// Whether it was called since it was last open.
    fn stand_up(&self, state: &mut State<J>) -> bool {
        if let Some(at) = state.open.iter().rposition(|open| Arc::ptr_eq(&open.seat, &self.seat)) {
            state.open.remove(at);
        }
        self.seat.called.swap(false, Ordering::Relaxed)
    }

    fn pass_on(&self, called: bool, state: MutexGuard<'_, State<J>>) {
        if called && !state.waiting.is_empty() {
            self.pool.call(state);
        }
    }
}

impl<J> Drop for Place<J> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        self.started(&mut state);
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        self.stand_up(&mut state);
        state.taken -= 1;
        self.pass_on(self.begun.load(Ordering::Relaxed), state);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::FutureExt;

    use super::*;

    type Places = Arc<Mutex<Vec<Place<u32>>>>;

    fn pool(places: usize) -> (Arc<Pool<u32>>, Places) {
        pool_with(places, 0)
    }

    fn pool_with(places: usize, spare: usize) -> (Arc<Pool<u32>>, Places) {
        let started = Places::default();
        let pool = Pool::new(places, spare, {
            let started = Arc::clone(&started);
            move |place: Place<u32>| {
                place.begin();
                started.lock().unwrap().push(place);
            }
        });
        (pool, started)
    }

    fn take<const N: usize>(started: &Places) -> [Place<u32>; N] {
        let places = std::mem::take(&mut *started.lock().unwrap());
        <[_; N]>::try_from(places).unwrap_or_else(|places| panic!("{} are started", places.len()))
    }

    impl Place<u32> {
        /// What a worker is given if it asks; open and idle if nothing.
        fn ask(&self) -> Option<u32> {
            match self.next(true) {
                Next::Serve(job) => Some(job),
                Next::Wait => None,
                Next::Leave => panic!("sent away"),
            }
        }

        fn next(&self, open: bool) -> Next<u32> {
            self.poll_next(&Context::from_waker(Waker::noop()), open, Some(Instant::now()))
        }

        fn is_called(&self) -> bool {
            self.seat.called.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_worker_is_started_for_each_request_while_there_are_places() {
        let (pool, started) = pool(2);
        let _tickets = [1, 2, 3].map(|job| pool.submit(job));
        let [a, b] = take(&started);
        assert_eq!((a.ask(), b.ask()), (Some(1), Some(2)), "in their order");
        assert!(matches!(b.next(false), Next::Wait));
        assert_eq!(a.ask(), Some(3), "the first that is free takes the third");
        assert_eq!(started.lock().unwrap().len(), 0);
        drop((a, b));
        let _ticket = pool.submit(4);
        assert_eq!(started.lock().unwrap().len(), 1, "places are given back");
    }

    #[test]
    fn the_worker_used_last_is_called() {
        let (pool, started) = pool(2);
        let tickets = [1, 2].map(|job| pool.submit(job));
        let [a, b] = take(&started);
        assert_eq!((a.ask(), b.ask()), (Some(1), Some(2)));
        assert_eq!((a.ask(), b.ask()), (None, None));
        drop(tickets);
        let _ticket = pool.submit(3);
        assert!(b.is_called() && !a.is_called());
        assert_eq!(b.ask(), Some(3));
        assert!(!b.is_called());
    }

    #[test]
    fn for_one_that_was_called_and_cannot_come_another_is_called() {
        let (pool, started) = pool(2);
        let _tickets = [1, 2].map(|job| pool.submit(job));
        let [a, b] = take(&started);
        assert_eq!((a.ask(), b.ask(), a.ask(), b.ask()), (Some(1), Some(2), None, None));
        for cannot in [
            |place: &Place<u32>| place.step_aside(),
            |place: &Place<u32>| assert!(matches!(place.next(false), Next::Wait)),
        ] {
            let _ticket = pool.submit(3);
            assert!(b.is_called());
            cannot(&b);
            assert!(a.is_called() && !b.is_called());
            assert_eq!((a.ask(), a.ask(), b.ask()), (Some(3), None, None));
        }
        // One that ends makes room for a new one, which is started for what still waits.
        let _ticket = pool.submit(4);
        a.step_aside();
        assert!(b.is_called());
        drop(b);
        let [c] = take(&started);
        assert_eq!(c.ask(), Some(4));
    }

    #[test]
    fn an_idle_worker_is_called_before_one_that_has_other_requests() {
        let (pool, started) = pool(2);
        let _tickets = [1, 2].map(|job| pool.submit(job));
        let [idle, other] = take(&started);
        assert_eq!((idle.ask(), other.ask(), idle.ask()), (Some(1), Some(2), None));
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(other.poll_next(&cx, true, None), Next::Wait));
        let _tickets = [3, 4].map(|job| {
            let ticket = pool.submit(job);
            assert!(idle.is_called() && other.is_called() == (job == 4));
            ticket
        });
    }

    #[test]
    fn while_several_are_busy_a_spare_one_is_started_before_it_is_needed() {
        let (pool, started) = pool_with(4, 1);
        let mut tickets: Vec<_> = [1, 2].map(|job| pool.submit(job)).into();
        let [a, b] = take(&started);
        for worker in [&a, &b] {
            assert!(!worker.is_spare());
            worker.has_started();
        }
        assert_eq!((a.ask(), b.ask(), a.ask(), b.ask()), (Some(1), Some(2), None, None));
        tickets.push(pool.submit(3));
        assert_eq!(b.ask(), Some(3));
        assert_eq!(started.lock().unwrap().len(), 0, "one is busy, another idle");
        tickets.push(pool.submit(4));
        assert_eq!(a.ask(), Some(4));
        let [spare] = take(&started);
        assert!(spare.is_spare());
        assert_eq!(started.lock().unwrap().len(), 0, "one is enough");
        spare.has_started();
        assert_eq!(spare.ask(), None);
        tickets.push(pool.submit(5));
        assert!(spare.is_called());
        assert_eq!(spare.ask(), Some(5));
        let [last] = take(&started);
        last.has_started();
        assert_eq!(last.ask(), None);
        tickets.push(pool.submit(6));
        assert_eq!(last.ask(), Some(6));
        assert_eq!(started.lock().unwrap().len(), 0, "there are no more places");
    }

    #[test]
    fn a_worker_that_cannot_be_leaves_what_waits_to_the_others() {
        let (pool, started) = pool(2);
        let _tickets = [1, 2].map(|job| pool.submit(job));
        let [a, b] = take(&started);
        assert_eq!(a.ask(), Some(1));
        assert!(b.retire());
        drop(b);
        assert_eq!(started.lock().unwrap().len(), 0, "none is started in its place");
        assert!(!a.retire(), "there is no other");
        assert_eq!(a.ask(), Some(2));
        let _ticket = pool.submit(3);
        assert_eq!(started.lock().unwrap().len(), 1, "the place is free again");
    }

    #[test]
    fn a_worker_that_cannot_begin_is_not_followed_by_another() {
        let count = Arc::new(AtomicBool::new(false));
        let pool = Pool::new(1, 0, {
            let started = Arc::clone(&count);
            // Dropped at once, as by a runtime that ends.
            move |_: Place<u32>| assert!(!started.swap(true, Ordering::Relaxed), "started again")
        });
        let ticket = pool.submit(1);
        assert!(count.load(Ordering::Relaxed));
        assert_eq!(ticket.withdraw(), Some(1));
    }

    #[test]
    fn who_does_not_wait_any_more_is_not_served() {
        let (pool, started) = pool(1);
        let tickets = [1, 2, 3].map(|job| pool.submit(job));
        let [first, second, third] = tickets;
        drop(first);
        assert_eq!(second.withdraw(), Some(2));
        let place = started.lock().unwrap().pop().unwrap();
        assert_eq!(place.ask(), Some(3));
        assert_eq!(third.withdraw(), None, "it is being served");
        assert_eq!(place.ask(), None);
    }

    #[test]
    fn it_is_known_whether_a_worker_is_about_to_be_there() {
        let (pool, started) = pool(2);
        assert!(!pool.is_starting());
        let tickets = [1, 2].map(|job| pool.submit(job));
        let [a, b] = take(&started);
        a.has_started();
        a.has_started();
        assert!(pool.is_starting(), "the other");
        drop(tickets);
        drop(b);
        assert!(!pool.is_starting(), "it could not");
    }

    #[test]
    fn idle_workers_are_sent_away_and_known_to_be_gone() {
        let (pool, started) = pool(3);
        let _tickets = [1, 2, 3].map(|job| pool.submit(job));
        let [old, busy, young] = take(&started);
        assert_eq!((old.ask(), busy.ask(), young.ask()), (Some(1), Some(2), Some(3)));
        assert_eq!(old.ask(), None);
        let since = Instant::now();
        while Instant::now() == since {}
        assert_eq!(young.ask(), None);
        // Busy, but it could take another.
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(busy.poll_next(&cx, true, None), Next::Wait));

        let mut leaving = pool.drop_idle(since);
        assert_eq!(leaving.instances, 1);
        assert!(leaving.workers.as_mut().unwrap().recv().now_or_never().is_none());
        assert!(matches!(old.next(true), Next::Leave));
        drop(old);
        assert!(leaving.workers.as_mut().unwrap().recv().now_or_never().is_some());
        assert_eq!(pool.drop_idle(since).instances, 0);
        assert_eq!(pool.drop_idle(Instant::now()).instances, 1, "the young one");
    }

    #[test]
    fn after_closing_all_leave() {
        let (pool, started) = pool(2);
        let _tickets = [1, 2].map(|job| pool.submit(job));
        let [a, b] = take(&started);
        assert_eq!((a.ask(), a.ask(), b.ask()), (Some(1), Some(2), None));
        pool.close();
        assert!(matches!(a.next(true), Next::Leave) && matches!(b.next(true), Next::Leave));
    }
}
