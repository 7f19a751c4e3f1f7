//! `Normalizer` and `Scaler`.

use spinfer_backend::{Error, TensorType};
use spinfer_onnx::NodeProto;

use crate::attributes::Attributes;
use crate::builder::{Arena, Builder, output_name};
use crate::refusal::invalid;
use crate::rows::{Norm, RowOp};
use crate::step::Step;

pub(in super::super) fn normalizer<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let norm = Norm::read(node)?;
    let input = builder.rounded(node, 0)?;
    builder.rows(node, input, RowOp::Normalize(norm))
}

pub(in super::super) fn scaler<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
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
