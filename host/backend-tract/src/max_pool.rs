//! `MaxPool` of images whose rows lie in memory one after the other. tract's own looks at one number at
//! a time where a window moves by more than one; here the rows of a window are folded into one first,
//! many numbers at a time, and only what is left is folded number by number.

use tract_onnx::tract_core::ops::cnn::{MaxPool, PoolSpec};
use tract_onnx::tract_hir::internal::*;

use crate::image::{Axis, axes};

/// Puts it in place of tract's, where it computes the same.
pub(crate) fn replace(model: &mut TypedModel) -> TractResult<()> {
    for node in model.eval_order()? {
        let node = model.node(node);
        let Some(pool) = node.op_as::<MaxPool>() else { continue };
        let input = model.outlet_fact(node.inputs[0])?.datum_type;
        let spec = &pool.pool_spec;
        let planes = spec.rank() == 2 && !spec.data_format.c_is_last();
        if input != DatumType::F32 || !planes || pool.with_index_outputs.is_some() {
            continue;
        }
        let op = PlaneMaxPool { spec: spec.clone() };
        TypedModelPatch::replace_single_op(model, node, &node.inputs, op)?.apply(model)?;
    }
    Ok(())
}

/// Of FP32, in two dimensions, channels before rows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlaneMaxPool {
    spec: PoolSpec,
}

impl Op for PlaneMaxPool {
    fn name(&self) -> StaticName {
        "PlaneMaxPool".into()
    }

    op_as_typed_op!();
}

impl EvalOp for PlaneMaxPool {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let shape = self.spec.output_shape(input.shape())?;
        let mut output = Tensor::zero::<f32>(&shape.shape)?;
        let [.., height, width] = *input.shape() else { bail!("no image of two dimensions") };
        let (rows, columns) = axes(&self.spec, height, width);
        let plain = input.try_as_plain_ram()?;
        let mut plain_output = output.try_as_plain_ram_mut()?;
        pool(plain.as_slice()?, plain_output.as_slice_mut()?, &rows, &columns);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for PlaneMaxPool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.spec.output_facts(inputs)
    }

    as_op!();
}

impl Axis {
    /// Where a window's `tap`-th number is; `None` outside of the image.
    fn at(&self, window: usize, tap: usize) -> Option<usize> {
        let place = (window * self.stride + tap * self.dilation).checked_sub(self.before)?;
        (place < self.size).then_some(place)
    }

    /// The windows whose `tap`-th number is in the image.
    fn inside(&self, tap: usize) -> std::ops::Range<usize> {
        let offset = tap * self.dilation;
        let first = self.before.saturating_sub(offset).div_ceil(self.stride);
        let end = (self.size + self.before).saturating_sub(offset).div_ceil(self.stride);
        let end = end.min(self.windows);
        first.min(end)..end
    }
}

/// Images one after the other, and of each the maxima of its windows.
fn pool(images: &[f32], maxima: &mut [f32], rows: &Axis, columns: &Axis) {
    let (size, windows) = (rows.size * columns.size, rows.windows * columns.windows);
    if size == 0 || windows == 0 {
        return;
    }
    let mut folded = vec![0.0; rows.windows * columns.size];
    for (image, maxima) in images.chunks_exact(size).zip(maxima.chunks_exact_mut(windows)) {
        folded.fill(f32::MIN);
        for (window, folded) in folded.chunks_exact_mut(columns.size).enumerate() {
            for row in (0..rows.kernel).filter_map(|tap| rows.at(window, tap)) {
                fold(folded, &image[row * columns.size..][..columns.size]);
            }
        }
        if halves(columns) {
            // What most networks have, and the processor does many at a time.
            for (maximum, pair) in maxima.iter_mut().zip(folded.as_chunks::<2>().0) {
                *maximum = larger(pair[0], pair[1]);
            }
            continue;
        }
        maxima.fill(f32::MIN);
        let folded = folded.chunks_exact(columns.size);
        for (maxima, folded) in maxima.chunks_exact_mut(columns.windows).zip(folded) {
            for tap in 0..columns.kernel {
                let inside = columns.inside(tap);
                let Some(first) = columns.at(inside.start, tap) else { continue };
                let numbers = folded[first..].iter().step_by(columns.stride);
                for (maximum, &number) in maxima[inside].iter_mut().zip(numbers) {
                    *maximum = larger(*maximum, number);
                }
            }
        }
    }
}

/// Whether the windows are all numbers, in pairs.
fn halves(columns: &Axis) -> bool {
    let pairs = (columns.kernel, columns.stride, columns.dilation) == (2, 2, 1);
    pairs && columns.before == 0 && columns.windows * 2 == columns.size
}

fn fold(maxima: &mut [f32], numbers: &[f32]) {
    for (maximum, &number) in maxima.iter_mut().zip(numbers) {
        *maximum = larger(*maximum, number);
    }
}

/// As tract compares: what is not a number is not larger.
fn larger(maximum: f32, number: f32) -> f32 {
    if maximum < number { number } else { maximum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tests::specs;

    proptest! {
        /// Of every window, padding and step, with what is not a number and what is infinite.
        #[test]
        fn the_maxima_are_those_of_tract(
            spec in specs((3, 3)),
            (height, width) in (7..12_usize, 7..12_usize),
            values in prop::collection::vec(
                prop_oneof![8 => -9.0..9.0_f32, 1 => Just(f32::NAN), 1 => Just(f32::NEG_INFINITY)],
                2 * 3 * 12 * 12,
            ),
        ) {
            let shape = [2, 3, height, width];
            let values = &values[..shape.iter().product()];
            let input = Tensor::from_shape(&shape, values).unwrap().into_tvalue();
            // The one with indices goes window by window.
            let plain = MaxPool::new(spec.clone(), Some(DatumType::I64));
            let expected = plain.eval(&EvalContext::out_of_plan(), tvec!(input.clone())).unwrap();
            let ours = PlaneMaxPool { spec }.eval(&EvalContext::out_of_plan(), tvec!(input)).unwrap();
            prop_assert_eq!(&*ours[0], &*expected[0]);
        }
    }
}
