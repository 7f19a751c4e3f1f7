//! A component, as the cache knows it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::Method;

use super::key::Origin;
use super::vary::Learned;

/// A component whose last answers to a method were all not to be kept, so many of them, is no longer
/// looked up for it until it gives one that is; but for paths where it gave one before.
const ANSWERS_IN_VAIN: u32 = 64;

/// What of a component its kept answers depend on, and what is known of them.
#[derive(Debug)]
pub struct Source {
    pub(super) origin: Origin,
    /// What of a request its answers depend on.
    pub(super) learned: Learned,
    /// Its last answers that were not to be kept: to POST, and to all else. Probes and metadata are
    /// asked for between predictions.
    in_vain: [AtomicU32; 2],
    /// See [`Source::keeps`].
    keeps: AtomicBool,
}

impl Source {
    /// It is `likely` to give answers that are kept, or it is not known before it does.
    #[must_use]
    pub fn new(origin: Origin, likely: bool) -> Self {
        let keeps = AtomicBool::new(likely);
        Self { origin, learned: Learned::default(), in_vain: Default::default(), keeps }
    }

    /// Whether there ever was one that was to be kept, or is likely to be: it pays to wait for one.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.keeps.load(Ordering::Relaxed)
    }

    /// Whether it pays to look, on a path of which nothing is known.
    pub(super) fn may_keep(&self, method: &Method) -> bool {
        self.in_vain(method).load(Ordering::Relaxed) < ANSWERS_IN_VAIN
    }

    /// Whether its latest answer to `method` was to be kept.
    pub(super) fn learn(&self, method: &Method, kept: bool) {
        let in_vain = self.in_vain(method);
        if kept && !self.keeps.load(Ordering::Relaxed) {
            self.keeps.store(true, Ordering::Relaxed);
        }
        if !kept {
            let more = |count: u32| (count < ANSWERS_IN_VAIN).then_some(count + 1);
            let _ = in_vain.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        } else if in_vain.load(Ordering::Relaxed) > 0 {
            in_vain.store(0, Ordering::Relaxed);
        }
    }

    fn in_vain(&self, method: &Method) -> &AtomicU32 {
        &self.in_vain[usize::from(*method == Method::POST)]
    }
}
