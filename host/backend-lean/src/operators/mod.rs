//! From nodes to steps: one function for each operator, by domain.

mod ml;
mod shape;
mod standard;

use spinfer_backend::Error;

use crate::attributes::Attributes;
use crate::builder::{Builder, output_name};
use crate::refusal::unsupported;
use spinfer_onnx::{ModelProto, NodeProto};

/// The first version of the standard operators that broadcasts as today's do.
const FIRST_OPSET: i64 = 7;
/// The last version of `ai.onnx.ml` whose operators are those restated here.
const LAST_ML_OPSET: i64 = 5;

/// The operator sets a model imports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opsets {
    standard: i64,
    ml: i64,
}

impl Opsets {
    pub(crate) fn read(model: &ModelProto) -> Self {
        let mut opsets = Self::default();
        for import in &model.opset_import {
            match import.domain.as_str() {
                "" | "ai.onnx" => opsets.standard = import.version,
                "ai.onnx.ml" => opsets.ml = import.version,
                _ => {}
            }
        }
        opsets
    }
}

/// Adds the steps of one node.
pub(crate) fn compile<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
    opsets: Opsets,
) -> Result<(), Error> {
    match (node.domain.as_str(), node.op_type.as_str()) {
        ("ai.onnx.ml", _) if !(1..=LAST_ML_OPSET).contains(&opsets.ml) => {
            Err(unsupported(node, format_args!("ai.onnx.ml is of version {}", opsets.ml)))
        }
        ("ai.onnx.ml", "LinearClassifier") => ml::linear_classifier(builder, node),
        ("ai.onnx.ml", "LinearRegressor") => ml::linear_regressor(builder, node),
        ("ai.onnx.ml", "Normalizer") => ml::normalizer(builder, node),
        ("ai.onnx.ml", "Scaler") => ml::scaler(builder, node),
        ("ai.onnx.ml", "TreeEnsemble") => ml::tree_ensemble(builder, node),
        ("ai.onnx.ml", "TreeEnsembleClassifier") => ml::tree_classifier(builder, node),
        ("ai.onnx.ml", "TreeEnsembleRegressor") => ml::tree_regressor(builder, node),
        ("ai.onnx.ml", "ArrayFeatureExtractor") => ml::array_feature_extractor(builder, node),
        ("ai.onnx.ml", "ZipMap") => ml::zip_map(builder, node),
        ("" | "ai.onnx", _) if opsets.standard < FIRST_OPSET => {
            Err(unsupported(node, format_args!("the opset is {}", opsets.standard)))
        }
        ("" | "ai.onnx", operator) => match operator {
            "Constant" => constant(builder, node),
            "Identity" => shape::identity(builder, node),
            "Cast" => shape::cast(builder, node),
            "Flatten" => shape::flatten(builder, node),
            "Reshape" => shape::reshape(builder, node),
            "Concat" => shape::concat(builder, node),
            "ArgMax" => standard::arg_max(builder, node),
            "Gemm" => standard::gemm(builder, node),
            "MatMul" => standard::mat_mul(builder, node),
            "Add" | "Sub" | "Mul" | "Div" => standard::arithmetic(builder, node, operator),
            "Relu" | "LeakyRelu" | "Tanh" | "Sigmoid" => {
                standard::activation(builder, node, operator)
            }
            "Softmax" => standard::softmax(builder, node),
            _ => Err(unsupported(node, "it has no such operator")),
        },
        (domain, _) => Err(unsupported(node, format_args!("its domain is `{domain}`"))),
    }
}

fn constant<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let value = Attributes(node).tensor("value");
    let value = value.ok_or_else(|| unsupported(node, "its value is not a tensor"))?;
    builder.add_constant(output_name(node, 0)?, value)
}

/// Checks that an axis attribute means the last axis of a matrix.
fn last_axis(node: &NodeProto, default: i64) -> Result<(), Error> {
    match Attributes(node).int("axis", default) {
        1 | -1 => Ok(()),
        0 | -2 => Err(unsupported(node, "it works across the batch")),
        axis => Err(unsupported(node, format_args!("its axis is {axis}"))),
    }
}
