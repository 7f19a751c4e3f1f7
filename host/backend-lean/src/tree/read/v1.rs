//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor` of `ai.onnx.ml` 1 to 4.
//!
//! The attributes are parallel lists. Entry `i` of every `nodes_*` list is one node, identified by
//! its tree id and its node id. Entry `i` of every `class_*` or `target_*` list is one vote of a
//! leaf. A tree is a run of nodes with one tree id, whose first node is the root.

use spinfer_backend::Error;
use spinfer_onnx::NodeProto;

use super::node_index::NodeIndex;
use super::{Thresholds, feature, lay_out, targets};
use crate::attributes::Attributes;
use crate::constant::Constant;
use crate::post_transform::PostTransform;
use crate::refusal::{invalid, unsupported};
use crate::tree::evaluate::{Forest, Vote};
use crate::tree::flatten::{Mode, RawNode};
use crate::tree::{Aggregate, Classifier, Regressor};

/// Reads a `TreeEnsembleClassifier` for rows of `width` features. If its class labels are strings,
/// a label is the index of one.
pub(crate) fn classifier<T: Thresholds>(
    node: &NodeProto,
    width: usize,
) -> Result<Classifier<T>, Error> {
    let attributes = Attributes(node);
    let strings = attributes.strings("classlabels_strings");
    let labels = if strings.is_empty() {
        attributes.ints("classlabels_int64s").to_vec()
    } else {
        (0..).take(strings.len()).collect()
    };
    let classes = targets(node, labels.len() as u64)?;
    let votes = Votes::<T>::read(node, "class", classes)?;
    let post = PostTransform::read(attributes)?;
    let base = reals::<T>(node, "base_values")?;
    let allowed =
        if classes <= 2 { base.len() <= classes } else { [0, classes].contains(&base.len()) };
    if !allowed {
        return Err(invalid(
            node,
            format_args!("{} base_values for {classes} classes", base.len()),
        ));
    }
    let voted_for = |class| votes.targets.contains(&class);
    if classes == 2 && post == PostTransform::Probit && !voted_for(1) {
        return Err(unsupported(node, "PROBIT of one score for two classes is undefined"));
    }
    let binary = classes == 2 && voted_for(0) != voted_for(1);
    let all_positive = !votes.weights.iter().any(|&weight| weight < T::default());
    let forest = forest(node, width, classes, &votes)?;
    Ok(Classifier { forest, labels, base, post, binary, all_positive })
}

/// Reads a `TreeEnsembleRegressor` for rows of `width` features.
pub(crate) fn regressor<T: Thresholds>(
    node: &NodeProto,
    width: usize,
) -> Result<Regressor<T>, Error> {
    let attributes = Attributes(node);
    let targets = targets(node, attributes.int("n_targets", 0).try_into().unwrap_or(0))?;
    let aggregate = match attributes.string("aggregate_function", "SUM") {
        b"SUM" => Aggregate::Sum,
        b"AVERAGE" => Aggregate::Average,
        b"MIN" => Aggregate::Min,
        b"MAX" => Aggregate::Max,
        other => {
            let other = String::from_utf8_lossy(other);
            return Err(invalid(
                node,
                format_args!("its aggregate_function is `{other}`, not SUM, AVERAGE, MIN or MAX"),
            ));
        }
    };
    let base = reals::<T>(node, "base_values")?;
    if !base.is_empty() && base.len() != targets {
        return Err(invalid(
            node,
            format_args!("{} base_values for {targets} targets", base.len()),
        ));
    }
    let post = PostTransform::read(attributes)?;
    let forest = forest(node, width, targets, &Votes::read(node, "target", targets)?)?;
    Ok(Regressor { forest, targets, aggregate, base, post })
}

fn reals<T: Thresholds>(node: &NodeProto, name: &str) -> Result<Vec<T>, Error> {
    let attributes = Attributes(node);
    let floats = attributes.floats(name);
    let tensor = format!("{name}_as_tensor");
    let Some(values) = attributes.tensor(&tensor) else {
        return Ok(floats.iter().map(|&x| T::from(x)).collect());
    };
    if !floats.is_empty() {
        return Err(invalid(node, format_args!("it has both {name} and {tensor}")));
    }
    let constant = Constant::read(values).map_err(|why| invalid(node, why))?;
    T::from_tensor(constant.elements)
        .ok_or_else(|| unsupported(node, format_args!("{tensor} is not {}", T::NAME)))
}

/// The votes of the leaves: parallel lists of one length.
struct Votes<'a, T> {
    tree_ids: &'a [i64],
    node_ids: &'a [i64],
    targets: Vec<u32>,
    weights: Vec<T>,
}

