//! Linear models.

use spinfer_backend::{Error, TensorType};
use spinfer_onnx::NodeProto;

use super::name_optional;
use crate::attributes::Attributes;
use crate::builder::{Builder, output_name};
use crate::dense::Dense;
use crate::post_transform::PostTransform;
use crate::refusal::{invalid, unsupported};
use crate::rows::RowOp;
use crate::step::{Labels, Step};

/// The attribute `coefficients` as a matrix: it has `inputs` numbers for each output.
fn dense(
    node: &NodeProto,
    inputs: usize,
    outputs: usize,
    intercepts: Option<&[f32]>,
) -> Result<Dense, Error> {
    let weights = Attributes(node).floats("coefficients");
    if inputs == 0 || outputs == 0 || inputs.checked_mul(outputs) != Some(weights.len()) {
        let count = weights.len();
        return Err(invalid(
            node,
            format_args!("{count} coefficients for {inputs} features and {outputs} outputs"),
        ));
    }
    let bias = |j: usize| intercepts.map_or(0.0, |intercepts| intercepts[j]);
    Ok(Dense::new((inputs, outputs), |k, j| weights[j * inputs + k], bias))
}

pub(in super::super) fn linear_regressor<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let attributes = Attributes(node);
    let input = builder.rounded(node, 0)?;
    let targets = usize::try_from(attributes.int("targets", 1)).unwrap_or(0);
    let intercepts = Some(attributes.floats("intercepts")).filter(|b| b.len() == targets);
    let dense = dense(node, input.columns.width, targets, intercepts)?;
    let post = PostTransform::read(attributes)?;
    let output = builder.new_value(node, TensorType::Fp32, &[targets])?;
    builder.plan.steps.push(Step::Dense { from: input.columns, to: output.columns, dense });
    if post != PostTransform::None {
        builder.plan.steps.push(Step::Rows { at: output.columns, op: RowOp::Post(post) });
    }
    builder.name(output_name(node, 0)?, output)
}

/// The number of scores is that of the intercepts, as in ONNX Runtime. One score `s` of two classes
/// belongs to the second. The scores are then `1 - s, s`, or with LOGISTIC `f(-s), f(s)`.
pub(in super::super) fn linear_classifier<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let attributes = Attributes(node);
    if !attributes.strings("classlabels_strings").is_empty() {
        return Err(unsupported(node, "its class labels are strings"));
    }
    let input = builder.rounded(node, 0)?;
    let names = attributes.ints("classlabels_ints");
    let intercepts = attributes.floats("intercepts");
    let count = intercepts.len();
    let dense = dense(node, input.columns.width, count, Some(intercepts))?;
    let post = PostTransform::read(attributes)?;
    let labels = match (count, names) {
        (1, &[negative, positive]) => Labels::Sign([negative, positive]),
        (1, _) => return Err(invalid(node, "one score needs two labels")),
        _ if names.len() < count => {
            return Err(invalid(node, format_args!("{} labels for {count} scores", names.len())));
        }
        _ => Labels::Greatest(names.to_vec()),
    };
    let scores = builder.new_value(node, TensorType::Fp32, &[count])?;
    let label = builder.new_value(node, TensorType::I64, &[])?;
    let (from, to) = (scores.columns, label.columns);
    builder.plan.steps.push(Step::Dense { from: input.columns, to: from, dense });
    builder.plan.steps.push(Step::Label { from, to, labels });
    let scores = if count == 1 {
        if post == PostTransform::Probit {
            return Err(unsupported(node, "PROBIT of one score for two classes is undefined"));
        }
        let both = builder.new_value(node, TensorType::Fp32, &[2])?;
        let logistic = post == PostTransform::Logistic;
        builder.plan.steps.push(Step::TwoClasses { from, to: both.columns, logistic });
        both
    } else {
        if post != PostTransform::None {
            builder.plan.steps.push(Step::Rows { at: from, op: RowOp::Post(post) });
        }
        scores
    };
    name_optional(builder, node, 0, label)?;
    name_optional(builder, node, 1, scores)
}
