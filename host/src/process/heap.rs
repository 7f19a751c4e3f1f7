//! Trimming of the heap: returns freed memory that the allocator still holds to the system.
//!
//! The allocator has pages per thread, and only the owning thread can return what other threads
//! freed in them. A parked thread never would, so a trim is requested through a counter, which each
//! thread compares with the last value it has seen before it waits.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of trims requested so far.
static ROUND: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The last round in which this thread trimmed.
    static DONE: Cell<usize> = const { Cell::new(0) };
}

/// Trims the heap of this thread, and requests the same of all others before they next wait. Without
/// a trim, freed memory is returned only on later allocations, which an idle host does not make.
/// Takes some milliseconds after much was freed.
pub fn request_trim() {
    ROUND.fetch_add(1, Ordering::Relaxed);
    trim_if_requested();
}

/// Whether a trim was requested that this thread has not done yet.
#[must_use]
pub fn trim_requested() -> bool {
    DONE.get() != ROUND.load(Ordering::Relaxed)
}

/// Trims the heap of this thread if that was requested. Called by threads that are about to wait.
pub fn trim_if_requested() {
    const FORCE: bool = true;
    let round = ROUND.load(Ordering::Relaxed);
    if DONE.replace(round) == round {
        return;
    }
    #[expect(unsafe_code, reason = "a function of the allocator")]
    // SAFETY: it may be called at any time, by any thread; it touches nothing that is in use.
    unsafe {
        libmimalloc_sys::mi_collect(FORCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_trims_once_per_request() {
        trim_if_requested();
        std::thread::spawn(request_trim).join().unwrap();
        assert!(trim_requested(), "requested by another thread");
        let round = ROUND.load(Ordering::Relaxed);
        trim_if_requested();
        assert!(DONE.get() >= round);
    }
}
