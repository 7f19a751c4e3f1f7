//! The level of the cache in memory, bounded in bytes. `quick_cache` evicts by S3-FIFO: responses that
//! are requested once do not evict those that are requested repeatedly.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::entry::CacheEntry;
use super::key::CacheKey;
use crate::metrics::counters::Counter;

/// Assumed average size of an entry, in bytes. The number of entries is estimated by it, and grows if
/// that was too low.
const AVERAGE_SIZE: usize = 1024;

/// The memory is nearly empty until 1 / this of it has been used. A host with few different requests
/// stays below: each response is stored at once.
const NEARLY_EMPTY: u64 = 10;

/// Number of entries of the maximum size that each shard has capacity for.
const LARGEST_PER_SHARD: u64 = 4;

/// The entries of this process, and how many were evicted.
#[derive(Debug)]
pub struct MemoryCache {
    entries:
        Cache<CacheKey, Arc<CacheEntry>, EntryWeight, BuildHasherDefault<FirstBits>, Evictions>,
    evicted: Arc<Counter>,
    /// Size of the entries from which on it is not nearly empty, in bytes.
    ample: u64,
    /// Whether they have reached that size.
    grown: AtomicBool,
}

/// Number of entries that are assumed to fit in `bytes` of memory.
pub(super) fn assumed_entries(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX) / AVERAGE_SIZE
}

impl MemoryCache {
    /// Capacity for about `bytes`, in shards that each fit some entries of `max_entry` bytes. There is
    /// at least one shard, so with little memory a large entry may not fit.
    #[must_use]
    pub fn new(bytes: u64, max_entry: usize) -> Self {
        let (hasher, evicted) = (BuildHasherDefault::default(), Arc::default());
        let evictions =
            Evictions { count: Arc::clone(&evicted), lifecycle: DefaultLifecycle::default() };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shards = bytes / (max_entry as u64).saturating_mul(LARGEST_PER_SHARD).max(1);
        // `quick_cache` rounds up to a power of two; this rounds down.
        let shards = usize::try_from(shards).unwrap_or(usize::MAX).clamp(1, 4 * threads);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(assumed_entries(bytes).clamp(16, 1 << 20))
            .weight_capacity(bytes)
            .shards(1 << shards.ilog2())
            .build()
            .expect("capacity and weight are set");
        Self {
            entries: Cache::with_options(options, EntryWeight, hasher, evictions),
            evicted,
            ample: bytes / NEARLY_EMPTY,
            grown: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn get(&self, key: &CacheKey) -> Option<Arc<CacheEntry>> {
        self.entries.get(key)
    }

    pub fn put(&self, key: CacheKey, entry: Arc<CacheEntry>) {
        self.entries.insert(key, entry);
        // The weight is that of all shards, each under its lock.
        if self.is_nearly_empty() && self.entries.weight() >= self.ample {
            self.grown.store(true, Ordering::Relaxed);
        }
    }

    pub fn clear(&self) {
        self.entries.clear();
        self.grown.store(false, Ordering::Relaxed);
    }

    /// Whether only a small part of the memory was used since it was empty.
    #[must_use]
    pub fn is_nearly_empty(&self) -> bool {
        !self.grown.load(Ordering::Relaxed)
    }

    /// Number of entries, and their size in bytes.
    #[must_use]
    pub fn usage(&self) -> (usize, u64) {
        (self.entries.len(), self.entries.weight())
    }

    /// Number of entries that were evicted, or too large for the memory.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted.get()
    }
}

/// Counts evictions. Replacing or removing an entry is not one.
#[derive(Clone, Debug)]
struct Evictions {
    count: Arc<Counter>,
    lifecycle: DefaultLifecycle<CacheKey, Arc<CacheEntry>>,
}

impl Lifecycle<CacheKey, Arc<CacheEntry>> for Evictions {
    type RequestState = <DefaultLifecycle<CacheKey, Arc<CacheEntry>> as Lifecycle<
        CacheKey,
        Arc<CacheEntry>,
    >>::RequestState;

    fn before_evict(&self, _: &mut Self::RequestState, _: &CacheKey, _: &mut Arc<CacheEntry>) {
        self.count.count();
    }

    /// The entry is dropped after the lock is released.
    fn on_evict(&self, state: &mut Self::RequestState, key: CacheKey, entry: Arc<CacheEntry>) {
        self.lifecycle.on_evict(state, key, entry);
    }
}

/// Weighs entries by their size in bytes.
#[derive(Clone, Debug)]
struct EntryWeight;

impl Weighter<CacheKey, Arc<CacheEntry>> for EntryWeight {
    fn weight(&self, _: &CacheKey, entry: &Arc<CacheEntry>) -> u64 {
        entry.size() as u64
    }
}

/// Hashes a key, which is a hash already, to its first bits.
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
