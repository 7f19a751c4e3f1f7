//! Ending a computation from another thread.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ends a computation, for as long as it runs or before it begins; once and for all.
#[derive(Default)]
pub struct Cancellation(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// How the computation under way is ended.
    Running(Box<dyn Fn() + Send>),
    Cancelled,
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation").field("cancelled", &self.is_cancelled()).finish()
    }
}

impl Cancellation {
    /// Ends the computation under way, or keeps it from beginning.
    pub fn cancel(&self) {
        // Under the lock: once the computation is over, what ends it is not called any more.
        let mut state = self.lock();
        if let State::Running(end) = &*state {
            end();
        }
        *state = State::Cancelled;
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.lock(), State::Cancelled)
    }

    /// Runs `work`, which `end`, called from another thread, makes return early. `None` if this was
    /// cancelled before it began.
    pub fn run<T>(&self, end: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = self.lock();
            if matches!(*state, State::Cancelled) {
                return None;
            }
            *state = State::Running(Box::new(end));
        }
        let result = work();
        let mut state = self.lock();
        if matches!(*state, State::Running(_)) {
            *state = State::Idle;
        }
        Some(result)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_computation_under_way_is_ended() {
        let cancellation = Cancellation::default();
        let (end, ended) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        thread::scope(|scope| {
            let cancellation = &cancellation;
            scope.spawn(move || {
                begun.recv().unwrap();
                cancellation.cancel();
            });
            let work = || {
                begin.send(()).unwrap();
                ended.recv()
            };
            let end = move || end.send(7).unwrap();
            assert_eq!(cancellation.run(end, work), Some(Ok(7)));
        });
        assert!(cancellation.is_cancelled());
        assert_eq!(cancellation.run(|| (), || 1), None, "not begun");
    }

    #[test]
    fn what_is_over_is_not_ended() {
        let cancellation = Cancellation::default();
        let end = || panic!("nothing runs");
        assert_eq!(cancellation.run(end, || 1), Some(1));
        assert_eq!(cancellation.run(end, || 2), Some(2));
        cancellation.cancel();
    }
}
