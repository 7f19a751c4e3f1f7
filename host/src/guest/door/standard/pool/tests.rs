use std::task::Waker;

use futures::FutureExt;

use super::*;

/// The workers that were started.
type Started = Arc<Mutex<Vec<WorkerSlot<u32>>>>;

fn pool(max_workers: usize) -> (Arc<Pool<u32>>, Started) {
    pool_with(max_workers, 0)
}

fn pool_with(max_workers: usize, min_idle: usize) -> (Arc<Pool<u32>>, Started) {
    let started = Started::default();
    let pool = Pool::new(max_workers, min_idle, {
        let started = Arc::clone(&started);
        move |slot: WorkerSlot<u32>| {
            slot.set_running();
            started.lock().push(slot);
        }
    });
    (pool, started)
}

fn take<const N: usize>(started: &Started) -> [WorkerSlot<u32>; N] {
    let slots = std::mem::take(&mut *started.lock());
    <[_; N]>::try_from(slots).unwrap_or_else(|slots| panic!("{} were started", slots.len()))
}

impl WorkerSlot<u32> {
    /// The request that a worker takes; without one it is available and idle.
    fn next_job(&self) -> Option<u32> {
        match self.next(true) {
            Next::Serve(job) => Some(job),
            Next::Wait => None,
            Next::Stop => panic!("stopped"),
        }
    }

    fn next(&self, available: bool) -> Next<u32> {
        self.poll_next(&Context::from_waker(Waker::noop()), available, Some(Instant::now()))
    }

    fn is_woken(&self) -> bool {
        self.handle.woken.load(Ordering::Relaxed)
    }
}

#[test]
fn worker_is_started_for_each_request_up_to_the_maximum() {
    let (pool, started) = pool(2);
    let _queued = [1, 2, 3].map(|job| pool.submit(job));
    let [a, b] = take(&started);
    assert_eq!((a.next_job(), b.next_job()), (Some(1), Some(2)), "in the order of submission");
    assert!(matches!(b.next(false), Next::Wait));
    assert_eq!(a.next_job(), Some(3), "the first free worker takes it");
    assert_eq!(started.lock().len(), 0);
    drop((a, b));
    let _queued = pool.submit(4);
    assert_eq!(started.lock().len(), 1, "slots are released");
}

#[test]
fn idle_worker_that_was_used_last_is_woken() {
    let (pool, started) = pool(2);
    let queued = [1, 2].map(|job| pool.submit(job));
    let [a, b] = take(&started);
    assert_eq!((a.next_job(), b.next_job()), (Some(1), Some(2)));
    assert_eq!((a.next_job(), b.next_job()), (None, None));
    drop(queued);
    let _queued = pool.submit(3);
    assert!(b.is_woken() && !a.is_woken());
    assert_eq!(b.next_job(), Some(3));
    assert!(!b.is_woken());
}

#[test]
fn another_worker_is_woken_in_place_of_one_that_declines() {
    let (pool, started) = pool(2);
    let _queued = [1, 2].map(|job| pool.submit(job));
    let [a, b] = take(&started);
    assert_eq!(
        (a.next_job(), b.next_job(), a.next_job(), b.next_job()),
        (Some(1), Some(2), None, None)
    );
    for decline in [
        |slot: &WorkerSlot<u32>| slot.decline(),
        |slot: &WorkerSlot<u32>| assert!(matches!(slot.next(false), Next::Wait)),
    ] {
        let _queued = pool.submit(3);
        assert!(b.is_woken());
        decline(&b);
        assert!(a.is_woken() && !b.is_woken());
        assert_eq!((a.next_job(), a.next_job(), b.next_job()), (Some(3), None, None));
    }
    // A worker that stops is replaced by a new one if a request is queued.
    let _queued = pool.submit(4);
    a.decline();
    assert!(b.is_woken());
    drop(b);
    let [c] = take(&started);
    assert_eq!(c.next_job(), Some(4));
}

#[test]
fn idle_worker_is_woken_before_a_busy_one() {
    let (pool, started) = pool(2);
    let _queued = [1, 2].map(|job| pool.submit(job));
    let [idle, other] = take(&started);
    assert_eq!((idle.next_job(), other.next_job(), idle.next_job()), (Some(1), Some(2), None));
    let cx = Context::from_waker(Waker::noop());
    assert!(matches!(other.poll_next(&cx, true, None), Next::Wait));
    let _queued = [3, 4].map(|job| {
        let queued = pool.submit(job);
        assert!(idle.is_woken() && other.is_woken() == (job == 4));
        queued
    });
}

#[test]
fn idle_workers_are_kept_while_several_are_busy() {
    let (pool, started) = pool_with(4, 1);
    let mut queued: Vec<_> = [1, 2].map(|job| pool.submit(job)).into();
    let [a, b] = take(&started);
    for worker in [&a, &b] {
        assert!(!worker.is_standby());
        worker.set_started();
    }
    assert_eq!(
        (a.next_job(), b.next_job(), a.next_job(), b.next_job()),
        (Some(1), Some(2), None, None)
    );
    queued.push(pool.submit(3));
    assert_eq!(b.next_job(), Some(3));
    assert_eq!(started.lock().len(), 0, "one is busy, the other idle");
    queued.push(pool.submit(4));
    assert_eq!(a.next_job(), Some(4));
    let [standby] = take(&started);
    assert!(standby.is_standby());
    assert_eq!(started.lock().len(), 0, "`min_idle` is 1");
    standby.set_started();
    assert_eq!(standby.next_job(), None);
    queued.push(pool.submit(5));
    assert!(standby.is_woken());
    assert_eq!(standby.next_job(), Some(5));
    let [last] = take(&started);
    last.set_started();
    assert_eq!(last.next_job(), None);
    queued.push(pool.submit(6));
    assert_eq!(last.next_job(), Some(6));
    assert_eq!(started.lock().len(), 0, "the maximum is reached");
}

