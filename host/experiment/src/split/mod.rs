//! Splits the units of an experiment among its variants.
//!
//! # Ramps move as few units as possible
//!
//! The k treatments own equal slots of the unit interval: the j-th (from 0) owns [j/k, (j+1)/k) and
//! uses the front of its slot. A share above 1/k takes unused parts of other slots, from the end of
//! the interval. Control has the rest. So a ramp that raises a treatment at the expense of control
//! moves units only from control to that treatment, if
//!
//! - there are at most two treatments, or
//! - no treatment has more than 1/k, or only the raised one has.
//!
//! With three or more treatments, of which one that is not raised has more than 1/k, no function of
//! the allocations alone can guarantee this: the segments of three treatments with up to 1/2 each
//! would have to be disjoint.

use crate::change::Change;
use crate::format::{CONTROL, Experiment};
use crate::hash::{BUCKETS, bucket};

/// Parts of a bucket. Segments are whole numbers of parts, so that those of 0.1 + 0.2 and of 0.3
/// are the same.
const PARTS: u64 = 1 << 32;
/// Length of the interval, in parts.
const WHOLE: u64 = BUCKETS as u64 * PARTS;

/// The assignment of units to the variants of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    seed: String,
    /// The share of each variant, in the order of the experiment.
    allocations: Vec<f64>,
    /// The disjoint parts of the interval that are assigned to treatments.
    segments: Vec<Segment>,
    /// Index of the variant for units outside of all segments.
    otherwise: usize,
    stopped: bool,
}

/// A part of the interval that is assigned to a treatment: `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    start: u64,
    end: u64,
    variant: usize,
}

impl Split {
    /// The split of `experiment` with `change` applied.
    ///
    /// # Errors
    /// If it is not a change of that experiment.
    pub fn new(experiment: &Experiment, change: &Change) -> Result<Self, String> {
        let allocations = change.allocations(experiment)?;
        let named = |name: &str| experiment.variant(name).map(|(index, _)| index);
        let seed = experiment.name.clone();
        let stopped = change.stopped;
        let control = named(CONTROL).ok_or("it has no control")?;
        if stopped {
            let winner = change.winner.as_deref().and_then(named);
            let otherwise = winner.unwrap_or(control);
            return Ok(Self { seed, allocations, segments: Vec::new(), otherwise, stopped });
        }
        let treatments = experiment.assignable().map(|(index, _)| index);
        let treatments = treatments.filter(|index| *index != control);
        let shares: Vec<_> = treatments.map(|index| (index, parts(allocations[index]))).collect();
        let segments = segments(&shares);
        Ok(Self { seed, allocations, segments, otherwise: control, stopped })
    }

    /// Index in [`Experiment::variants`] of the variant that serves `unit`. Requests without a unit
    /// are served by control, or by the winner of an experiment that is over.
    #[must_use]
    pub fn variant(&self, unit: Option<&[u8]>) -> usize {
        match unit {
            Some(unit) if !self.segments.is_empty() => self.at(bucket(&self.seed, unit)),
            Some(_) | None => self.otherwise,
        }
    }

    /// The share of the units that the variant at an index serves while the experiment is not over:
    /// the probability with which a unit is assigned to it.
    #[must_use]
    pub fn propensity(&self, variant: usize) -> f64 {
        self.allocations.get(variant).copied().unwrap_or(0.0)
    }

    /// Whether the experiment is over.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn at(&self, bucket: u32) -> usize {
        let at = u64::from(bucket) * PARTS;
        let segment =
            self.segments.iter().find(|segment| (segment.start..segment.end).contains(&at));
        segment.map_or(self.otherwise, |segment| segment.variant)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share is from 0 to 1, and the interval has 46 bits"
)]
fn parts(share: f64) -> u64 {
    (share * WHOLE as f64).round() as u64
}

/// The segments of treatments with these shares, in parts.
fn segments(shares: &[(usize, u64)]) -> Vec<Segment> {
    let count = shares.len() as u64;
    let mut segments = Vec::new();
    // The unused part of each slot.
    let mut unused = Vec::new();
    for (slot, &(variant, share)) in (0..).zip(shares) {
        let (start, end) = (WHOLE * slot / count, WHOLE * (slot + 1) / count);
        let front = start + share.min(end - start);
        segments.push(Segment { start, end: front, variant });
        unused.push((front, end));
    }
    let own: Vec<_> = segments.iter().map(|segment| segment.end - segment.start).collect();
    for (&(variant, share), own) in shares.iter().zip(own) {
        let mut beyond = share - own;
        for (front, end) in unused.iter_mut().rev() {
            let taken = beyond.min(*end - *front);
            if taken > 0 {
                segments.push(Segment { start: *end - taken, end: *end, variant });
                *end -= taken;
                beyond -= taken;
            }
        }
    }
    segments.retain(|segment| segment.start < segment.end);
    segments
}

#[cfg(test)]
mod tests;
