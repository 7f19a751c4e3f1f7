//! The current window: the number of recent records in each bin. It is a ring of sub-windows, each
//! an array of counts, so that memory is bounded and no value is stored. It reads no clock: times
//! come from the records and the caller.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Number of sub-windows. The oldest is evicted as a whole, so a full window covers between 95 %
/// and 100 % of its maximum records, or of its maximum age.
pub(super) const SUB_WINDOWS: u32 = 20;

#[derive(Debug)]
pub(super) struct Window {
    /// Maximum number of records.
    records: u32,
    /// Maximum age of a record.
    age: Duration,
    /// Number of counters of each sub-window.
    counters: usize,
    /// The oldest first. The last one is being filled.
    parts: VecDeque<SubWindow>,
}

/// A part of the window.
#[derive(Debug)]
pub(super) struct SubWindow {
    first: SystemTime,
    last: SystemTime,
    records: u32,
    pub(super) counts: Box<[u32]>,
}

/// The contents of a window at an instant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WindowSnapshot {
    pub(super) records: u64,
    /// Times of the oldest and of the latest record.
    pub(super) span: Option<(SystemTime, SystemTime)>,
    pub(super) counts: Vec<u64>,
}

impl Window {
    pub(super) fn new(records: u32, age: Duration, counters: usize) -> Self {
        Self { records, age, counters, parts: VecDeque::new() }
    }

    /// Admits up to `wanted` records of the time `now`. Returns their number, at least one unless
    /// `wanted` is 0, and the counters to count them in.
    pub(super) fn admit(&mut self, now: SystemTime, wanted: u32) -> (u32, &mut [u32]) {
        let size = self.records.div_ceil(SUB_WINDOWS).max(1);
        let age = self.age / SUB_WINDOWS;
        let full = |part: &SubWindow| part.records >= size || elapsed(part.first, now) > age;
        if self.parts.back().is_none_or(full) {
            self.rotate(now, size);
        }
        let last = self.parts.len().saturating_sub(1);
        let part = &mut self.parts[last];
        let admitted = wanted.min(size.saturating_sub(part.records));
        part.records += admitted;
        part.last = part.last.max(now);
        (admitted, &mut part.counts)
    }

    /// Starts a new sub-window. Evicts those that are too old or too many, and reuses the memory of
    /// one of them.
    fn rotate(&mut self, now: SystemTime, size: u32) {
        let mut free = None;
        while let Some(oldest) = self.parts.front()
            && (self.is_expired(oldest, now)
                || self.parts.len() >= SUB_WINDOWS as usize
                || self.total() + u64::from(size) > u64::from(self.records))
        {
            free = self.parts.pop_front();
        }
        let mut counts =
            free.map_or_else(|| vec![0; self.counters].into_boxed_slice(), |part| part.counts);
        counts.fill(0);
        self.parts.push_back(SubWindow { first: now, last: now, records: 0, counts });
    }

    fn total(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.records)).sum()
    }

    fn is_expired(&self, part: &SubWindow, now: SystemTime) -> bool {
        elapsed(part.first, now) > self.age
    }

    /// The contents at the time `now`.
    pub(super) fn snapshot(&self, now: SystemTime) -> WindowSnapshot {
        let mut counts = vec![0; self.counters];
        let (mut records, mut span) = (0, None::<(SystemTime, SystemTime)>);
        for part in self.parts.iter().filter(|part| !self.is_expired(part, now)) {
            records += u64::from(part.records);
            let (first, last) = span.unwrap_or((part.first, part.last));
            span = Some((first.min(part.first), last.max(part.last)));
            for (sum, &count) in counts.iter_mut().zip(&part.counts) {
                *sum += u64::from(count);
            }
        }
        WindowSnapshot { records, span, counts }
    }
}

/// Zero if the clock was set back.
fn elapsed(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn add(window: &mut Window, now: SystemTime, mut records: u32) {
        while records > 0 {
            let (admitted, counts) = window.admit(now, records);
            counts[0] += admitted;
            records -= admitted;
        }
    }

    #[test]
    fn full_window_contains_the_last_records() {
        let mut window = Window::new(100, HOUR, 2);
        assert_eq!(window.snapshot(at(0)).records, 0);
        add(&mut window, at(0), 3);
        assert_eq!(window.snapshot(at(0)).span, Some((at(0), at(0))));
        add(&mut window, at(1), 1_000);
        let WindowSnapshot { records, span, counts } = window.snapshot(at(1));
        assert!((96..=100).contains(&records), "{records}");
        assert_eq!((span, counts), (Some((at(1), at(1))), vec![records, 0]));
    }

    #[test]
    fn expired_records_are_evicted() {
        let mut window = Window::new(1_000, HOUR, 1);
        for minute in 0..120 {
            add(&mut window, at(minute * 60), 1);
        }
        let now = at(120 * 60);
        let WindowSnapshot { records, span, .. } = window.snapshot(now);
        assert!((54..=60).contains(&records), "{records}");
        assert!(span.unwrap().0 >= now - HOUR);
        assert_eq!(window.snapshot(at(240 * 60)).records, 0);
        assert!(window.parts.len() <= SUB_WINDOWS as usize);
    }

    #[test]
    fn records_are_counted_when_the_clock_is_set_back() {
        let mut window = Window::new(1_000, HOUR, 1);
        add(&mut window, at(10_000), 10);
        add(&mut window, at(0), 10);
        assert_eq!(window.snapshot(at(0)).records, 20);
    }

    proptest! {
        #[test]
        fn window_never_exceeds_its_maximum(
            records in 1_u32..500,
            steps in prop::collection::vec((0_u64..2_000, 1_u32..300), 0..60),
        ) {
            let mut window = Window::new(records, HOUR, 1);
            let mut now = 0;
            let mut added = 0;
            for (step, count) in steps {
                now += step;
                add(&mut window, at(now), count);
                added += u64::from(count);
                let snapshot = window.snapshot(at(now));
                prop_assert!(snapshot.records <= u64::from(records).max(1).min(added));
                prop_assert_eq!(snapshot.records, snapshot.counts[0]);
                prop_assert!(window.parts.len() <= SUB_WINDOWS as usize);
            }
        }
    }
}
