//! Which fields of an encoded message hold other messages, and which hold bulk data.

/// The messages that contain tensors, or are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Model,
    TrainingInfo,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl MessageKind {
    /// The message in field `number`, if it is one of these. `onnx/onnx.proto`, IR version 13.
    pub(crate) fn field(self, number: u32) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::TrainingInfo, 1 | 2) | (Self::Attribute, 6 | 11) => {
                Self::Graph
            }
            (Self::Model, 20) => Self::TrainingInfo,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => {
                Self::Tensor
            }
            _ => return None,
        })
    }

    /// Whether field `number` is what makes a model large: the elements of a tensor, an attribute
    /// that is a list of numbers or strings, the types of intermediate values.
    pub(crate) fn is_bulk(self, number: u32) -> bool {
        match self {
            Self::Tensor => matches!(number, 4..=7 | 9 | 10),
            Self::Attribute => matches!(number, 7..=9),
            Self::Graph => number == 13,
            _ => false,
        }
    }
}
