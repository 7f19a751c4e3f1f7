//! The current window: the number of recent records in each bin, and the moments of bins. It is a
//! ring of sub-windows, so that memory is bounded and no value is stored. It reads no clock: times
//! come from the records and the caller.
//!
//! Everything in a sub-window is a sum. Windows of several hosts are merged by putting their
//! sub-windows together ([`WindowSnapshot::of`]), and the result is the window of all records,
//! whatever the order of the hosts.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use spinfer_statistics::alarm::covered;
use spinfer_statistics::effective_size;

use super::settings::WindowShape;

/// Number of sub-windows of a window of recent records. The oldest is evicted as a whole, so a full
/// window covers between 95 % and 100 % of its maximum records, or of its maximum age.
pub(super) const SUB_WINDOWS: u32 = 20;
/// Sub-windows in a half-life. All records of one have the same weight, which is within 5 % of
/// that of their own age.
const PER_HALF_LIFE: u32 = 8;
/// Half-lives after which a record is evicted, with a weight of 1/256.
const HALF_LIVES: u32 = 8;
/// Maximum number of records of a sub-window: its counts have 32 bits.
const MAX_RECORDS: u32 = 1 << 30;
/// Maximum number of unseen categories that a sub-window names for each field.
const MAX_UNSEEN: usize = 8;
/// Maximum length of the name of an unseen category, in characters.
const UNSEEN_NAME: usize = 64;

#[derive(Debug)]
pub(super) struct Window {
    shape: WindowShape,
    size: WindowSize,
    state: WindowState,
}

/// The contents of a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowState {
    /// Number of starts that were looked at ([`spinfer_statistics::alarm`]).
    starts: u64,
    /// The oldest first. The last one is being filled.
    parts: VecDeque<SubWindow>,
}

/// The numbers of counters and of sums of each sub-window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowSize {
    pub(super) counts: usize,
    pub(super) sums: usize,
}

/// A part of the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubWindow {
    #[serde(with = "unix_micros")]
    first: SystemTime,
    #[serde(with = "unix_micros")]
    last: SystemTime,
    records: u32,
    /// Number of this sub-window among the starts that were looked at.
    start: Option<u64>,
    pub(super) counts: Vec<u32>,
    /// Sums of values: not finite after an infinite value.
    #[serde(with = "float_bits")]
    pub(super) sums: Vec<f64>,
    unseen: Vec<UnseenCategory>,
}

/// A category that the baseline lacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnseenCategory {
    /// Index of the field in the baseline.
    field: usize,
    name: String,
    /// Too large by the count of the name that it displaced, if there were more than
    /// [`MAX_UNSEEN`].
    count: u32,
}

/// The contents of one or more windows at an instant.
#[derive(Debug, PartialEq)]
pub(super) struct WindowSnapshot {
    pub(super) records: u64,
    /// Times of the oldest and of the latest record.
    pub(super) span: Option<(SystemTime, SystemTime)>,
    pub(super) counts: Vec<u64>,
    /// Sums of weights, and of their squares.
    pub(super) weights: Vec<f64>,
    pub(super) squares: Vec<f64>,
    /// Weighted sums.
    pub(super) sums: Vec<f64>,
    /// Field, name and count of unseen categories.
    pub(super) unseen: Vec<(usize, String, u64)>,
}

/// The counts of all records from a start on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StartCounts {
    /// Number of the start, from 1.
    pub(super) start: u64,
    pub(super) counts: Vec<u64>,
}

impl Window {
    pub(super) fn new(shape: &WindowShape, size: WindowSize) -> Self {
        Self { shape: shape.clone(), size, state: WindowState::default() }
    }

    /// Takes over contents that [`Self::state`] returned; false if they are of another size.
    pub(super) fn restore(&mut self, state: WindowState) -> bool {
        let fits = state.fits(self.size);
        if fits {
            self.state = state;
        }
        fits
    }

