//! Operators of `ai.onnx`: products and arithmetic with constants, activations, `ArgMax`.

use spinfer_backend::{Error, TensorType};

use super::last_axis;
use crate::attributes::Attributes;
use crate::builder::{Builder, has_input, output_name};
use crate::constant::Constant;
use crate::dense::Dense;
use crate::refusal::{invalid, unsupported};
use crate::rows::{Arithmetic, RowOp};
use crate::step::Step;
use spinfer_onnx::NodeProto;

/// A constant matrix of FP32, as (rows, columns, values).
fn matrix(
    node: &NodeProto,
    constant: Option<&Constant>,
) -> Result<(usize, usize, Vec<f32>), Error> {
    let Some(constant) = constant else {
        return Err(unsupported(node, "it multiplies two computed values"));
    };
    match (&constant.dims[..], constant.floats()) {
        (&[rows, columns], Some(values)) if !values.is_empty() => {
            Ok((rows, columns, values.to_vec()))
        }
        (dims, _) => Err(unsupported(
            node,
            format_args!("its constant has the shape {dims:?}, or is not FP32"),
        )),
    }
}

/// `A * B` with a constant `B`.
pub(super) fn mat_mul<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let (rows, columns, weights) = matrix(node, builder.constant(node, 1)?.as_ref())?;
    push(builder, node, rows, columns, |k, j| weights[k * columns + j], |_| 0.0)
}

/// `alpha * A * B' + beta * C` with constants `B` and `C`; `B'` is `B` or its transpose.
pub(super) fn gemm<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    let attributes = Attributes(node);
    let (alpha, beta) = (attributes.float("alpha", 1.0), attributes.float("beta", 1.0));
    if attributes.int("transA", 0) != 0 {
        return Err(unsupported(node, "it transposes the batch"));
    }
    let (rows, columns, weights) = matrix(node, builder.constant(node, 1)?.as_ref())?;
    let transposed = attributes.int("transB", 0) != 0;
    let (inputs, outputs) = if transposed { (columns, rows) } else { (rows, columns) };
    let bias = if has_input(node, 2) {
        let constant = builder.constant(node, 2)?;
        let constant = constant.ok_or_else(|| unsupported(node, "its C is computed"))?;
        broadcast(node, &constant, &[outputs])?
    } else {
        vec![0.0]
    };
    let weight = |k: usize, j: usize| {
        alpha * weights[if transposed { j * columns + k } else { k * columns + j }]
    };
    let bias = |j: usize| beta * bias[if bias.len() == 1 { 0 } else { j }];
    push(builder, node, inputs, outputs, weight, bias)
}

fn push<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
    inputs: usize,
    outputs: usize,
    weight: impl Fn(usize, usize) -> f32,
    bias: impl Fn(usize) -> f32,
) -> Result<(), Error> {
    let input = builder.floats(node, 0)?;
    if input.columns.width != inputs {
        let width = input.columns.width;
        return Err(invalid(
            node,
            format_args!("it multiplies rows of {width} by a matrix of {inputs} rows"),
        ));
    }
    let output = builder.new_value(node, TensorType::Fp32, &[outputs])?;
    let dense = Dense::new((inputs, outputs), weight, bias);
    builder.plan.steps.push(Step::Dense { from: input.columns, to: output.columns, dense });
    builder.name(output_name(node, 0)?, output)
}

/// The values of a constant that broadcasts over every axis but the last: one, or one for each
/// column.
fn broadcast(node: &NodeProto, constant: &Constant, tail: &[usize]) -> Result<Vec<f32>, Error> {
    let last = tail.last().copied().unwrap_or(1);
    let (columns, leading) = constant.dims.split_last().map_or((1, &[][..]), |(c, l)| (*c, l));
    let fits = constant.dims.len() <= tail.len() + 1
        && leading.iter().all(|&axis| axis == 1)
        && (columns == 1 || (columns == last && !tail.is_empty()));
    match constant.floats() {
        Some(values) if fits => Ok(values.to_vec()),
        _ => {
            let dims = &constant.dims;
            Err(unsupported(
                node,
                format_args!("its constant has the shape {dims:?}, or is not FP32"),
            ))
        }
    }
}

/// `Add`, `Sub`, `Mul`, `Div` of a computed value and a constant, in either order.
pub(super) fn arithmetic<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
    operator: &str,
) -> Result<(), Error> {
    let (value, constant) = match (builder.constant(node, 0)?, builder.constant(node, 1)?) {
        (None, Some(constant)) => (0, constant),
        (Some(constant), None) => (1, constant),
        _ => return Err(unsupported(node, "not exactly one of its operands is a constant")),
    };
    let op = match (operator, value) {
        ("Add", _) => Arithmetic::Add,
        ("Mul", _) => Arithmetic::Mul,
        ("Sub", 0) => Arithmetic::Sub,
        ("Sub", _) => Arithmetic::SubFrom,
        (_, 0) => Arithmetic::Div,
        (_, _) => Arithmetic::DivInto,
    };
    let value = builder.input(node, value)?;
    if value.ty != TensorType::Fp32 || value.transposed {
        return Err(unsupported(node, "its input is not rows of FP32"));
    }
    let constant = broadcast(node, &constant, &value.tail)?;
    builder.rows(node, value, RowOp::Arithmetic(op, constant))
}

pub(super) fn activation<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
    operator: &str,
) -> Result<(), Error> {
    let op = match operator {
        "Relu" => RowOp::Relu,
        "LeakyRelu" => RowOp::LeakyRelu(Attributes(node).float("alpha", 0.01)),
        "Tanh" => RowOp::Tanh,
        _ => RowOp::Sigmoid,
    };
    let value = builder.input(node, 0)?;
    if value.ty != TensorType::Fp32 || value.transposed {
        return Err(unsupported(node, "its input is not rows of FP32"));
    }
    builder.rows(node, value, op)
}

/// Over the last axis of a matrix, where all versions of `Softmax` agree.
pub(super) fn softmax<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    last_axis(node, -1)?;
    let value = builder.floats(node, 0)?;
    builder.rows(node, value, RowOp::Softmax)
}

pub(super) fn arg_max<'a>(builder: &mut Builder<'a>, node: &'a NodeProto) -> Result<(), Error> {
    last_axis(node, 0)?;
    let attributes = Attributes(node);
    let input = builder.floats(node, 0)?;
    let tail: &[usize] = if attributes.int("keepdims", 1) != 0 { &[1] } else { &[] };
    let output = builder.new_value(node, TensorType::I64, tail)?;
    let (from, to) = (input.columns, output.columns);
    let last = attributes.int("select_last_index", 0) != 0;
    builder.plan.steps.push(Step::ArgMax { from, to, last });
    builder.name(output_name(node, 0)?, output)
}
