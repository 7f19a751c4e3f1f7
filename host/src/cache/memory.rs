//! The answers this process keeps, up to so many bytes. Which to keep is `quick_cache`'s: S3-FIFO,
//! where what is asked for once does not push out what is asked for again.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::entry::Entry;
use super::key::Key;
use crate::metrics::counters::Counter;

/// How large an answer is on average: how many fit is a guess, and grows if it was wrong.
const USUAL: usize = 1024;

/// Answers as long as they may be that each part of the memory has room for.
const LONGEST_IN_A_PART: u64 = 4;

/// Bounded in bytes.
#[derive(Debug)]
pub struct Memory {
    kept: Cache<Key, Arc<Entry>, Size, BuildHasherDefault<FirstBits>, Evictions>,
    evicted: Arc<Counter>,
}

impl Memory {
    /// For at most about `bytes`, in parts that each have room for some of the longest answers, of
    /// `longest` bytes. At least one part, so that of little memory an answer may get none.
    #[must_use]
    pub fn new(bytes: u64, longest: usize) -> Self {
        let count = usize::try_from(bytes).unwrap_or(usize::MAX) / USUAL;
        let (hasher, evicted) = (BuildHasherDefault::default(), Arc::default());
        let evictions =
            Evictions { counted: Arc::clone(&evicted), lifecycle: DefaultLifecycle::default() };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let parts = bytes / (longest as u64).saturating_mul(LONGEST_IN_A_PART).max(1);
        // A power of two, or it is made the next one.
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).clamp(1, 4 * threads);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(count.clamp(16, 1 << 20))
            .weight_capacity(bytes)
            .shards(1 << parts.ilog2())
            .build()
            .expect("all that is needed is given");
        Self { kept: Cache::with_options(options, Size, hasher, evictions), evicted }
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.kept.get(key)
    }

    pub fn put(&self, key: Key, entry: Arc<Entry>) {
        self.kept.insert(key, entry);
    }

    pub fn clear(&self) {
        self.kept.clear();
    }

    /// Answers, and what they take.
    #[must_use]
    pub fn filled(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.weight())
    }

    /// Answers that made room for others, or were not taken in.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted.get()
    }
}

/// Counts them. What replaces an answer, or removes it, is none.
#[derive(Clone, Debug)]
struct Evictions {
    counted: Arc<Counter>,
    lifecycle: DefaultLifecycle<Key, Arc<Entry>>,
}

impl Lifecycle<Key, Arc<Entry>> for Evictions {
    type RequestState =
        <DefaultLifecycle<Key, Arc<Entry>> as Lifecycle<Key, Arc<Entry>>>::RequestState;

    fn before_evict(&self, _: &mut Self::RequestState, _: &Key, _: &mut Arc<Entry>) {
        self.counted.count();
    }

    /// Dropped when no lock is held any more.
    fn on_evict(&self, state: &mut Self::RequestState, key: Key, entry: Arc<Entry>) {
        self.lifecycle.on_evict(state, key, entry);
    }
}

/// By the memory it takes.
#[derive(Clone, Debug)]
struct Size;

impl Weighter<Key, Arc<Entry>> for Size {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        entry.size() as u64
    }
}

/// A key is a hash already, of which any bits will do.
#[derive(Debug, Default)]
pub(super) struct FirstBits(u64);

impl Hasher for FirstBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}
