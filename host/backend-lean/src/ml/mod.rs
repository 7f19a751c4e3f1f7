//! The operators of `ai.onnx.ml`, one at a time, for a backend that runs the rest of a graph.
//!
//! An operator is read from a node ([`Operator::read`]); what it says of its outputs is known then
//! ([`Operator::outputs`]), and once the types of its inputs are, it gives the [`Kernel`] that runs.
//! To add one: a file with a `read`, a line in [`OPERATORS`].
//!
//! Results are those of ONNX Runtime 1.32, which `tests/ml_reference.rs` holds them to. Formulas stand
//! with the operators. Where ONNX Runtime reads past an attribute that is too short, leaves an output
//! unwritten or ignores an attribute, the node is refused.

mod array_feature_extractor;
mod binarizer;
mod feature_vectorizer;
mod imputer;
mod label_encoder;
mod labels;
mod linear_classifier;
mod linear_regressor;
mod normalizer;
mod one_hot_encoder;
mod output;
mod scaler;
mod svm;
mod tree_classifier;
mod tree_ensemble;
mod tree_regressor;
mod values;

#[cfg(test)]
mod hostile;

use std::fmt;
use std::sync::Arc;

use prost::Message;
use spinfer_backend::Error;

pub use output::{Output, OutputShape, OutputType};
pub use values::{Array, ElementType, Slice, Values, View};

use crate::attributes::unsupported;
use crate::onnx::Node;

/// The domain these operators are of.
pub const DOMAIN: &str = "ai.onnx.ml";

/// Reads a node; the number is the version of the domain.
type Read = fn(&Node, i64) -> Result<Operator, Error>;

const OPERATORS: &[(&str, Read)] = &[
    ("ArrayFeatureExtractor", array_feature_extractor::read),
    ("Binarizer", binarizer::read),
    ("FeatureVectorizer", feature_vectorizer::read),
    ("Imputer", imputer::read),
    ("LabelEncoder", label_encoder::read),
    ("LinearClassifier", linear_classifier::read),
    ("LinearRegressor", linear_regressor::read),
    ("Normalizer", normalizer::read),
    ("OneHotEncoder", one_hot_encoder::read),
    ("SVMClassifier", svm::classifier::read),
    ("SVMRegressor", svm::regressor::read),
    ("Scaler", scaler::read),
    ("TreeEnsemble", tree_ensemble::read),
    ("TreeEnsembleClassifier", tree_classifier::read),
    ("TreeEnsembleRegressor", tree_regressor::read),
];

/// The operators there are.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|(name, _)| *name)
}

/// What an operator computes. Holds no state: calls run in parallel.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// Runs on as many inputs as [`Operator::inputs`] says, of the types it was made for.
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error>;
}

/// A node, checked.
#[derive(Clone, Debug)]
pub struct Operator {
    /// How many inputs it takes.
    pub inputs: usize,
    /// The types its inputs may have; indices aside, all have the same.
    accepts: &'static [ElementType],
    pub outputs: Vec<Output>,
    kernel: Source,
}

type MakeKernel = fn(&Node, ElementType) -> Result<Arc<dyn Kernel>, Error>;

#[derive(Clone, Debug)]
enum Source {
    Ready(Arc<dyn Kernel>),
    /// One for each type of input.
    ByType(MakeKernel, Arc<Node>),
}

/// What most operators take.
const NUMBERS: &[ElementType] =
    &[ElementType::F32, ElementType::F64, ElementType::I64, ElementType::I32];

impl Operator {
    /// Reads the bytes of an ONNX `NodeProto`; `version` is that of the domain.
    pub fn read(node: &[u8], version: i64) -> Result<Self, Error> {
        let node = Node::decode(node)
            .map_err(|e| Error::InvalidEncoding(format!("not a node of ONNX: {e}")))?;
        let Some((_, read)) = OPERATORS.iter().find(|(name, _)| *name == node.op_type) else {
            let there: Vec<&str> = names().collect();
            return Err(unsupported(
                &node,
                format_args!("of {DOMAIN} there are {}", there.join(", ")),
            ));
        };
        read(&node, version)
    }

    /// The kernel for inputs of these types.
    pub fn kernel(&self, types: &[ElementType]) -> Result<Arc<dyn Kernel>, Error> {
        if types.len() != self.inputs {
            let (got, expected) = (types.len(), self.inputs);
            return Err(Error::Unsupported(format!("{got} inputs; it takes {expected}")));
        }
        let first = types.first().copied().unwrap_or(ElementType::F32);
        if !self.accepts.contains(&first) {
            let accepted: Vec<String> = self.accepts.iter().map(ToString::to_string).collect();
            let accepted = accepted.join(", ");
            return Err(Error::Unsupported(format!("its input is {first}; it takes {accepted}")));
        }
        match &self.kernel {
            Source::Ready(kernel) => Ok(kernel.clone()),
            Source::ByType(make, node) => make(node, first),
        }
    }

    /// An operator of one input, whose kernel is the same for all of `accepts`.
    fn new(
        accepts: &'static [ElementType],
        outputs: impl IntoIterator<Item = Output>,
        kernel: impl Kernel + 'static,
    ) -> Self {
        let outputs = outputs.into_iter().collect();
        Self { inputs: 1, accepts, outputs, kernel: Source::Ready(Arc::new(kernel)) }
    }
}

/// What a kernel says of a number of inputs that [`Operator::kernel`] should have refused.
fn one_input(inputs: &[View<'_>]) -> Error {
    Error::InvalidArgument(format!("it was given {} inputs", inputs.len()))
}

/// The strings of an attribute.
fn utf8(node: &Node, name: &str, strings: &[Vec<u8>]) -> Result<Vec<String>, Error> {
    strings.iter().map(|bytes| String::from_utf8(bytes.clone())).collect::<Result<_, _>>().map_err(
        |_| crate::attributes::invalid(node, format_args!("its attribute {name} is not UTF-8")),
    )
}
