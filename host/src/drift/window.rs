//! The current window: how many of the last records fell into which bin. A ring of sub-windows, each
//! an array of counts, so memory is bounded and no value is kept. Knows no clock: times are those of
//! the records, and of who asks.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Parts of a window. The oldest goes as a whole, so a full window has between 19 and 20 twentieths
/// of its records, and of its age.
pub(super) const SUB_WINDOWS: u32 = 20;

#[derive(Debug)]
pub(super) struct Window {
    /// Maximum number of records.
    records: u32,
    /// Maximum age of a record.
    age: Duration,
    /// Counters of each part.
    counters: usize,
    /// The oldest first.
    parts: VecDeque<SubWindow>,
}

/// A part of the window, being filled if it is the last.
#[derive(Debug)]
pub(super) struct SubWindow {
    first: SystemTime,
    last: SystemTime,
    records: u32,
    pub(super) counts: Box<[u32]>,
}

/// The window at an instant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) records: u64,
    /// Times of the oldest and the latest record.
    pub(super) span: Option<(SystemTime, SystemTime)>,
    pub(super) counts: Vec<u64>,
}

impl Window {
    pub(super) fn new(records: u32, age: Duration, counters: usize) -> Self {
        Self { records, age, counters, parts: VecDeque::new() }
    }

    /// Takes up to `wanted` records of the time `now` in: how many, and the counters they are to be
    /// counted with. At least one, if any is wanted.
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

    /// Begins a new part, with the memory of one that has to go.
    fn rotate(&mut self, now: SystemTime, size: u32) {
        let mut free = None;
        while let Some(oldest) = self.parts.front()
            && (self.is_over(oldest, now)
                || self.parts.len() >= SUB_WINDOWS as usize
                || self.held() + u64::from(size) > u64::from(self.records))
        {
            free = self.parts.pop_front();
        }
        let mut counts =
            free.map_or_else(|| vec![0; self.counters].into_boxed_slice(), |part| part.counts);
        counts.fill(0);
        self.parts.push_back(SubWindow { first: now, last: now, records: 0, counts });
    }

    fn held(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.records)).sum()
    }

    fn is_over(&self, part: &SubWindow, now: SystemTime) -> bool {
        elapsed(part.first, now) > self.age
    }

    /// What is in it at the time `now`.
    pub(super) fn snapshot(&self, now: SystemTime) -> Snapshot {
        let mut counts = vec![0; self.counters];
        let (mut records, mut span) = (0, None::<(SystemTime, SystemTime)>);
        for part in self.parts.iter().filter(|part| !self.is_over(part, now)) {
            records += u64::from(part.records);
            let (first, last) = span.unwrap_or((part.first, part.last));
            span = Some((first.min(part.first), last.max(part.last)));
            for (sum, &count) in counts.iter_mut().zip(&part.counts) {
                *sum += u64::from(count);
            }
        }
        Snapshot { records, span, counts }
    }
}

/// Zero where the clock was set back meanwhile.
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
    fn holds_the_last_records() {
        let mut window = Window::new(100, HOUR, 2);
        assert_eq!(window.snapshot(at(0)).records, 0);
        add(&mut window, at(0), 3);
        assert_eq!(window.snapshot(at(0)).span, Some((at(0), at(0))));
        add(&mut window, at(1), 1_000);
        let Snapshot { records, span, counts } = window.snapshot(at(1));
        assert!((96..=100).contains(&records), "{records}");
        assert_eq!((span, counts), (Some((at(1), at(1))), vec![records, 0]));
    }

    #[test]
    fn what_is_too_old_is_not_in_it() {
        let mut window = Window::new(1_000, HOUR, 1);
        for minute in 0..120 {
            add(&mut window, at(minute * 60), 1);
        }
        let now = at(120 * 60);
        let Snapshot { records, span, .. } = window.snapshot(now);
        assert!((54..=60).contains(&records), "{records}");
        assert!(span.unwrap().0 >= now - HOUR);
        assert_eq!(window.snapshot(at(240 * 60)).records, 0);
        assert!(window.parts.len() <= SUB_WINDOWS as usize);
    }

    #[test]
    fn a_clock_that_was_set_back_loses_nothing() {
        let mut window = Window::new(1_000, HOUR, 1);
        add(&mut window, at(10_000), 10);
        add(&mut window, at(0), 10);
        assert_eq!(window.snapshot(at(0)).records, 20);
    }

    proptest! {
        #[test]
        fn never_more_than_it_may_hold(
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
