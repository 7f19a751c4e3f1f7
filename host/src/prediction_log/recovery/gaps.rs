//! The search for readable rows between damaged pages, as pure arithmetic on keys.

use std::collections::BinaryHeap;

/// Maximum number of lookups in the gaps of one table. The widest gap is searched first, so that what
/// is not found is narrower than about 1 / 2000 of the damage.
const MAX_LOOKUPS: u32 = 2_000;

/// Ranges of keys of which nothing was read yet.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// The width of each gap, and its first key. Both ends are inside it.
    widest: BinaryHeap<(u128, u128)>,
    lookups: u32,
}

impl Gaps {
    /// Adds the gap from `first` to `last`, unless it is empty.
    pub(super) fn add(&mut self, first: u128, last: u128) {
        if first <= last {
            self.widest.push((last - first, first));
        }
    }

    /// The next gap, as its first key, the one in its middle, and its last; `None` if all were
    /// searched, or further lookups would take too long.
    pub(super) fn next(&mut self) -> Option<(u128, u128, u128)> {
        if self.lookups == MAX_LOOKUPS {
            return None;
        }
        self.lookups += 1;
        let (width, first) = self.widest.pop()?;
        Some((first, first + width / 2, first + width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widest_gap_is_searched_first() {
        let mut gaps = Gaps::default();
        gaps.add(10, 20);
        gaps.add(100, 200);
        gaps.add(7, 7);
        gaps.add(8, 7);
        assert_eq!(gaps.next(), Some((100, 150, 200)));
        assert_eq!(gaps.next(), Some((10, 15, 20)));
        assert_eq!(gaps.next(), Some((7, 7, 7)));
        assert_eq!(gaps.next(), None);
        gaps.add(0, u128::MAX);
        assert_eq!(gaps.next(), Some((0, u128::MAX / 2, u128::MAX)));
    }

    #[test]
    fn search_ends() {
        let mut gaps = Gaps::default();
        gaps.add(0, u128::MAX);
        let mut lookups = 0;
        while let Some((first, middle, last)) = gaps.next() {
            lookups += 1;
            if let Some(before) = middle.checked_sub(1) {
                gaps.add(first, before);
            }
            gaps.add(middle + 1, last);
        }
        assert_eq!(lookups, MAX_LOOKUPS);
    }
}
