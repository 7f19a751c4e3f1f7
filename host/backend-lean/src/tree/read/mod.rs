//! Reads an ensemble from a node's attributes, with everything checked that a hostile file may
//! contain.
//!
//! `v1` reads the operators of `ai.onnx.ml` 1 to 4, `v5` that of `ai.onnx.ml` 5.

mod node_index;
mod v1;
mod v5;

use spinfer_backend::Error;
use spinfer_onnx::NodeProto;

pub(crate) use v1::{classifier, regressor};
pub(crate) use v5::ensemble;

use super::Real;
use super::flatten::{FlatTrees, NAN_IS_TRUE, RawNode, flatten, has_cycle};
use crate::constant::Elements;
use crate::refusal::{invalid, unsupported};

/// Maximum number of targets or classes: each has a score, whether or not a leaf votes for it.
pub(crate) const MAX_TARGETS: usize = 1 << 16;

fn targets(node: &NodeProto, count: u64) -> Result<usize, Error> {
    match usize::try_from(count) {
        Ok(0) | Err(_) => Err(invalid(node, "it has no classes or targets")),
        Ok(count) if count > MAX_TARGETS => Err(unsupported(
            node,
            format_args!("{count} classes or targets; lean covers up to {MAX_TARGETS}"),
        )),
        Ok(count) => Ok(count),
    }
}

/// FP32 or FP64 numbers of an attribute. Both may be in the list of floats; from `ai.onnx.ml` 3 on
/// FP64 may be in an attribute that is a tensor.
pub(crate) trait Thresholds: Real {
    const NAME: &'static str;

    fn from_tensor(elements: Elements) -> Option<Vec<Self>>;
}

impl Thresholds for f32 {
    const NAME: &'static str = "FP32";

    fn from_tensor(elements: Elements) -> Option<Vec<Self>> {
        if let Elements::Float(values) = elements { Some(values) } else { None }
    }
}

impl Thresholds for f64 {
    const NAME: &'static str = "FP64";

    fn from_tensor(elements: Elements) -> Option<Vec<Self>> {
        if let Elements::Double(values) = elements { Some(values) } else { None }
    }
}

/// Flattens trees, in which every node but the roots has one parent.
fn lay_out<T: Real>(
    node: &NodeProto,
    raw: &[RawNode<T>],
    roots: &[u32],
) -> Result<FlatTrees<T>, Error> {
    let flat = flatten(raw, roots).map_err(|shared| {
        if has_cycle(raw) {
            invalid(node, "its trees have a cycle")
        } else {
            unsupported(node, format_args!("its tree node at index {shared} has two parents"))
        }
    })?;
    if let Some(lost) = flat.position.iter().position(|&position| position == u32::MAX) {
        return Err(invalid(node, format_args!("its tree node at index {lost} cannot be reached")));
    }
    Ok(flat)
}

/// Checks the index of a feature.
fn feature(node: &NodeProto, feature: i64, width: usize) -> Result<u32, Error> {
    let fits = |&feature: &u32| (feature as usize) < width && feature < NAN_IS_TRUE;
    u32::try_from(feature)
        .ok()
        .filter(fits)
        .ok_or_else(|| invalid(node, format_args!("it compares feature {feature} of {width}")))
}
