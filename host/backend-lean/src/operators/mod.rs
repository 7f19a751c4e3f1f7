//! Compiles nodes to steps: one function for each operator, by domain.

mod ml;
mod shape;
mod standard;

use spinfer_backend::Error;

use crate::attributes::Attributes;
use crate::builder::{Builder, output_name};
use crate::refusal::unsupported;
use spinfer_onnx::{ModelProto, NodeProto};

/// First supported version of the standard operators: the first that broadcasts as later ones do.
const FIRST_OPSET: i64 = 7;
/// Last supported version of `ai.onnx.ml`.
const LAST_ML_OPSET: i64 = 5;

/// Versions of the operator sets that a model imports; 0 if it does not.
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

/// Appends the steps of one node.
pub(crate) fn compile<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
    opsets: Opsets,
) -> Result<(), Error> {
    match (node.domain.as_str(), node.op_type.as_str()) {
        ("ai.onnx.ml", _) if !(1..=LAST_ML_OPSET).contains(&opsets.ml) => Err(unsupported(
            node,
            format_args!(
                "its operator set is ai.onnx.ml {}; lean covers 1 to {LAST_ML_OPSET}",
                opsets.ml
            ),
        )),
        ("ai.onnx.ml", "LinearClassifier") => ml::linear_classifier(builder, node),
        ("ai.onnx.ml", "LinearRegressor") => ml::linear_regressor(builder, node),
        ("ai.onnx.ml", "Normalizer") => ml::normalizer(builder, node),
        ("ai.onnx.ml", "Scaler") => ml::scaler(builder, node),
        ("ai.onnx.ml", "TreeEnsemble") => ml::tree_ensemble(builder, node),
        ("ai.onnx.ml", "TreeEnsembleClassifier") => ml::tree_classifier(builder, node),
        ("ai.onnx.ml", "TreeEnsembleRegressor") => ml::tree_regressor(builder, node),
        ("ai.onnx.ml", "ArrayFeatureExtractor") => ml::array_feature_extractor(builder, node),
        ("ai.onnx.ml", "ZipMap") => ml::zip_map(builder, node),
        ("" | "ai.onnx", _) if opsets.standard < FIRST_OPSET => Err(unsupported(
            node,
            format_args!(
                "its operator set is {}; lean covers {FIRST_OPSET} and later",
                opsets.standard
            ),
        )),
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
            _ => Err(unsupported(node, "lean does not have this operator")),
        },
        (domain, _) => {
            Err(unsupported(node, format_args!("lean has no operators of the domain `{domain}`")))
        }
    }
}

fn constant<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let value = Attributes(node).tensor("value");
    let value = value.ok_or_else(|| unsupported(node, "its value is not a tensor"))?;
    builder.add_constant(output_name(node, 0)?, value)
}

/// Checks that the attribute `axis` is the last axis of a matrix.
fn last_axis(node: &NodeProto, default: i64) -> Result<(), Error> {
    match Attributes(node).int("axis", default) {
        1 | -1 => Ok(()),
        0 | -2 => Err(unsupported(node, "its axis is the batch")),
        axis => Err(unsupported(node, format_args!("its axis is {axis}"))),
    }
}
