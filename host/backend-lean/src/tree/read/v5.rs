//! `TreeEnsemble` of `ai.onnx.ml` 5.
//!
//! Branches and leaves are separate lists. Entry `i` of every `nodes_*` list is one branch.
//! `nodes_truenodeids` and `nodes_falsenodeids` are the indices of its children. A child is a leaf
//! where `nodes_trueleafs` or `nodes_falseleafs` is 1, and a branch otherwise. A leaf may have many
//! parents; here each parent gets a copy.

use spinfer_backend::Error;
use spinfer_onnx::{NodeProto, data_type};

use super::{Thresholds, feature, lay_out, targets};
use crate::attributes::Attributes;
use crate::constant::Constant;
use crate::post_transform::PostTransform;
use crate::refusal::{invalid, unsupported};
use crate::tree::evaluate::{Forest, Vote};
use crate::tree::flatten::{Mode, NAN_IS_TRUE, RawNode};
use crate::tree::{Aggregate, Regressor};

/// Reads a `TreeEnsemble` for rows of `width` features.
pub(crate) fn ensemble<T: Thresholds>(
    node: &NodeProto,
    width: usize,
) -> Result<Regressor<T>, Error> {
    let attributes = Attributes(node);
    let targets = targets(node, attributes.int("n_targets", 0).try_into().unwrap_or(0))?;
    let aggregate = match attributes.int("aggregate_function", 1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => {
            return Err(invalid(
                node,
                format_args!("its aggregate_function is {other}, not 0 to 3"),
            ));
        }
    };
    // The standard's numbers. ONNX Runtime has 1 and 2 exchanged.
    let post = match attributes.int("post_transform", 0) {
        0 => PostTransform::None,
        1 => PostTransform::Softmax,
        2 => PostTransform::Logistic,
        3 => PostTransform::SoftmaxZero,
        4 => PostTransform::Probit,
        other => {
            return Err(invalid(node, format_args!("its post_transform is {other}, not 0 to 4")));
        }
    };
    let branches = Branches::<T>::read(node, width)?;
    let leaves = Leaves::<T>::read(node, targets)?;
    let Nodes { raw, votes } = branches.raw(node, &leaves)?;
    let roots = attributes
        .ints("tree_roots")
        .iter()
        .map(|&root| u32::try_from(root).ok().filter(|&root| (root as usize) < branches.len()))
        .collect::<Option<Vec<u32>>>()
        .ok_or_else(|| invalid(node, "one of its tree_roots is out of range"))?;
    let flat = lay_out(node, &raw, &roots)?;
    let first = branches.len();
    let mut votes: Vec<(u32, Vote<T>)> =
        (first..).zip(votes).map(|(i, vote)| (flat.position[i], vote)).collect();
    votes.sort_by_key(|(position, _)| *position);
    let position = |branch: usize| flat.position[branch];
    let sets = branches.sets.into_iter().map(|(branch, set)| (position(branch), set));
    let sets: Vec<(u32, Box<[T]>)> = sets.collect();
    let forest = Forest::new(flat, &votes).with_sets(sets);
    Ok(Regressor { forest, targets, aggregate, base: Vec::new(), post })
}

struct Leaves<T> {
    targets: Vec<u32>,
    weights: Vec<T>,
}

impl<T: Thresholds> Leaves<T> {
    fn read(node: &NodeProto, targets: usize) -> Result<Self, Error> {
        let ids = Attributes(node).ints("leaf_targetids");
        let weights = reals::<T>(node, "leaf_weights")?;
        if ids.len() != weights.len() {
            return Err(invalid(node, "its leaf_* lists differ in length"));
        }
        let target = |&id: &i64| u32::try_from(id).ok().filter(|&id| (id as usize) < targets);
        let targets = ids.iter().map(target).collect::<Option<Vec<u32>>>();
        let targets =
            targets.ok_or_else(|| invalid(node, "one of its leaf_targetids is out of range"))?;
        Ok(Self { targets, weights })
    }

    fn vote(&self, index: usize) -> Option<Vote<T>> {
        let (target, weight) = (*self.targets.get(index)?, *self.weights.get(index)?);
        Some(Vote { target, weight })
    }
}

/// The branches, then the leaves; and the vote of each leaf.
struct Nodes<T> {
    raw: Vec<RawNode<T>>,
    votes: Vec<Vote<T>>,
}

/// The index of a BRANCH_MEMBER, and its values.
type Set<T> = (usize, Box<[T]>);

struct Branches<'a, T> {
    modes: Vec<Mode>,
    features: Vec<u32>,
    splits: Vec<T>,
    missing: &'a [i64],
    /// Indices of the children, and 1 where one is a leaf: the true children, then the false ones.
    children: [(&'a [i64], &'a [i64]); 2],
    sets: Vec<Set<T>>,
}

impl<'a, T: Thresholds> Branches<'a, T> {
    fn len(&self) -> usize {
        self.modes.len()
    }

