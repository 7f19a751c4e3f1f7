//! Work that continues after the response is returned: the writing of its body.
//!
//! `wit_bindgen::spawn` would make it a task of the executor, which yields to the host each time before
//! the task waits: another call of the component, after everything else that the host has to do. Here what
//! the work waits for resumes it directly.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// What waits, by number.
    static WAITING: RefCell<BTreeMap<u64, Work>> = const { RefCell::new(BTreeMap::new()) };
    static LAST: RefCell<u64> = const { RefCell::new(0) };
}

/// Resumes the work with this number.
struct Resume {
    number: u64,
    /// Whether it was woken since its last poll started.
    woken: AtomicBool,
}

/// Starts `work`, within a call of the component. It is resumed by events of the host only.
pub(super) fn start(work: impl Future<Output = ()> + 'static) {
    let number = LAST.with_borrow_mut(|last| {
        *last += 1;
        *last
    });
    resume(&Arc::new(Resume { number, woken: AtomicBool::new(false) }), Box::pin(work));
}

fn resume(resumed: &Arc<Resume>, mut work: Work) {
    let waker = Waker::from(Arc::clone(resumed));
    loop {
        resumed.woken.store(false, Ordering::Relaxed);
        if work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
        // Woken by its own poll, when it was not among what waits.
        if !resumed.woken.load(Ordering::Relaxed) {
            break;
        }
    }
    WAITING.with_borrow_mut(|waiting| waiting.insert(resumed.number, work));
}

impl Wake for Resume {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        if let Some(work) = WAITING.with_borrow_mut(|waiting| waiting.remove(&self.number)) {
            resume(&self, work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::task::Poll;

    use super::*;

    #[test]
    fn work_continues_when_what_it_waits_for_wakes_it() {
        let (waker, steps) = (Rc::new(Cell::new(None::<Waker>)), Rc::new(Cell::new(0)));
        let (kept, taken) = (Rc::clone(&waker), Rc::clone(&steps));
        start(poll_fn(move |cx| {
            taken.set(taken.get() + 1);
            kept.set(Some(cx.waker().clone()));
            if taken.get() < 3 { Poll::Pending } else { Poll::Ready(()) }
        }));
        for step in 1..4 {
            assert_eq!(steps.get(), step);
            waker.take().unwrap().wake();
        }
        assert_eq!(steps.get(), 3, "it is over");
        assert_eq!(Rc::strong_count(&steps), 1, "and dropped");
    }

    #[test]
    fn work_that_its_own_poll_wakes_continues() {
        let steps = Rc::new(Cell::new(0));
        let taken = Rc::clone(&steps);
        start(poll_fn(move |cx| {
            taken.set(taken.get() + 1);
            if taken.get() == 3 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        assert_eq!(steps.get(), 3);
        assert_eq!(Rc::strong_count(&steps), 1, "it is over, and dropped");
    }
}
