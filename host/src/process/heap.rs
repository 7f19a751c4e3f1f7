//! What the allocator keeps of memory that is free again.
//!
//! Each thread has pages of its own, and what others free in them it alone can give back. One that
//! is parked never would, so it is told to, by a number that it compares with the one it has seen.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How often memory was to be given back.
static ROUND: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The last round this thread took part in.
    static DONE: Cell<usize> = const { Cell::new(0) };
}

/// Gives back what this thread holds, and has the others do so when they rest. Without this it stays
/// until somebody allocates, and of an idle host nobody does. Takes some milliseconds after much was
/// freed.
pub fn give_back() {
    ROUND.fetch_add(1, Ordering::Relaxed);
    rest();
}

/// Whether this thread has not given back what it holds since all were to.
#[must_use]
pub fn is_to_rest() -> bool {
    DONE.get() != ROUND.load(Ordering::Relaxed)
}

/// Gives back what this thread holds, if it is to: for threads that are about to wait.
pub fn rest() {
    const ALL_OF_IT: bool = true;
    let round = ROUND.load(Ordering::Relaxed);
    if DONE.replace(round) == round {
        return;
    }
    #[expect(unsafe_code, reason = "a function of the allocator")]
    // SAFETY: it may be called at any time, by any thread; it touches nothing that is in use.
    unsafe {
        libmimalloc_sys::mi_collect(ALL_OF_IT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_is_told_and_rests_once() {
        rest();
        std::thread::spawn(give_back).join().unwrap();
        assert!(is_to_rest(), "another thread gave back");
        let round = ROUND.load(Ordering::Relaxed);
        rest();
        assert!(DONE.get() >= round);
    }
}
