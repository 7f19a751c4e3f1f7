//! The answers this process keeps, up to so many bytes. Which to keep is `quick_cache`'s: S3-FIFO,
//! where what is asked for once does not push out what is asked for again.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::entry::Kept;
use super::key::Key;

/// How large an answer is on average: how many fit is a guess, and grows if it was wrong.
const USUAL: usize = 1024;

/// Bounded in bytes.
#[derive(Debug)]
pub struct Memory {
    kept: Cache<Key, Arc<Kept>, Size, BuildHasherDefault<FirstBits>>,
}

impl Memory {
    /// For at most about `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let count = usize::try_from(bytes).unwrap_or(usize::MAX) / USUAL;
        let (hasher, lifecycle) = (BuildHasherDefault::default(), DefaultLifecycle::default());
        Self { kept: Cache::with(count.clamp(16, 1 << 20), bytes, Size, hasher, lifecycle) }
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        self.kept.get(key)
    }

    pub fn put(&self, key: Key, kept: Arc<Kept>) {
        self.kept.insert(key, kept);
    }

    pub fn remove(&self, key: &Key) {
        self.kept.remove(key);
    }

    pub fn clear(&self) {
        self.kept.clear();
    }

    /// Answers, and what they take.
    #[must_use]
    pub fn filled(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.weight())
    }
}

/// By the memory it takes.
#[derive(Clone, Debug)]
struct Size;

impl Weighter<Key, Arc<Kept>> for Size {
    fn weight(&self, _: &Key, kept: &Arc<Kept>) -> u64 {
        kept.size() as u64
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
