//! Operators that change the type or the shape of a value: `Identity`, `Cast`,
//! `Flatten`, `Reshape`, `Concat`. Only `Concat` and a `Cast` between integers and floats add
//! steps.

use spinfer_backend::{Error, TensorType};

use super::last_axis;
use crate::attributes::Attributes;
use crate::builder::{Arena, Builder, output_name};
use crate::refusal::unsupported;
use crate::step::Step;
use spinfer_onnx::{NodeProto, data_type};

pub(super) fn identity<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let value = builder.input(node, 0)?;
    builder.name(output_name(node, 0)?, value)
}

/// Casts to FP32, and FP32 or integers to integers. FP32 outside of the range of integers
/// saturates, which the standard leaves undefined.
pub(super) fn cast<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let value = builder.input(node, 0)?;
    let to = Attributes(node).int("to", 0);
    let output = match (value.arena(), i32::try_from(to).unwrap_or(0)) {
        (Arena::Doubles, data_type::DOUBLE) => value,
        (_, data_type::FLOAT) => builder.float_value(node, &value)?,
        (Arena::Ints, data_type::INT64) => value,
        (Arena::Floats, data_type::INT64) => {
            let mut output = builder.new_value(node, TensorType::I64, &value.tail)?;
            output.transposed = value.transposed;
            let (from, to) = (value.columns, output.columns);
            builder.plan.steps.push(Step::FloatToInt { from, to });
            output
        }
        _ => {
            return Err(unsupported(
                node,
                format_args!("it casts {} to element type {to}", value.ty),
            ));
        }
    };
    let output = if output.ty == TensorType::I32 {
        crate::builder::Value { ty: TensorType::I64, ..output }
    } else {
        output
    };
    builder.name(output_name(node, 0)?, output)
}

pub(super) fn flatten<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let mut value = builder.input(node, 0)?;
    if value.transposed || Attributes(node).int("axis", 1) != 1 {
        return Err(unsupported(node, "it flattens the batch"));
    }
    value.tail = vec![value.columns.width];
    builder.name(output_name(node, 0)?, value)
}

/// A reshape that keeps the batch as the first axis.
pub(super) fn reshape<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let mut value = builder.input(node, 0)?;
    let shape = builder.constant(node, 1)?;
    let shape = shape.as_ref().and_then(|shape| shape.ints());
    let zero_copies = Attributes(node).int("allowzero", 0) == 0;
    let tail = shape.and_then(|shape| {
        let (first, rest) = shape.split_first()?;
        let fixed = builder.batch.is_some_and(|batch| batch > 0 && i64::from(batch) == *first);
        let batch_kept = *first == -1 || fixed || (*first == 0 && zero_copies && !value.transposed);
        let mut free = None;
        let mut tail = Vec::with_capacity(rest.len());
        for (index, &axis) in rest.iter().enumerate() {
            match axis {
                -1 if *first != -1 && free.is_none() => {
                    free = Some(index);
                    tail.push(1);
                }
                0 if zero_copies && !value.transposed => tail.push(*value.tail.get(index)?),
                axis => tail.push(usize::try_from(axis).ok().filter(|&axis| axis > 0)?),
            }
        }
        let product = tail.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis))?;
        if let Some(free) = free {
            tail[free] = value.columns.width / product;
        }
        let width = tail.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis))?;
        (batch_kept && width == value.columns.width).then_some(tail)
    });
    value.tail = tail
        .ok_or_else(|| unsupported(node, "its shape does not keep the batch as the first axis"))?;
    value.transposed = false;
    builder.name(output_name(node, 0)?, value)
}

pub(super) fn concat<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    last_axis(node, 0)?;
    let parts = (0..node.input.len())
        .map(|index| builder.floats(node, index))
        .collect::<Result<Vec<_>, _>>()?;
    let width = parts.iter().map(|part| part.columns.width).sum();
    let output = builder.new_value(node, TensorType::Fp32, &[width])?;
    let to = output.columns;
    let mut at = 0;
    for part in parts {
        builder.plan.steps.push(Step::Copy { from: part.columns, to, at });
        at += part.columns.width;
    }
    builder.name(output_name(node, 0)?, output)
}