    pub(super) fn state(&self) -> &WindowState {
        &self.state
    }

    /// Admits up to `wanted` records of the time `now`. Returns their number, at least one unless
    /// `wanted` is 0, and the sub-window to count them in.
    pub(super) fn admit(&mut self, now: SystemTime, wanted: u32) -> (u32, &mut SubWindow) {
        self.follow_clock(now);
        let (size, age) = match self.shape {
            WindowShape::Recent { records, age } => {
                (records.div_ceil(SUB_WINDOWS).max(1), age / SUB_WINDOWS)
            }
            WindowShape::Decayed { half_life } => (MAX_RECORDS, half_life / PER_HALF_LIFE),
        };
        let full = |part: &SubWindow| part.records >= size || elapsed(part.first, now) > age;
        if self.state.parts.back().is_none_or(full) {
            self.rotate(now, size);
        }
        let last = self.state.parts.len().saturating_sub(1);
        let part = &mut self.state.parts[last];
        let admitted = wanted.min(size.saturating_sub(part.records));
        part.records += admitted;
        part.last = part.last.max(now);
        (admitted, part)
    }

    /// Moves times that are in the future to `now`: the clock was set back. Otherwise records of
    /// the wrong time would not expire before the clock is there again.
    fn follow_clock(&mut self, now: SystemTime) {
        if self.state.parts.back().is_some_and(|part| part.last > now) {
            for part in &mut self.state.parts {
                part.first = part.first.min(now);
                part.last = part.last.min(now);
            }
        }
    }

    /// Starts a new sub-window. Evicts those that are too old or too many, and reuses the memory of
    /// one of them.
    fn rotate(&mut self, now: SystemTime, size: u32) {
        let (parts, records) = match self.shape {
            WindowShape::Recent { records, .. } => (SUB_WINDOWS, u64::from(records)),
            WindowShape::Decayed { .. } => (PER_HALF_LIFE * HALF_LIVES, u64::MAX),
        };
        let mut free = None;
        while let Some(oldest) = self.state.parts.front()
            && (self.shape.is_expired(oldest, now)
                || self.state.parts.len() >= parts as usize
                || self.total() + u64::from(size) > records)
        {
            free = self.state.parts.pop_front();
        }
        let mut part = free.unwrap_or_else(|| SubWindow {
            first: now,
            last: now,
            records: 0,
            start: None,
            counts: vec![0; self.size.counts],
            sums: vec![0.0; self.size.sums],
            unseen: Vec::new(),
        });
        part.reset(now);
        self.state.parts.push_back(part);
    }

    fn total(&self) -> u64 {
        self.state.parts.iter().map(|part| u64::from(part.records)).sum()
    }

    /// The contents at the time `now`, together with those of `others`.
    pub(super) fn snapshot(&self, now: SystemTime, others: &[WindowState]) -> WindowSnapshot {
        let states = others.iter().chain([&self.state]);
        let mut parts: Vec<_> = states.flat_map(|state| &state.parts).collect();
        // Sums are rounded: in one order, whatever that of the hosts.
        parts.sort_by(|a, b| a.compare(b));
        WindowSnapshot::of(parts.into_iter(), &self.shape, self.size, now)
    }

    /// The counts from each start to look at. A start without a number gets the next one.
    pub(super) fn look(&mut self, now: SystemTime) -> Vec<StartCounts> {
        let WindowState { starts, parts } = &mut self.state;
        let live: Vec<usize> =
            (0..parts.len()).filter(|&at| !self.shape.is_expired(&parts[at], now)).collect();
        let mut looks: Vec<StartCounts> = Vec::new();
        for covered in covered(live.len()) {
            let at = live[live.len() - covered];
            let start = *parts[at].start.get_or_insert_with(|| {
                *starts = starts.saturating_add(1);
                *starts
            });
            let mut counts = vec![0; self.size.counts];
            for &other in live.iter().filter(|&&other| other >= at) {
                add(&mut counts, &parts[other].counts);
            }
            looks.push(StartCounts { start, counts });
        }
        looks
    }

