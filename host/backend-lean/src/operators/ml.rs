//! `ai.onnx.ml`: linear models, scaling, and the tree ensembles.
//!
//! | operator | row `x` becomes |
//! | --- | --- |
//! | LinearRegressor | `post(sum_k x[k] * w[j][k] + b[j])` |
//! | LinearClassifier | the same, and the label of the greatest of the sums |
//! | Normalizer | `x / norm(x)` |
//! | Scaler | `(x - offset) * scale` |

use spinfer_backend::{Error, TensorType};

use crate::attributes::{Attributes, invalid, unsupported};
use crate::builder::{Arena, Builder, Value, output_name};
use crate::dense::Dense;
use crate::plan::{Labels, Step};
use crate::post_transform::PostTransform;
use crate::rows::{Norm, RowOp};
use crate::tree;
use spinfer_onnx::NodeProto;

/// Names an output of a node, unless the file leaves it out.
fn name_optional<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
    index: usize,
    value: Value,
) -> Result<(), Error> {
    match output_name(node, index) {
        Ok(name) => builder.name(name, value),
        Err(_) => Ok(()),
    }
}

/// `coefficients` as a matrix: one row of `inputs` after another for each output.
pub(crate) fn dense(
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

pub(super) fn linear_regressor<'a>(
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

/// The number of scores is that of the intercepts, as in ONNX Runtime. One score `s` for two classes
/// is that of the second: `1 - s, s`, or of LOGISTIC `f(-s), f(s)`.
pub(super) fn linear_classifier<'a>(
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

pub(super) fn normalizer<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let norm = Norm::read(node)?;
    let input = builder.rounded(node, 0)?;
    builder.rows(node, input, RowOp::Normalize(norm))
}

pub(super) fn scaler<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let input = builder.matrix(node, 0)?;
    let width = input.columns.width;
    let widen = |name| match Attributes(node).floats(name) {
        [one] => Ok(vec![*one; width]),
        many if many.len() == width => Ok(many.to_vec()),
        other => Err(invalid(node, format_args!("{} of {name} for {width} features", other.len()))),
    };
    let (offset, scale) = (widen("offset")?, widen("scale")?);
    if input.arena() == Arena::Doubles {
        let output = builder.new_value(node, TensorType::Fp32, &input.tail)?;
        let (from, to) = (input.columns, output.columns);
        builder.plan.steps.push(Step::ScaleDoubles { from, to, offset, scale });
        return builder.name(output_name(node, 0)?, output);
    }
    let input = builder.float_value(node, &input)?;
    builder.rows(node, input, RowOp::Scale { offset, scale })
}

pub(super) fn tree_regressor<'a>(
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

/// `TreeEnsemble` of FP32; of FP64 its outputs are too.
pub(super) fn tree_ensemble<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let from = builder.floats(node, 0)?.columns;
    let trees = tree::ensemble::<f32>(node, from.width)?;
    let output = builder.new_value(node, TensorType::Fp32, &[trees.targets])?;
    builder.plan.steps.push(Step::Regress { from, to: output.columns, trees });
    builder.name(output_name(node, 0)?, output)
}

pub(super) fn tree_classifier<'a>(
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

/// Entries of a constant list by computed index, as converters name the class of an `ArgMax`.
pub(super) fn array_feature_extractor<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let table = builder.constant(node, 0)?;
    let table = table.filter(|t| matches!(t.dims[..], [_] | [1, _]));
    let table = table.as_ref().and_then(|table| table.ints());
    let table = table.ok_or_else(|| unsupported(node, "it reads no constant list of integers"))?;
    let index = builder.input(node, 1)?;
    if index.arena() != Arena::Ints || index.columns.width != 1 {
        return Err(unsupported(node, "its indices are not one integer for each row"));
    }
    let mut output = builder.new_value(node, TensorType::I64, &[])?;
    output.transposed = true;
    let (from, to) = (index.columns, output.columns);
    builder.plan.steps.push(Step::Lookup { from, to, table: table.to_vec() });
    builder.name(output_name(node, 0)?, output)
}

/// `wasi:nn` has no maps: what would be the values of them is the tensor they come from.
pub(super) fn zip_map<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let value = builder.floats(node, 0)?;
    let attributes = Attributes(node);
    let labels = attributes.ints("classlabels_int64s").len();
    let labels = labels + attributes.strings("classlabels_strings").len();
    let width = value.columns.width;
    if labels != width {
        return Err(invalid(node, format_args!("{labels} class labels for {width} scores")));
    }
    let name = output_name(node, 0)?;
    builder.untyped.insert(name);
    builder.name(name, value)
}
