//! Walks from the roots of a forest to the leaves.

use super::Real;
use super::flatten::{FlatNode, FlatTrees, NAN_IS_TRUE};

/// Number of walks that advance together, so that their memory accesses overlap. One inference of
/// 100 deep trees (3 MB of nodes) takes 13-16 microseconds one by one, 8.9 by 4, 7.0 by 8, 4.8 by
/// 16.
const LANES: usize = 16;
/// Number of walks that advance together among the remaining trees.
const FEW_LANES: usize = 4;

/// Trees, and the votes of their leaves.
#[derive(Debug)]
pub(crate) struct Forest<T> {
    nodes: Vec<FlatNode<T>>,
    roots: Vec<u32>,
    /// The votes of the node at position `i` are `votes[first[i]..first[i + 1]]`.
    first: Vec<u32>,
    votes: Vec<Vote<T>>,
    /// Whether every branch is BRANCH_LEQ and sends NaN to its false child. `x <= high` is enough
    /// then, which saves 33 % of the time of a batch.
    plain: bool,
    /// The set of each BRANCH_MEMBER, by position; empty if there are none.
    sets: Vec<Box<[T]>>,
}

/// A leaf's contribution to the score of one target or class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vote<T> {
    pub(crate) target: u32,
    pub(crate) weight: T,
}

impl<T: Real> Forest<T> {
    /// `votes` have the position of their leaf, and are sorted by it.
    pub(crate) fn new(flat: FlatTrees<T>, votes: &[(u32, Vote<T>)]) -> Self {
        let mut first = vec![0u32; flat.nodes.len() + 1];
        for (position, _) in votes {
            first[*position as usize + 1] += 1;
        }
        for index in 1..first.len() {
            first[index] += first[index - 1];
        }
        let votes = votes.iter().map(|(_, vote)| *vote).collect();
        // Leaves do not matter: no number is at most NaN.
        let plain = flat.nodes.iter().all(|node| {
            let leaf = node.high.partial_cmp(&node.high).is_none();
            (leaf || node.low == -T::INFINITY) && node.feature & NAN_IS_TRUE == 0
        });
        Self { nodes: flat.nodes, roots: flat.roots, first, votes, plain, sets: Vec::new() }
    }

    /// Adds the sets of nodes, by position. A set is sorted and has no NaN.
    pub(crate) fn with_sets(mut self, sets: impl IntoIterator<Item = (u32, Box<[T]>)>) -> Self {
        for (position, set) in sets {
            self.plain = false;
            self.sets.resize_with(self.nodes.len(), Box::default);
            self.sets[position as usize] = set;
        }
        self
    }

    pub(crate) fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Calls `each` with the votes of the leaf that `row` reaches in each tree, in the order of the
    /// trees, so that sums have the same bits as the reference's.
    pub(crate) fn vote(&self, row: &[T], each: impl FnMut(&[Vote<T>])) {
        if self.plain {
            self.vote_by::<true, false>(row, each);
        } else if self.sets.is_empty() {
            self.vote_by::<false, false>(row, each);
        } else {
            self.vote_with_sets(row, each);
        }
    }

    /// A function of its own, so that this rare case does not slow the others down.
    #[cold]
    #[inline(never)]
    fn vote_with_sets(&self, row: &[T], each: impl FnMut(&[Vote<T>])) {
        self.vote_by::<false, true>(row, each);
    }

    fn vote_by<const PLAIN: bool, const SETS: bool>(
        &self,
        row: &[T],
        mut each: impl FnMut(&[Vote<T>]),
    ) {
        let (groups, rest) = self.roots.as_chunks::<LANES>();
        for group in groups {
            for leaf in self.walk::<LANES, PLAIN, SETS>(*group, row) {
                each(self.votes_at(leaf));
            }
        }
        let (groups, rest) = rest.as_chunks::<FEW_LANES>();
        for group in groups {
            for leaf in self.walk::<FEW_LANES, PLAIN, SETS>(*group, row) {
                each(self.votes_at(leaf));
            }
        }
        for &root in rest {
            let [leaf] = self.walk::<1, PLAIN, SETS>([root], row);
            each(self.votes_at(leaf));
        }
    }

    fn votes_at(&self, leaf: u32) -> &[Vote<T>] {
        let leaf = leaf as usize;
        &self.votes[self.first[leaf] as usize..self.first[leaf + 1] as usize]
    }

    /// Walks from each position to a leaf. It terminates because trees have no cycles and the child
    /// of a leaf is itself.
    #[inline]
    fn walk<const N: usize, const PLAIN: bool, const SETS: bool>(
        &self,
        mut at: [u32; N],
        row: &[T],
    ) -> [u32; N] {
        loop {
            let mut moved = 0;
            for position in &mut at {
                let node = &self.nodes[*position as usize];
                let x = row[(node.feature & !NAN_IS_TRUE) as usize];
                let inside = if PLAIN {
                    x <= node.high
                } else {
                    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
                    let nan = x != x && node.feature & NAN_IS_TRUE != 0;
                    let member = SETS && contains(&self.sets[*position as usize], x);
                    (x >= node.low && x <= node.high) | nan | member
                };
                let next = node.child + u32::from(inside);
                moved |= next ^ *position;
                *position = next;
            }
            if moved == 0 {
                return at;
            }
        }
    }
}

fn contains<T: Real>(set: &[T], x: T) -> bool {
    set.binary_search_by(|value| value.partial_cmp(&x).unwrap_or(std::cmp::Ordering::Less)).is_ok()
}
