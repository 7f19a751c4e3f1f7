//! Compares flattened trees with the recursion that the standard describes.

use proptest::prelude::*;

use super::evaluate::{Forest, Vote};
use super::flatten::{Mode, RawNode, flatten};
use super::{Aggregate, Regressor};
use crate::post_transform::PostTransform;

const FEATURES: u32 = 3;

/// A value from a coarse grid, or an edge case, so that equality and neighbours occur.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-2i8..=2).prop_map(f32::from),
        1 => prop::sample::select(vec![
            f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, f32::MAX, f32::MIN,
            1.0f32.next_up(), 1.0f32.next_down(), f32::from_bits(1),
        ]),
    ]
}

fn branch() -> impl Strategy<Value = (Mode, u32, f32, bool)> {
    let modes = vec![Mode::Leq, Mode::Lt, Mode::Gte, Mode::Gt, Mode::Eq, Mode::Neq];
    (prop::sample::select(modes), 0..FEATURES, value(), any::<bool>())
}

/// A tree from a list of branches, each of which replaces an arbitrary leaf.
fn tree() -> impl Strategy<Value = Vec<RawNode<f32>>> {
    let leaf = RawNode {
        mode: Mode::Leaf,
        feature: 0,
        threshold: 0.0,
        nan_is_true: false,
        on_true: 0,
        on_false: 0,
    };
    prop::collection::vec((branch(), any::<prop::sample::Index>()), 0..12).prop_map(move |list| {
        let mut nodes = vec![leaf];
        for ((mode, feature, threshold, nan_is_true), index) in list {
            let leaves: Vec<usize> =
                (0..nodes.len()).filter(|&i| nodes[i].mode == Mode::Leaf).collect();
            let replaced = *index.get(&leaves);
            let on_true = u32::try_from(nodes.len()).expect("few nodes");
            let on_false = on_true + 1;
            nodes[replaced] = RawNode { mode, feature, threshold, nan_is_true, on_true, on_false };
            nodes.extend([leaf, leaf]);
        }
        nodes
    })
}

fn naive(nodes: &[RawNode<f32>], at: usize, x: &[f32]) -> usize {
    let node = nodes[at];
    let (x_i, t) = (x[node.feature as usize], node.threshold);
    let holds = match node.mode {
        Mode::Leaf | Mode::Member => return at,
        Mode::Leq => x_i <= t,
        Mode::Lt => x_i < t,
        Mode::Gte => x_i >= t,
        Mode::Gt => x_i > t,
        Mode::Eq => x_i == t,
        Mode::Neq => x_i != t,
    } || (x_i.is_nan() && node.nan_is_true);
    naive(nodes, if holds { node.on_true } else { node.on_false } as usize, x)
}

