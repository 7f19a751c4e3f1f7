//! The units of an experiment, split among its variants.
//!
//! # Ramps move as few units as they can
//!
//! The treatments own equal slots of the unit interval: of k, the j-th (from 0) owns [j/k, (j+1)/k)
//! and uses the front of its slot. What it has beyond 1/k is taken from what others leave unused,
//! from the end of the interval; control has the rest. So a ramp that raises a treatment at
//! control's expense moves units from control to that treatment and no others, if
//!
//! - there are at most two treatments, or
//! - no treatment has more than 1/k, or only the one that is raised has.
//!
//! With three or more treatments, and one that is not raised above 1/k, no function of the
//! allocations alone can promise it: the places of three treatments of up to a half each would have to
//! be disjoint.

use crate::change::Change;
use crate::format::{CONTROL, Experiment};
use crate::hash::{BUCKETS, bucket};

/// Parts of a bucket in which places are computed: whole numbers, so that places of 0.1 + 0.2 and of
/// 0.3 are the same.
const PARTS: u64 = 1 << 32;
/// The whole interval.
const WHOLE: u64 = BUCKETS as u64 * PARTS;

/// Which variant each unit of an experiment is assigned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    seed: String,
    /// Disjoint.
    places: Vec<Place>,
    /// The variant of what is in no place.
    otherwise: usize,
    stopped: bool,
}

/// A part of the interval that a treatment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: u64,
    end: u64,
    variant: usize,
}

impl Split {
    /// Of `experiment` with `change` put over it. Fails if it is not a change of that experiment.
    pub fn new(experiment: &Experiment, change: &Change) -> Result<Self, String> {
        let allocations = change.allocations(experiment)?;
        let named = |name: &str| {
            let mut variants = experiment.assignable();
            variants.find(|(_, variant)| variant.name == name).map(|(index, _)| index)
        };
        let seed = experiment.name.clone();
        let stopped = change.stopped;
        let control = named(CONTROL).ok_or("it has no control")?;
        if stopped {
            let winner = change.winner.as_deref().and_then(named);
            let otherwise = winner.unwrap_or(control);
            return Ok(Self { seed, places: Vec::new(), otherwise, stopped });
        }
        let treatments = experiment.assignable().map(|(index, _)| index);
        let treatments = treatments.filter(|index| *index != control);
        let shares: Vec<_> = treatments.map(|index| (index, parts(allocations[index]))).collect();
        Ok(Self { seed, places: places(&shares), otherwise: control, stopped })
    }

    /// The place in [`Experiment::variants`] of the variant that serves `unit`; what has no unit is
    /// served by control, or by the winner of an experiment that is over.
    #[must_use]
    pub fn variant(&self, unit: Option<&[u8]>) -> usize {
        match unit {
            Some(unit) if !self.places.is_empty() => self.at(bucket(&self.seed, unit)),
            Some(_) | None => self.otherwise,
        }
    }

    /// Whether the experiment is over.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn at(&self, bucket: u32) -> usize {
        let at = u64::from(bucket) * PARTS;
        let place = self.places.iter().find(|place| (place.start..place.end).contains(&at));
        place.map_or(self.otherwise, |place| place.variant)
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

/// The places of treatments with these shares.
fn places(shares: &[(usize, u64)]) -> Vec<Place> {
    let count = shares.len() as u64;
    let mut places = Vec::new();
    // Of each slot what is unused.
    let mut unused = Vec::new();
    for (slot, &(variant, share)) in (0..).zip(shares) {
        let (start, end) = (WHOLE * slot / count, WHOLE * (slot + 1) / count);
        let front = start + share.min(end - start);
        places.push(Place { start, end: front, variant });
        unused.push((front, end));
    }
    let own: Vec<_> = places.iter().map(|place| place.end - place.start).collect();
    for (&(variant, share), own) in shares.iter().zip(own) {
        let mut beyond = share - own;
        for (front, end) in unused.iter_mut().rev() {
            let taken = beyond.min(*end - *front);
            if taken > 0 {
                places.push(Place { start: *end - taken, end: *end, variant });
                *end -= taken;
                beyond -= taken;
            }
        }
    }
    places.retain(|place| place.start < place.end);
    places
}

#[cfg(test)]
mod tests;
