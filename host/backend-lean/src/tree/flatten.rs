//! Lays trees out as one array of nodes, in which every comparison is an interval and every step an
//! addition.
//!
//! A node sends `x` to its true child if `low <= x <= high`, if `x` is NaN and the node tracks
//! missing values to that child, or if `x` is in its set; otherwise to its false child. Each mode
//! of the standard is such an interval:
//!
//! | mode | true for | low, high | children |
//! | --- | --- | --- | --- |
//! | BRANCH_LEQ | `x <= t` | `-inf, t` | false, true |
//! | BRANCH_LT | `x < t` | `-inf, prev(t)` | false, true |
//! | BRANCH_GTE | `x >= t` | `t, inf` | false, true |
//! | BRANCH_GT | `x > t` | `next(t), inf` | false, true |
//! | BRANCH_EQ | `x == t` | `t, t` | false, true |
//! | BRANCH_NEQ | `x != t` | `t, t` | exchanged |
//! | BRANCH_MEMBER | `x` in a set | empty | false, true |
//!
//! `prev` and `next` are the neighbouring floats. The false child is at `child`, the true one right
//! after it. A leaf is the empty interval with itself as its child, so that further steps stay on
//! it.

use std::collections::VecDeque;

use super::Real;

/// The comparison of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    /// In a set, which the forest stores; the interval is empty.
    Member,
    Leaf,
}

/// A node as the file describes it. Children are indices into the same list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawNode<T> {
    pub(crate) mode: Mode,
    pub(crate) feature: u32,
    pub(crate) threshold: T,
    pub(crate) nan_is_true: bool,
    pub(crate) on_true: u32,
    pub(crate) on_false: u32,
}

/// A node of [`FlatTrees`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlatNode<T> {
    pub(crate) low: T,
    pub(crate) high: T,
    /// Index of the feature. [`NAN_IS_TRUE`] is set if NaN goes to the true child.
    pub(crate) feature: u32,
    pub(crate) child: u32,
}

/// The highest bit of [`FlatNode::feature`].
pub(crate) const NAN_IS_TRUE: u32 = 1 << 31;

/// Trees, and the position of each node of the file in them: `u32::MAX` if no tree reaches it.
#[derive(Debug)]
pub(crate) struct FlatTrees<T> {
    pub(crate) nodes: Vec<FlatNode<T>>,
    pub(crate) roots: Vec<u32>,
    pub(crate) position: Vec<u32>,
}

/// Lays the trees with these roots out breadth first. The error is the index of a node with two
/// parents. A cycle has one, so the work is bounded by the number of nodes.
pub(crate) fn flatten<T: Real>(raw: &[RawNode<T>], roots: &[u32]) -> Result<FlatTrees<T>, u32> {
    let mut flat = FlatTrees {
        nodes: Vec::with_capacity(raw.len()),
        roots: Vec::with_capacity(roots.len()),
        position: vec![u32::MAX; raw.len()],
    };
    let mut queue = VecDeque::new();
    for &root in roots {
        let position = flat.place(root)?;
        flat.roots.push(position);
        queue.push_back(root);
        while let Some(index) = queue.pop_front() {
            let node = raw[index as usize];
            let position = flat.position[index as usize] as usize;
            if node.mode == Mode::Leaf {
                continue;
            }
            let swap = node.mode == Mode::Neq;
            let children =
                if swap { [node.on_true, node.on_false] } else { [node.on_false, node.on_true] };
            let child = flat.place(children[0])?;
            flat.place(children[1])?;
            queue.extend(children);
            let (low, high) = interval(node.mode, node.threshold);
            // `NaN != t` is true. With exchanged children NaN already goes to the true one.
            let nan = node.nan_is_true && !swap;
            let feature = node.feature | if nan { NAN_IS_TRUE } else { 0 };
            flat.nodes[position] = FlatNode { low, high, feature, child };
        }
    }
    Ok(flat)
}

/// Whether a walk would never end: some nodes remain when those without parents are removed one
/// after the other (Kahn 1962).
pub(crate) fn has_cycle<T>(raw: &[RawNode<T>]) -> bool {
    let children = |node: &RawNode<T>| match node.mode {
        Mode::Leaf => [None; 2],
        _ => [Some(node.on_true as usize), Some(node.on_false as usize)],
    };
    let mut parents = vec![0u32; raw.len()];
    for child in raw.iter().flat_map(children).flatten() {
        parents[child] += 1;
    }
    let mut parentless: Vec<usize> = (0..raw.len()).filter(|&i| parents[i] == 0).collect();
    let mut removed = 0;
    while let Some(node) = parentless.pop() {
        removed += 1;
        for child in children(&raw[node]).into_iter().flatten() {
            parents[child] -= 1;
            if parents[child] == 0 {
                parentless.push(child);
            }
        }
    }
    removed < raw.len()
}

fn interval<T: Real>(mode: Mode, t: T) -> (T, T) {
    match mode {
        Mode::Leq => (-T::INFINITY, t),
        // Nothing is below -inf or above inf, which have no neighbour on that side.
        Mode::Lt if t == -T::INFINITY => (T::NAN, T::NAN),
        Mode::Gt if t == T::INFINITY => (T::NAN, T::NAN),
        Mode::Lt => (-T::INFINITY, t.next_down()),
        Mode::Gte => (t, T::INFINITY),
        Mode::Gt => (t.next_up(), T::INFINITY),
        Mode::Eq | Mode::Neq => (t, t),
        Mode::Member | Mode::Leaf => (T::NAN, T::NAN),
    }
}

impl<T: Real> FlatTrees<T> {
    /// Assigns the next position to a node, which is a leaf for now.
    fn place(&mut self, index: u32) -> Result<u32, u32> {
        let position = &mut self.position[index as usize];
        if *position != u32::MAX {
            return Err(index);
        }
        // The caller has checked that there are fewer nodes than 2^31.
        *position = u32::try_from(self.nodes.len()).map_err(|_| index)?;
        self.nodes.push(FlatNode { low: T::NAN, high: T::NAN, feature: 0, child: *position });
        Ok(*position)
    }
}
