//! A component, as the cache knows it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::key::Origin;
use super::terms::Learned;

/// A component whose last answers were all not to be kept, so many of them, is no longer looked up
/// until it gives one that is.
const ANSWERS_IN_VAIN: u32 = 64;

/// What of a component its kept answers depend on, and what is known of them.
#[derive(Debug)]
pub struct Source {
    pub(super) origin: Origin,
    /// What of a request its answers depend on.
    pub(super) learned: Learned,
    /// Its last answers that were not to be kept.
    in_vain: AtomicU32,
    /// Whether there ever was one that was, or is likely to be.
    keeps: AtomicBool,
}

impl Source {
    /// It is `likely` to give answers that are kept, or it is not known before it does.
    #[must_use]
    pub fn new(origin: Origin, likely: bool) -> Self {
        let (in_vain, keeps) = (AtomicU32::new(0), AtomicBool::new(likely));
        Self { origin, learned: Learned::default(), in_vain, keeps }
    }

    /// Whether it pays to look: it may give answers that are kept.
    #[must_use]
    pub fn may_keep(&self) -> bool {
        self.in_vain.load(Ordering::Relaxed) < ANSWERS_IN_VAIN
    }

    /// Whether it gives answers that are kept, so that it pays to wait for one.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.may_keep() && self.keeps.load(Ordering::Relaxed)
    }

    /// Whether its latest answer was to be kept.
    pub(super) fn learn(&self, kept: bool) {
        if kept && !self.keeps.load(Ordering::Relaxed) {
            self.keeps.store(true, Ordering::Relaxed);
        }
        if !kept {
            let more = |count: u32| (count < ANSWERS_IN_VAIN).then_some(count + 1);
            let _ = self.in_vain.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        } else if self.in_vain.load(Ordering::Relaxed) > 0 {
            self.in_vain.store(0, Ordering::Relaxed);
        }
    }
}
