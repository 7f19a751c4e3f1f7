//! Tree ensembles.

use spinfer_backend::{Error, TensorType};
use spinfer_onnx::NodeProto;

use super::name_optional;
use crate::attributes::Attributes;
use crate::builder::{Arena, Builder, output_name};
use crate::refusal::unsupported;
use crate::step::Step;
use crate::tree;

pub(in super::super) fn tree_regressor<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let input = builder.matrix(node, 0)?;
    let width = input.columns.width;
    let output = if input.arena() == Arena::Doubles {
        let trees = tree::regressor::<f64>(node, width)?;
        let output = builder.new_value(node, TensorType::Fp32, &[trees.targets])?;
        let (from, to) = (input.columns, output.columns);
        builder.plan.steps.push(Step::RegressDoubles { from, to, trees });
        output
    } else {
        let from = builder.float_value(node, &input)?.columns;
        let trees = tree::regressor::<f32>(node, width)?;
        let output = builder.new_value(node, TensorType::Fp32, &[trees.targets])?;
        builder.plan.steps.push(Step::Regress { from, to: output.columns, trees });
        output
    };
    builder.name(output_name(node, 0)?, output)
}

/// `TreeEnsemble` of FP32. That of FP64, whose outputs are FP64, is not supported.
pub(in super::super) fn tree_ensemble<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let from = builder.floats(node, 0)?.columns;
    let trees = tree::ensemble::<f32>(node, from.width)?;
    let output = builder.new_value(node, TensorType::Fp32, &[trees.targets])?;
    builder.plan.steps.push(Step::Regress { from, to: output.columns, trees });
    builder.name(output_name(node, 0)?, output)
}

pub(in super::super) fn tree_classifier<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    if !Attributes(node).strings("classlabels_strings").is_empty() {
        return Err(unsupported(node, "its class labels are strings"));
    }
    let input = builder.matrix(node, 0)?;
    let width = input.columns.width;
    let label = builder.new_value(node, TensorType::I64, &[])?;
    let labels = label.columns;
    let output = if input.arena() == Arena::Doubles {
        let trees = tree::classifier::<f64>(node, width)?;
        let output = builder.new_value(node, TensorType::Fp32, &[trees.classes()])?;
        let (from, to) = (input.columns, output.columns);
        builder.plan.steps.push(Step::ClassifyDoubles { from, labels, to, trees });
        output
    } else {
        let from = builder.float_value(node, &input)?.columns;
        let trees = tree::classifier::<f32>(node, width)?;
        let output = builder.new_value(node, TensorType::Fp32, &[trees.classes()])?;
        builder.plan.steps.push(Step::Classify { from, labels, to: output.columns, trees });
        output
    };
    name_optional(builder, node, 0, label)?;
    name_optional(builder, node, 1, output)
}
