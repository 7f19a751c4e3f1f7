//! Remembers which keys were requested recently, in constant memory: the doorkeeper of TinyLFU (Einziger
//! et al. 2017, "TinyLFU: A Highly Efficient Cache Admission Policy"), a Bloom filter that ages.
//!
//! There are two generations. Keys are added to the current one; a key is known if either has it. A
//! generation that is full becomes the previous one, and the one before is cleared:
//!
//! ```text
//! previous  ████████████████  a full generation: `window` keys
//! current   ███████           the keys since
//! ```
//!
//! So a key is known at least until `window` others were added, and at most until twice as many were.
//! The two words of a key are side by side: it costs one cache line, an atomic addition and an atomic
//! OR, and no lock. Threads that add keys while another one clears a generation may lose a few of them,
//! which are then added by their next requests.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Maximum number of keys of a generation: 90 MB of memory.
const MAX_WINDOW: usize = 1 << 24;
/// Keys of a full generation that share a word, on average.
const KEYS_PER_WORD: usize = 3;
/// Bits that a key sets. With 5 of 64, 3 keys in a word on average, and both generations full, 0.34 % of
/// the keys that were not added are taken for known. They are admitted a request too early.
const BITS_PER_KEY: u32 = 5;
/// Bits of the hash that select one bit of a word.
const BITS_PER_INDEX: u32 = 6;

pub(super) struct Doorkeeper {
    /// The words of both generations.
    words: Box<[[AtomicU64; 2]]>,
    /// Number of keys of a full generation.
    window: usize,
    /// The generation that keys are added to: 0 or 1.
    current: AtomicUsize,
    /// Number of its keys.
    keys: AtomicUsize,
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorkeeper").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Doorkeeper {
    /// Knows at least the last `window` keys, in less than six bytes for each of them.
    #[must_use]
    pub(super) fn new(window: usize) -> Self {
        let window = window.clamp(1, MAX_WINDOW);
        let words = window.div_ceil(KEYS_PER_WORD);
        Self {
            words: std::iter::repeat_with(Default::default).take(words).collect(),
            window,
            current: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
        }
    }

    /// Adds the key with this hash, whose bits are all random. Returns whether it was known.
    pub(super) fn insert(&self, hash: u64) -> bool {
        let (words, bits) = (&self.words[self.index(hash)], bits(hash));
        let has_all = |word: u64| word & bits == bits;
        let current = self.current.load(Ordering::Acquire);
        if has_all(words[current].fetch_or(bits, Ordering::Relaxed)) {
            return true;
        }
        let known = has_all(words[1 - current].load(Ordering::Relaxed));
        // Not by `>=`: one thread starts the next generation.
        if self.keys.fetch_add(1, Ordering::Relaxed) + 1 == self.window {
            self.start_generation();
        }
        known
    }

    /// Clears the previous generation, and makes it the current one.
    fn start_generation(&self) {
        let next = 1 - self.current.load(Ordering::Acquire);
        self.words.iter().for_each(|words| words[next].store(0, Ordering::Relaxed));
        self.current.store(next, Ordering::Release);
        self.keys.store(0, Ordering::Relaxed);
    }

    /// Where the words of a key are: the upper half of the hash, scaled to their number.
    fn index(&self, hash: u64) -> usize {
        let scaled = ((hash >> 32) * self.words.len() as u64) >> 32;
        usize::try_from(scaled).expect("less than the number of words")
    }
}

/// The bits of a key, from the lower half of its hash. Some may coincide.
fn bits(hash: u64) -> u64 {
    let index = |n| (hash >> (n * BITS_PER_INDEX)) & (u64::from(u64::BITS) - 1);
    (0..BITS_PER_KEY).fold(0, |bits, n| bits | 1 << index(n))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `count` hashes, different for each `seed`.
    fn hashes(seed: u64, count: usize) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.u64(..)).take(count).collect()
    }

    /// The share of 100,000 keys that were never added and are taken for known.
    fn false_positives(doorkeeper: &Doorkeeper) -> f64 {
        let known = |hash: &u64| {
            let (words, bits) = (&doorkeeper.words[doorkeeper.index(*hash)], bits(*hash));
            words.iter().any(|word| word.load(Ordering::Relaxed) & bits == bits)
        };
        let (mut count, others) = (0.0, hashes(u64::MAX, 100_000));
        others.iter().filter(|hash| known(hash)).for_each(|_| count += 1.0);
        count / 100_000.0
    }

    proptest! {
        #[test]
        fn key_is_known_until_a_window_of_others_was_added(
            seed in 0..1_000_000_u64,
            window in 1..300_usize,
            before in 0..700_usize,
            between in 0..300_usize,
        ) {
            let doorkeeper = Doorkeeper::new(window);
            let mut keys = hashes(seed, before + 1 + between % window).into_iter();
            keys.by_ref().take(before).for_each(|hash| _ = doorkeeper.insert(hash));
            let key = keys.next().expect("one more");
            doorkeeper.insert(key);
            prop_assert!(doorkeeper.insert(key), "at once");
            keys.for_each(|hash| _ = doorkeeper.insert(hash));
            prop_assert!(doorkeeper.insert(key), "{window} {before} {between}");
        }

        #[test]
        fn repeated_keys_do_not_age_others(seed in 0..1_000_000_u64, window in 2..100_usize) {
            let doorkeeper = Doorkeeper::new(window);
            let keys = hashes(seed, 2);
            doorkeeper.insert(keys[0]);
            for _ in 0..10 * window {
                doorkeeper.insert(keys[1]);
            }
            prop_assert!(doorkeeper.insert(keys[0]));
        }
    }

    #[test]
    fn keys_age_after_two_windows_of_others() {
        let doorkeeper = Doorkeeper::new(1000);
        let [old, others] = [1, 2].map(|seed| hashes(seed, 2000));
        old[..500].iter().for_each(|hash| _ = doorkeeper.insert(*hash));
        // False positives do not count as additions, so these are some more than two windows.
        others.iter().chain(&hashes(3, 100)).for_each(|hash| _ = doorkeeper.insert(*hash));
        let known = old[..500].iter().filter(|hash| doorkeeper.insert(**hash)).count();
        assert!(known < 25, "{known} of 500");
    }

    #[test]
    fn false_positive_rate_stays_below_one_per_cent() {
        for window in [64, 1000, 65_536] {
            let doorkeeper = Doorkeeper::new(window);
            assert_eq!(false_positives(&doorkeeper), 0.0);
            // At the end of each of five windows, when both generations are as full as they get.
            for seed in 1..=5 {
                hashes(seed, window - 1).iter().for_each(|hash| _ = doorkeeper.insert(*hash));
                let rate = false_positives(&doorkeeper);
                assert!(rate < 0.01, "{rate} of a window of {window}");
                doorkeeper.insert(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            }
        }
    }

    #[test]
    fn each_key_is_new_to_one_thread() {
        let (doorkeeper, keys) = (Doorkeeper::new(100_000), hashes(1, 10_000));
        let new: usize = std::thread::scope(|scope| {
            let add = || keys.iter().filter(|hash| !doorkeeper.insert(**hash)).count();
            let adding: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            adding.into_iter().map(|adding| adding.join().expect("a count")).sum()
        });
        // The first generation is not full, and only false positives are known to all.
        assert!((9_900..=10_000).contains(&new), "{new}");
    }
}