proptest! {
    /// Forests of up to 24 trees use every number of walks that advance together.
    #[test]
    fn a_walk_reaches_the_leaf_of_the_recursion(
        trees in prop::collection::vec(tree(), 1..24),
        rows in prop::collection::vec([value(), value(), value()], 1..8),
    ) {
        let (mut raw, mut roots) = (Vec::new(), Vec::new());
        for tree in &trees {
            let base = u32::try_from(raw.len()).expect("few nodes");
            roots.push(base);
            raw.extend(tree.iter().map(|node| RawNode {
                on_true: node.on_true + base, on_false: node.on_false + base, ..*node
            }));
        }
        let flat = flatten(&raw, &roots).expect("trees");
        // Every leaf votes for the target that is its index in the list.
        let mut votes: Vec<(u32, Vote<f32>)> = (0u32..)
            .zip(&raw)
            .filter(|(_, node)| node.mode == Mode::Leaf)
            .map(|(i, _)| (flat.position[i as usize], Vote { target: i, weight: 1.0 }))
            .collect();
        votes.sort_by_key(|(position, _)| *position);
        let forest = Forest::new(flat, &votes);
        for row in &rows {
            let mut got = Vec::new();
            forest.vote(row, |votes| got.extend(votes.iter().map(|vote| vote.target as usize)));
            let expected: Vec<usize> =
                roots.iter().map(|&root| naive(&raw, root as usize, row)).collect();
            prop_assert_eq!(got, expected);
        }
    }

    /// Every aggregate with every post-transform, on small integers, whose sums are exact.
    #[test]
    fn every_aggregate_follows_its_definition(
        trees in prop::collection::vec(tree(), 1..12),
        weights in prop::collection::vec((0u32..4, -8i8..=8), 1..40),
        (targets, with_base) in (1usize..=4, any::<bool>()),
        rows in prop::collection::vec([value(), value(), value()], 1..4),
    ) {
        let (mut raw, mut roots) = (Vec::new(), Vec::new());
        for tree in &trees {
            let base = u32::try_from(raw.len()).expect("few nodes");
            roots.push(base);
            raw.extend(tree.iter().map(|node| RawNode {
                on_true: node.on_true + base, on_false: node.on_false + base, ..*node
            }));
        }
        // One vote per leaf. Leaves whose vote is for a target that does not exist have none.
        let vote = |node: usize| {
            let (target, weight) = weights[node % weights.len()];
            ((target as usize) < targets).then_some(Vote { target, weight: f32::from(weight) })
        };
        let base: Vec<f32> = [0.5, -1.0, 2.0, 4.0].into_iter().take(targets).collect();
        let base = if with_base { base } else { Vec::new() };
        for aggregate in [Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max] {
            for post in [
                PostTransform::None,
                PostTransform::Logistic,
                PostTransform::Softmax,
                PostTransform::SoftmaxZero,
                PostTransform::Probit,
            ] {
                let flat = flatten(&raw, &roots).expect("trees");
                let leaves = (0..raw.len()).filter(|&node| raw[node].mode == Mode::Leaf);
                let mut votes: Vec<_> =
                    leaves.filter_map(|node| Some((flat.position[node], vote(node)?))).collect();
                votes.sort_by_key(|(position, _)| *position);
                let forest = Forest::new(flat, &votes);
                let regressor = Regressor { forest, targets, aggregate, base: base.clone(), post };
                for row in &rows {
                    let reached: Vec<Vote<f32>> = roots
                        .iter()
                        .filter_map(|&root| vote(naive(&raw, root as usize, row)))
                        .collect();
                    let mut expected: Vec<f32> = (0..targets)
                        .map(|target| {
                            let votes = reached.iter().filter(|vote| vote.target as usize == target);
                            let votes: Vec<f32> = votes.map(|vote| vote.weight).collect();
                            let base = base.get(target).copied().unwrap_or(0.0);
                            let sum: f32 = votes.iter().sum();
                            if votes.is_empty() {
                                return if targets == 1 { base } else { 0.0 };
                            }
                            base + match aggregate {
                                Aggregate::Sum => sum,
                                Aggregate::Average => sum / roots.len() as f32,
                                Aggregate::Min => votes.iter().copied().fold(f32::INFINITY, f32::min),
                                Aggregate::Max => {
                                    votes.iter().copied().fold(f32::NEG_INFINITY, f32::max)
                                }
                            }
                        })
                        .collect();
                    match expected.as_mut_slice() {
                        [single] => *single = post.single(*single),
                        several => post.row(several),
                    }
                    let mut got = vec![0.0; targets];
                    regressor.run(row, 3, &mut got);
                    let same = got.iter().zip(&expected).all(|(a, b)| {
                        a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 * b.abs()
                    });
                    prop_assert!(same, "{:?} {:?}: {:?}, not {:?}", aggregate, post, got, expected);
                }
            }
        }
    }

    /// Any graph of nodes is flattened or refused in bounded time, and walks of it end.
    #[test]
    fn flattening_any_graph_terminates(
        links in prop::collection::vec((branch(), any::<bool>(), 0u32..16, 0u32..16), 16),
        roots in prop::collection::vec(0u32..16, 0..4),
    ) {
        let raw: Vec<RawNode<f32>> = links
            .iter()
            .map(|&((mode, feature, threshold, nan_is_true), leaf, on_true, on_false)| RawNode {
                mode: if leaf { Mode::Leaf } else { mode },
                feature, threshold, nan_is_true, on_true, on_false,
            })
            .collect();
        if let Ok(flat) = flatten(&raw, &roots) {
            Forest::new(flat, &[]).vote(&[0.0, f32::NAN, 1.0], |votes| assert!(votes.is_empty()));
        }
    }
}