impl<'a, T: Thresholds> Votes<'a, T> {
    fn read(node: &'a NodeProto, prefix: &str, targets: usize) -> Result<Self, Error> {
        let attributes = Attributes(node);
        let tree_ids = attributes.ints(&format!("{prefix}_treeids"));
        let node_ids = attributes.ints(&format!("{prefix}_nodeids"));
        let ids = attributes.ints(&format!("{prefix}_ids"));
        let weights = reals::<T>(node, &format!("{prefix}_weights"))?;
        if [tree_ids.len(), node_ids.len(), weights.len()] != [ids.len(); 3] {
            return Err(invalid(node, format_args!("its {prefix}_* lists differ in length")));
        }
        let target = |&id: &i64| u32::try_from(id).ok().filter(|&id| (id as usize) < targets);
        let targets = ids.iter().map(target).collect::<Option<Vec<u32>>>();
        let targets = targets.ok_or_else(|| {
            invalid(node, format_args!("one of its {prefix}_ids is out of range"))
        })?;
        Ok(Self { tree_ids, node_ids, targets, weights })
    }
}

fn forest<T: Thresholds>(
    node: &NodeProto,
    width: usize,
    targets: usize,
    votes: &Votes<'_, T>,
) -> Result<Forest<T>, Error> {
    let attributes = Attributes(node);
    let tree_ids = attributes.ints("nodes_treeids");
    let index = NodeIndex::new(node, tree_ids, attributes.ints("nodes_nodeids"))?;
    let raw = raw_nodes::<T>(node, width, tree_ids, &index)?;
    let roots: Vec<u32> = (0u32..)
        .zip(tree_ids)
        .filter(|&(i, id)| i == 0 || tree_ids[i as usize - 1] != *id)
        .map(|(i, _)| i)
        .collect();
    let flat = lay_out(node, &raw, &roots)?;
    let mut placed = Vec::with_capacity(votes.targets.len());
    for (i, (&target, &weight)) in votes.targets.iter().zip(&votes.weights).enumerate() {
        let (tree, id) = (votes.tree_ids[i], votes.node_ids[i]);
        let index = index.find(tree, id).ok_or_else(|| {
            invalid(
                node,
                format_args!("it has a vote of node {id} of tree {tree}, which does not exist"),
            )
        })?;
        // Old converters write weights of inner nodes, which have no effect.
        if raw[index as usize].mode == Mode::Leaf {
            placed.push((flat.position[index as usize], Vote { target, weight }));
        }
    }
    if targets == 1 {
        // As in the reference, a leaf has one weight if there is one target: its first vote, or
        // else its threshold.
        let leaves = (0..).zip(&raw).filter(|(_, raw)| raw.mode == Mode::Leaf);
        placed.extend(leaves.map(|(i, raw): (usize, _)| {
            (flat.position[i], Vote { target: 0, weight: raw.threshold })
        }));
    }
    placed.sort_by_key(|(position, _)| *position);
    if targets == 1 {
        placed.dedup_by_key(|(position, _)| *position);
    }
    Ok(Forest::new(flat, &placed))
}

fn raw_nodes<T: Thresholds>(
    node: &NodeProto,
    width: usize,
    tree_ids: &[i64],
    index: &NodeIndex,
) -> Result<Vec<RawNode<T>>, Error> {
    let attributes = Attributes(node);
    let count = tree_ids.len();
    let modes = attributes.strings("nodes_modes");
    let features = attributes.ints("nodes_featureids");
    let on_true = attributes.ints("nodes_truenodeids");
    let on_false = attributes.ints("nodes_falsenodeids");
    let thresholds = reals::<T>(node, "nodes_values")?;
    let missing = attributes.ints("nodes_missing_value_tracks_true");
    let lengths = [modes.len(), features.len(), on_true.len(), on_false.len(), thresholds.len()];
    if lengths != [count; 5] || !(missing.is_empty() || missing.len() == count) {
        return Err(invalid(node, "its nodes_* lists differ in length"));
    }
    (0..count)
        .map(|i| {
            let mode = mode(node, &modes[i])?;
            let threshold = thresholds[i];
            let nan_is_true = missing.get(i) == Some(&1);
            if mode == Mode::Leaf {
                let (feature, on_true, on_false) = (0, 0, 0);
                return Ok(RawNode { mode, feature, threshold, nan_is_true, on_true, on_false });
            }
            let feature = feature(node, features[i], width)?;
            let child = |id| {
                index.find(tree_ids[i], id).ok_or_else(|| {
                    let tree = tree_ids[i];
                    invalid(
                        node,
                        format_args!("tree {tree} has no node {id}, which is a child in it"),
                    )
                })
            };
            let (on_true, on_false) = (child(on_true[i])?, child(on_false[i])?);
            Ok(RawNode { mode, feature, threshold, nan_is_true, on_true, on_false })
        })
        .collect()
}

fn mode(node: &NodeProto, name: &[u8]) -> Result<Mode, Error> {
    match name {
        b"BRANCH_LEQ" => Ok(Mode::Leq),
        b"BRANCH_LT" => Ok(Mode::Lt),
        b"BRANCH_GTE" => Ok(Mode::Gte),
        b"BRANCH_GT" => Ok(Mode::Gt),
        b"BRANCH_EQ" => Ok(Mode::Eq),
        b"BRANCH_NEQ" => Ok(Mode::Neq),
        b"LEAF" => Ok(Mode::Leaf),
        other => {
            let other = String::from_utf8_lossy(other);
            Err(invalid(
                node,
                format_args!(
                    "the mode of a tree node is `{other}`, which is none of the standard's"
                ),
            ))
        }
    }
}