#[test]
fn worker_with_a_successor_is_replaced_by_an_idle_one() {
    let (pool, started) = pool_with(2, 1);
    let queued = pool.submit(1);
    let [first] = take(&started);
    first.set_started();
    assert_eq!(first.next_job(), Some(1));
    first.set_successor();
    drop((first, queued));
    let [second] = take(&started);
    assert!(second.is_standby());
    second.set_started();
    assert_eq!(second.next_job(), None);
    // One is idle already.
    let queued = [2, 3].map(|job| pool.submit(job));
    let [third] = take(&started);
    third.set_started();
    assert_eq!((second.next_job(), third.next_job(), third.next_job()), (Some(2), Some(3), None));
    second.set_successor();
    drop((second, queued));
    assert_eq!(started.lock().len(), 0);
    // A queued request starts the worker that it needs, and a closed pool none.
    assert_eq!(pool.drop_idle(Instant::now()).instances, 1);
    third.set_successor();
    pool.close();
    drop(third);
    assert_eq!(started.lock().len(), 0);
}

#[test]
fn worker_that_retires_leaves_the_queue_to_the_others() {
    let (pool, started) = pool(2);
    let _queued = [1, 2].map(|job| pool.submit(job));
    let [a, b] = take(&started);
    assert_eq!(a.next_job(), Some(1));
    assert!(b.retire());
    drop(b);
    assert_eq!(started.lock().len(), 0, "it is not replaced");
    assert!(!a.retire(), "it is the only one");
    assert_eq!(a.next_job(), Some(2));
    let _queued = pool.submit(3);
    assert_eq!(started.lock().len(), 1, "its slot is free");
}

#[test]
fn worker_that_never_ran_is_not_replaced() {
    let was_started = Arc::new(AtomicBool::new(false));
    let pool = Pool::new(1, 0, {
        let started = Arc::clone(&was_started);
        // Dropped at once, as by a runtime that shuts down.
        move |_: WorkerSlot<u32>| assert!(!started.swap(true, Ordering::Relaxed), "started again")
    });
    let queued = pool.submit(1);
    assert!(was_started.load(Ordering::Relaxed));
    assert_eq!(queued.withdraw(), Some(1));
}

#[test]
fn withdrawn_request_is_not_served() {
    let (pool, started) = pool(1);
    let queued = [1, 2, 3].map(|job| pool.submit(job));
    let [first, second, third] = queued;
    drop(first);
    assert_eq!(second.withdraw(), Some(2));
    let slot = started.lock().pop().unwrap();
    assert_eq!(slot.next_job(), Some(3));
    assert_eq!(third.withdraw(), None, "a worker has taken it");
    assert_eq!(slot.next_job(), None);
}

#[test]
fn pool_knows_whether_a_worker_is_starting() {
    let (pool, started) = pool(2);
    assert!(!pool.is_starting());
    let queued = [1, 2].map(|job| pool.submit(job));
    let [a, b] = take(&started);
    a.set_started();
    a.set_started();
    assert!(pool.is_starting(), "the other one");
    drop(queued);
    drop(b);
    assert!(!pool.is_starting(), "it stopped without an instance");
}

#[test]
fn idle_workers_are_evicted_and_their_drop_is_awaited() {
    let (pool, started) = pool(3);
    let _queued = [1, 2, 3].map(|job| pool.submit(job));
    let [idle, busy, recent] = take(&started);
    assert_eq!((idle.next_job(), busy.next_job(), recent.next_job()), (Some(1), Some(2), Some(3)));
    assert_eq!(idle.next_job(), None);
    let since = Instant::now();
    while Instant::now() == since {}
    assert_eq!(recent.next_job(), None);
    // Busy, but available for another request.
    let cx = Context::from_waker(Waker::noop());
    assert!(matches!(busy.poll_next(&cx, true, None), Next::Wait));

    let mut evicted = pool.drop_idle(since);
    assert_eq!(evicted.instances, 1);
    assert!(evicted.workers.as_mut().unwrap().recv().now_or_never().is_none());
    assert!(matches!(idle.next(true), Next::Stop));
    drop(idle);
    assert!(evicted.workers.as_mut().unwrap().recv().now_or_never().is_some());
    assert_eq!(pool.drop_idle(since).instances, 0);
    assert_eq!(pool.drop_idle(Instant::now()).instances, 1, "the other idle one");
}

#[test]
fn closed_pool_stops_its_workers() {
    let (pool, started) = pool(2);
    let _queued = [1, 2].map(|job| pool.submit(job));
    let [a, b] = take(&started);
    assert_eq!((a.next_job(), a.next_job(), b.next_job()), (Some(1), Some(2), None));
    pool.close();
    assert!(matches!(a.next(true), Next::Stop) && matches!(b.next(true), Next::Stop));
}