    fn read(node: &'a NodeProto, width: usize) -> Result<Self, Error> {
        let attributes = Attributes(node);
        let modes = modes(node)?;
        let count = modes.len();
        let ids = attributes.ints("nodes_featureids");
        let splits = reals::<T>(node, "nodes_splits")?;
        let missing = attributes.ints("nodes_missing_value_tracks_true");
        let child = |nodes, leaves| (attributes.ints(nodes), attributes.ints(leaves));
        let children = [
            child("nodes_truenodeids", "nodes_trueleafs"),
            child("nodes_falsenodeids", "nodes_falseleafs"),
        ];
        let [on_true, on_false] = children;
        let lengths = [
            ids.len(),
            splits.len(),
            on_true.0.len(),
            on_true.1.len(),
            on_false.0.len(),
            on_false.1.len(),
        ];
        if lengths != [count; 6] || !(missing.is_empty() || missing.len() == count) {
            return Err(invalid(node, "its nodes_* lists differ in length"));
        }
        // Each branch may have two leaves of its own.
        if count >= (NAN_IS_TRUE / 3) as usize {
            return Err(unsupported(node, format_args!("it has too many nodes: {count}")));
        }
        let features =
            ids.iter().map(|&id| feature(node, id, width)).collect::<Result<Vec<_>, _>>()?;
        let members = (0..count).filter(|&i| modes[i] == Mode::Member).collect();
        let sets = sets(node, members)?;
        Ok(Self { modes, features, splits, missing, children, sets })
    }

    fn raw(&self, node: &NodeProto, leaves: &Leaves<T>) -> Result<Nodes<T>, Error> {
        let mut votes = Vec::new();
        let mut child = |(ids, is_leaf): (&[i64], &[i64]), i: usize| {
            let id = usize::try_from(ids[i]).ok();
            let (index, list) = if is_leaf[i] == 0 {
                (id.filter(|&index| index < self.len()), "branch")
            } else {
                let vote = id.and_then(|index| leaves.vote(index));
                votes.extend(vote);
                (vote.map(|_| self.len() + votes.len() - 1), "leaf")
            };
            index.and_then(|index| u32::try_from(index).ok()).ok_or_else(|| {
                let id = ids[i];
                invalid(
                    node,
                    format_args!(
                        "its tree node {i} has the child {list} {id}, which does not exist"
                    ),
                )
            })
        };
        let mut raw = Vec::with_capacity(3 * self.len());
        for i in 0..self.len() {
            raw.push(RawNode {
                mode: self.modes[i],
                feature: self.features[i],
                threshold: self.splits[i],
                nan_is_true: self.missing.get(i) == Some(&1),
                on_true: child(self.children[0], i)?,
                on_false: child(self.children[1], i)?,
            });
        }
        let leaf = RawNode {
            mode: Mode::Leaf,
            feature: 0,
            threshold: T::default(),
            nan_is_true: false,
            on_true: 0,
            on_false: 0,
        };
        raw.resize(self.len() + votes.len(), leaf);
        Ok(Nodes { raw, votes })
    }
}

fn reals<T: Thresholds>(node: &NodeProto, name: &str) -> Result<Vec<T>, Error> {
    let Some(tensor) = Attributes(node).tensor(name) else { return Ok(Vec::new()) };
    let fault = |why: String| invalid(node, format_args!("its attribute {name}: {why}"));
    let constant = Constant::read(tensor).map_err(fault)?;
    T::from_tensor(constant.elements)
        .ok_or_else(|| unsupported(node, format_args!("its attribute {name} is not {}", T::NAME)))
}

/// `nodes_modes`, a tensor of UINT8.
fn modes(node: &NodeProto) -> Result<Vec<Mode>, Error> {
    let tensor = Attributes(node).tensor("nodes_modes");
    let tensor = tensor
        .filter(|tensor| tensor.data_type == data_type::UINT8)
        .ok_or_else(|| invalid(node, "its nodes_modes is not a tensor of UINT8"))?;
    let mode = |number: i64| match number {
        0 => Ok(Mode::Leq),
        1 => Ok(Mode::Lt),
        2 => Ok(Mode::Gte),
        3 => Ok(Mode::Gt),
        4 => Ok(Mode::Eq),
        5 => Ok(Mode::Neq),
        6 => Ok(Mode::Member),
        other => Err(invalid(node, format_args!("its nodes_modes contains {other}, not 0 to 6"))),
    };
    let raw = tensor.raw_data.iter().map(|&byte| i64::from(byte));
    raw.chain(tensor.int32_data.iter().map(|&number| i64::from(number))).map(mode).collect()
}

/// `membership_values`: the set of each BRANCH_MEMBER in their order, separated by NaN.
fn sets<T: Thresholds>(node: &NodeProto, members: Vec<usize>) -> Result<Vec<Set<T>>, Error> {
    let mut values = reals::<T>(node, "membership_values")?;
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    if values.last().is_some_and(is_nan) {
        values.pop();
    }
    let sets = if values.is_empty() { Vec::new() } else { values.split(is_nan).collect() };
    if sets.len() != members.len() {
        let (sets, members) = (sets.len(), members.len());
        return Err(invalid(
            node,
            format_args!(
                "its membership_values have {sets} sets for {members} nodes of BRANCH_MEMBER"
            ),
        ));
    }
    let sorted = sets.into_iter().map(|set| {
        let mut set: Box<[T]> = set.into();
        set.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        set
    });
    Ok(members.into_iter().zip(sorted).collect())
}
