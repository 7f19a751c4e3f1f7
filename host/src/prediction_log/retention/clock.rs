//! The time by which records expire. It follows the system's clock, except for a jump forward: that
//! may be an error, and would delete the log. Pure: callers pass the time.

use std::time::{Duration, Instant};

/// Time for which the clock must stay ahead before records expire by it. A wrong clock is
/// usually corrected within it; a log that is kept for this time longer does no harm.
const CONFIRMATION: Duration = Duration::from_secs(60 * 60);
/// What a clock may gain at once without being said to jump, such as by a correction over the network.
const SLACK: i64 = 60 * 1_000_000;

/// Times are in microseconds of Unix time.
#[derive(Clone, Copy, Debug)]
pub(in crate::prediction_log) struct RetentionClock {
    /// The time that was right `at` an instant.
    time: i64,
    at: Instant,
    /// Since when the system's clock is ahead, and by how many microseconds.
    ahead: Option<(Instant, i64)>,
}

impl RetentionClock {
    /// A clock that starts `at` an instant, at which that of the system shows `system`. `last` is what
    /// the clock showed last, in another process: a much later time is a jump.
    pub(in crate::prediction_log) fn new(system: i64, at: Instant, last: Option<i64>) -> Self {
        let time = last.map_or(system, |last| system.min(last.saturating_add(SLACK)));
        Self { time, at, ahead: None }
    }

    /// The time by which records expire `at` an instant, at which the system's clock shows `system`.
    pub(in crate::prediction_log) fn now(&mut self, system: i64, at: Instant) -> i64 {
        let elapsed = at.saturating_duration_since(self.at).as_micros();
        let expected = self.time.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX));
        let ahead = system.saturating_sub(expected);
        self.at = at;
        if ahead <= SLACK {
            // A clock that jumped back is followed at once: records are then kept for longer.
            self.ahead = None;
            self.time = system;
            return self.time;
        }
        // Another jump starts the time anew.
        let same = self.ahead.filter(|(_, by)| by.abs_diff(ahead) <= SLACK.unsigned_abs());
        let (since, _) = *self.ahead.insert(same.unwrap_or((at, ahead)));
        if at.saturating_duration_since(since) < CONFIRMATION {
            self.time = expected;
        } else {
            self.ahead = None;
            self.time = system;
        }
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 24 * 60 * 60 * SECOND;

    /// A clock of the system and the one that follows it.
    struct Clocks {
        at: Instant,
        system: i64,
        clock: RetentionClock,
    }

    impl Clocks {
        fn new(system: i64, last: Option<i64>) -> Self {
            let at = Instant::now();
            Self { at, system, clock: RetentionClock::new(system, at, last) }
        }

        fn pass(&mut self, seconds: u32) {
            self.at += Duration::from_secs(seconds.into());
            self.system += i64::from(seconds) * SECOND;
        }

        /// How many microseconds the clock is behind that of the system.
        fn behind(&mut self) -> i64 {
            self.system - self.clock.now(self.system, self.at)
        }
    }

    #[test]
    fn clock_follows_that_of_the_system_and_its_corrections() {
        let mut clocks = Clocks::new(100 * DAY, None);
        for correction in [0, SECOND, -SECOND, 59 * SECOND, -DAY] {
            clocks.pass(60);
            clocks.system += correction;
            assert_eq!(clocks.behind(), 0, "{correction}");
        }
    }

    #[test]
    fn jump_forward_is_followed_once_it_has_lasted() {
        let mut clocks = Clocks::new(100 * DAY, None);
        clocks.system += 365 * DAY;
        for _ in 0..60 {
            assert_eq!(clocks.behind(), 365 * DAY);
            clocks.pass(60);
        }
        assert_eq!(clocks.behind(), 0);
        clocks.pass(60);
        assert_eq!(clocks.behind(), 0);
    }

    #[test]
    fn jump_forward_and_back_changes_nothing() {
        let mut clocks = Clocks::new(100 * DAY, None);
        for _ in 0..10 {
            clocks.system += 365 * DAY;
            assert_eq!(clocks.behind(), 365 * DAY);
            clocks.pass(50 * 60);
            assert_eq!(clocks.behind(), 365 * DAY);
            clocks.system -= 365 * DAY;
            assert_eq!(clocks.behind(), 0);
        }
    }

    #[test]
    fn second_jump_starts_the_time_anew() {
        let mut clocks = Clocks::new(100 * DAY, None);
        clocks.system += DAY;
        clocks.behind();
        clocks.pass(50 * 60);
        clocks.system += 365 * DAY;
        clocks.behind();
        clocks.pass(50 * 60);
        assert_eq!(clocks.behind(), 366 * DAY);
        clocks.pass(10 * 60);
        assert_eq!(clocks.behind(), 0);
    }

    #[test]
    fn time_long_after_that_of_the_last_process_is_a_jump() {
        let mut clocks = Clocks::new(100 * DAY, Some(90 * DAY));
        assert_eq!(clocks.behind(), 10 * DAY - SLACK);
        clocks.pass(60 * 60);
        assert_eq!(clocks.behind(), 0);
        assert_eq!(Clocks::new(100 * DAY, Some(100 * DAY - SLACK)).behind(), 0);
        // The clock was ahead then.
        assert_eq!(Clocks::new(100 * DAY, Some(900 * DAY)).behind(), 0);
    }
}