    /// The counts from each start to look at, of this window and of `others`: the starts that the
    /// hosts have numbered, and all sub-windows that started then or later. Nothing is changed, and
    /// the result does not depend on which of the hosts this is.
    ///
    /// Start `k` of one of `n` hosts gets the number `k n`. Each number is that of at most `n` starts,
    /// which together spend at most what the numbers from `(k - 1) n + 1` to `k n` may.
    pub(super) fn merged_look(&self, now: SystemTime, others: &[WindowState]) -> Vec<StartCounts> {
        let hosts = others.len() as u64 + 1;
        let mut live: Vec<Vec<&SubWindow>> = Vec::new();
        for state in others.iter().chain([&self.state]) {
            let parts = state.parts.iter().filter(|part| !self.shape.is_expired(part, now));
            live.push(parts.collect());
        }
        // A host that has evicted records lacks those before its oldest sub-window.
        let evicted = live.iter().filter_map(|parts| parts.first());
        let evicted = evicted.filter(|oldest| oldest.start != Some(1));
        let complete = evicted.map(|oldest| oldest.first).max();
        let parts = || live.iter().flatten();
        let mut starts: Vec<(SystemTime, u64)> = parts()
            .filter(|part| complete.is_none_or(|complete| part.first >= complete))
            .filter_map(|part| Some((part.first, part.start?)))
            .collect();
        starts.sort_unstable();
        // Of hosts with a start at the same time, the smallest number.
        starts.dedup_by_key(|(first, _)| *first);
        let looked = covered(starts.len()).map(|covered| starts[starts.len() - covered]);
        let look = |(from, start): (SystemTime, u64)| {
            let mut counts = vec![0; self.size.counts];
            for part in parts().filter(|part| part.first >= from) {
                add(&mut counts, &part.counts);
            }
            StartCounts { start: start.saturating_mul(hosts), counts }
        };
        looked.map(look).collect()
    }
}

fn add(sums: &mut [u64], counts: &[u32]) {
    sums.iter_mut().zip(counts).for_each(|(sum, &count)| *sum += u64::from(count));
}

impl WindowState {
    /// Whether the sub-windows have this size.
    pub(super) fn fits(&self, size: WindowSize) -> bool {
        self.parts.iter().all(|part| part.fits(size))
    }

    /// Time of the latest record.
    pub(super) fn latest(&self) -> Option<SystemTime> {
        self.parts.iter().map(|part| part.last).max()
    }
}

impl WindowShape {
    fn is_expired(&self, part: &SubWindow, now: SystemTime) -> bool {
        let age = match self {
            Self::Recent { age, .. } => *age,
            Self::Decayed { half_life } => *half_life * HALF_LIVES,
        };
        elapsed(part.first, now) > age
    }

    /// The weight of the records of `part`, from 0 to 1.
    fn weight(&self, part: &SubWindow, now: SystemTime) -> f64 {
        match self {
            Self::Recent { .. } => 1.0,
            Self::Decayed { half_life } => {
                let middle = part.first + elapsed(part.first, part.last) / 2;
                (-elapsed(middle, now).div_duration_f64(*half_life)).exp2()
            }
        }
    }
}

impl SubWindow {
    fn reset(&mut self, now: SystemTime) {
        let Self { first, last, records, start, counts, sums, unseen } = self;
        (*first, *last, *records, *start) = (now, now, 0, None);
        counts.fill(0);
        sums.fill(0.0);
        unseen.clear();
    }

    fn fits(&self, size: WindowSize) -> bool {
        self.counts.len() == size.counts && self.sums.len() == size.sums
    }

    /// An order by time, and by the contents of sub-windows of the same time.
    fn compare(&self, other: &Self) -> Ordering {
        let key = |part: &Self| (part.first, part.last, part.records);
        let sums = |part: &Self| part.sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
        key(self)
            .cmp(&key(other))
            .then_with(|| self.counts.cmp(&other.counts))
            .then_with(|| sums(self).cmp(&sums(other)))
    }

