//! The class labels of a classifier: integers or strings.

use spinfer_backend::Error;

use super::utf8;
use super::values::{ElementType, Values};
use crate::attributes::{Attributes, invalid};
use crate::onnx::Node;

#[derive(Clone, Debug)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    /// Reads `classlabels_strings`, or the attribute `ints`.
    pub(super) fn read(node: &Node, ints: &str) -> Result<Self, Error> {
        let attributes = Attributes(node);
        let strings = attributes.strings("classlabels_strings");
        let ints_there = attributes.ints(ints);
        match (strings.is_empty(), ints_there.is_empty()) {
            (true, false) => Ok(Self::Ints(ints_there.to_vec())),
            (false, true) => Ok(Self::Strings(utf8(node, "classlabels_strings", strings)?)),
            _ => Err(invalid(
                node,
                format_args!("it takes one of the attributes {ints} and classlabels_strings"),
            )),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Strings(labels) => labels.len(),
        }
    }

    pub(super) fn ty(&self) -> ElementType {
        match self {
            Self::Ints(_) => ElementType::I64,
            Self::Strings(_) => ElementType::Str,
        }
    }

    /// The labels of classes by their index, each below [`Labels::len`].
    pub(super) fn of(&self, classes: impl Iterator<Item = usize>) -> Values {
        match self {
            Self::Ints(labels) => Values::I64(classes.map(|class| labels[class]).collect()),
            Self::Strings(labels) => {
                Values::Str(classes.map(|class| labels[class].clone()).collect())
            }
        }
    }
}
