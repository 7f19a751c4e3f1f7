//! Waits for conditions.

use std::time::{Duration, Instant};

/// Limit of every wait, far longer than any condition takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, for conditions that send no event.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_up_to(PATIENCE, what, condition);
}

/// [`wait_until`] with another time limit.
pub fn wait_up_to(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    /// Time between two checks, short enough to notice at once and long enough to leave the core to others.
    const PAUSE: Duration = Duration::from_millis(20);
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited until {what}");
        std::thread::sleep(PAUSE);
    }
}
