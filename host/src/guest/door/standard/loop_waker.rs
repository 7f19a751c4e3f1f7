//! The waker of what runs inside of `run_concurrent`.
//!
//! wasmtime's event loop polls that again after each step of the guest. A step wakes it, too: forwarded to
//! the task, each request would cost a poll that finds nothing to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Wakes the task of a worker, unless its event loop runs and polls what was woken.
#[derive(Default)]
pub(super) struct LoopWaker {
    task: AtomicWaker,
    running: AtomicBool,
    /// Whether something was woken that was not polled since.
    woken: AtomicBool,
    /// Whether the last poll has woken the task for the next one.
    has_yielded: AtomicBool,
}

impl LoopWaker {
    /// Polls the event loop, whose waker is `waker`, made from `self`.
    pub(super) fn poll<T>(
        &self,
        waker: &Waker,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.task.register(cx.waker());
        self.running.store(true, Ordering::SeqCst);
        let polled = poll(&mut Context::from_waker(waker));
        self.running.store(false, Ordering::SeqCst);
        let has_yielded = polled.is_pending() && self.woken.swap(false, Ordering::SeqCst);
        self.has_yielded.store(has_yielded, Ordering::Relaxed);
        if has_yielded {
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Whether the event loop goes on at once after its last poll: the guest has only yielded.
    pub(super) fn has_yielded(&self) -> bool {
        self.has_yielded.load(Ordering::Relaxed)
    }

    /// Everything inside is about to be polled.
    pub(super) fn set_polled(&self) {
        self.woken.swap(false, Ordering::SeqCst);
    }
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.running.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn task_is_woken_unless_what_was_woken_is_polled() {
        let (inside, task) = (Arc::<LoopWaker>::default(), Arc::<Task>::default());
        let (waker, task_waker) =
            (Waker::from(Arc::clone(&inside)), Waker::from(Arc::clone(&task)));
        let cx = Context::from_waker(&task_waker);
        let woken = || task.0.load(Ordering::Relaxed);
        let poll = |wakes_before: bool, wakes_after: bool| {
            let polled = inside.poll(&waker, &cx, |cx| {
                if wakes_before {
                    cx.waker().wake_by_ref();
                }
                inside.set_polled();
                if wakes_after {
                    cx.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        };
        poll(false, false);
        assert_eq!(woken(), 0);
        poll(true, false);
        assert_eq!(woken(), 0, "it was polled after that");
        poll(true, true);
        assert_eq!(woken(), 1);
        poll(false, false);
        assert_eq!(woken(), 1, "once");
        waker.wake_by_ref();
        assert_eq!(woken(), 2, "the loop does not run");
    }
}