    /// Counts a category that the baseline lacks by its name. When there are too many, it displaces
    /// the least frequent (Metwally, Agrawal and El Abbadi 2005, "Efficient computation of frequent
    /// and top-k elements in data streams").
    pub(super) fn count_unseen(&mut self, field: usize, name: &str) {
        let name: String = name.chars().take(UNSEEN_NAME).collect();
        let of_field = || self.unseen.iter().enumerate().filter(|(_, other)| other.field == field);
        let found = of_field().find(|(_, other)| other.name == name).map(|(at, _)| at);
        let least = of_field().min_by_key(|(_, other)| other.count).map(|(at, _)| at);
        match (found, least) {
            (Some(at), _) => self.unseen[at].count += 1,
            (None, Some(at)) if of_field().count() >= MAX_UNSEEN => {
                let count = self.unseen[at].count + 1;
                self.unseen[at] = UnseenCategory { field, name, count };
            }
            (None, _) => self.unseen.push(UnseenCategory { field, name, count: 1 }),
        }
    }
}

impl WindowSnapshot {
    /// The number of values without weights that is as precise as those in these counters, to two
    /// decimals: 200 records of one weight are 200, not a rounding error less.
    pub(super) fn effective(&self, counters: Range<usize>) -> f64 {
        let sum = |of: &[f64]| of.get(counters.clone()).unwrap_or_default().iter().sum();
        (effective_size(sum(&self.weights), sum(&self.squares)) * 100.0).round() / 100.0
    }

    /// The sum of `parts`, without those that have expired.
    fn of<'a>(
        parts: impl Iterator<Item = &'a SubWindow>,
        shape: &WindowShape,
        size: WindowSize,
        now: SystemTime,
    ) -> Self {
        let mut all = Self {
            records: 0,
            span: None,
            counts: vec![0; size.counts],
            weights: vec![0.0; size.counts],
            squares: vec![0.0; size.counts],
            sums: vec![0.0; size.sums],
            unseen: Vec::new(),
        };
        for part in parts.filter(|part| !shape.is_expired(part, now)) {
            all.records += u64::from(part.records);
            let (first, last) = all.span.unwrap_or((part.first, part.last));
            all.span = Some((first.min(part.first), last.max(part.last)));
            let weight = shape.weight(part, now);
            add(&mut all.counts, &part.counts);
            let sums = all.weights.iter_mut().zip(&mut all.squares);
            for ((weights, squares), &count) in sums.zip(&part.counts) {
                *weights += weight * f64::from(count);
                *squares += weight * weight * f64::from(count);
            }
            all.sums.iter_mut().zip(&part.sums).for_each(|(sum, value)| *sum += weight * value);
            for UnseenCategory { field, name, count } in &part.unseen {
                let known = all.unseen.iter_mut().find(|(f, other, _)| f == field && other == name);
                match known {
                    Some((.., sum)) => *sum += u64::from(*count),
                    None => all.unseen.push((*field, name.clone(), u64::from(*count))),
                }
            }
        }
        all
    }
}

/// Zero if the clock was set back.
fn elapsed(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

/// A time as microseconds of Unix time.
mod unix_micros {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::prediction_log::times::micros;

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        micros(*time).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let micros = u64::deserialize(from)?;
        let time = UNIX_EPOCH.checked_add(Duration::from_micros(micros));
        time.ok_or_else(|| serde::de::Error::custom("the time is out of range"))
    }
}

/// Numbers as their bits: decimals might be read back with another last digit, and JSON has no
/// infinity.
mod float_bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sums: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(sums.iter().map(|sum| sum.to_bits()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let bits = Vec::<u64>::deserialize(from)?;
        Ok(bits.into_iter().map(f64::from_bits).collect())
    }
}

#[cfg(test)]
mod tests;
