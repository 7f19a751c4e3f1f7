//! Cancels a computation from another thread.
//!
//! | state | `run` | `cancel` | when the computation returns |
//! | --- | --- | --- | --- |
//! | `Idle` | stores `stop`, becomes `Running`, computes | becomes `Cancelled` | |
//! | `Running` | (one computation at a time) | calls `stop`, becomes `Cancelled` | becomes `Idle` |
//! | `Cancelled` | returns `None` | calls nothing | stays `Cancelled` |

use std::fmt;

use parking_lot::{Mutex, MutexGuard};

/// Cancels a computation before it starts or while it runs. A cancellation is final.
#[derive(Default)]
pub struct Cancellation(Mutex<CancellationState>);

#[derive(Default)]
enum CancellationState {
    #[default]
    Idle,
    /// Calling the function stops the computation that runs.
    Running(Box<dyn Fn() + Send>),
    Cancelled,
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation").field("cancelled", &self.is_cancelled()).finish()
    }
}

impl Cancellation {
    /// Stops the computation that runs, or prevents the next one from starting.
    pub fn cancel(&self) {
        // Under the lock, so that `stop` is never called after the computation has returned.
        let mut state = self.lock();
        if let CancellationState::Running(stop) = &*state {
            stop();
        }
        *state = CancellationState::Cancelled;
    }

    /// Whether [`Cancellation::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.lock(), CancellationState::Cancelled)
    }

    /// Runs `work`. If it is cancelled meanwhile, `stop` is called on the thread that cancels, and
    /// has to make `work` return early. Returns `None` if it was cancelled before it started.
    pub fn run<T>(&self, stop: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = self.lock();
            if matches!(*state, CancellationState::Cancelled) {
                return None;
            }
            *state = CancellationState::Running(Box::new(stop));
        }
        let result = work();
        let mut state = self.lock();
        if matches!(*state, CancellationState::Running(_)) {
            *state = CancellationState::Idle;
        }
        Some(result)
    }

    fn lock(&self) -> MutexGuard<'_, CancellationState> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_running_computation_is_stopped() {
        let cancellation = Cancellation::default();
        let (stop, stopped) = mpsc::channel();
        let (start, started) = mpsc::channel();
        thread::scope(|scope| {
            let cancellation = &cancellation;
            scope.spawn(move || {
                started.recv().unwrap();
                cancellation.cancel();
            });
            let work = || {
                start.send(()).unwrap();
                stopped.recv()
            };
            let stop = move || stop.send(7).unwrap();
            assert_eq!(cancellation.run(stop, work), Some(Ok(7)));
        });
        assert!(cancellation.is_cancelled());
        assert_eq!(cancellation.run(|| (), || 1), None, "not started");
    }

    #[test]
    fn a_computation_that_returned_is_not_stopped() {
        let cancellation = Cancellation::default();
        let stop = || panic!("nothing runs");
        assert_eq!(cancellation.run(stop, || 1), Some(1));
        assert_eq!(cancellation.run(stop, || 2), Some(2));
        cancellation.cancel();
    }
}
