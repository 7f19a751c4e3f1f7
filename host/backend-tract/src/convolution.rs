//! `Conv` of images whose rows lie in memory one after the other. tract's own writes every window of the
//! image out, nine times the image for windows of 3 x 3, and multiplies that. Here the image is copied once,
//! padded: what one weight is multiplied with for all windows is then one stretch of memory, and a product
//! of matrices reads it where it is.
//!
//! `sum[o][y][x] = bias[o] + sum_c,i,j weight[o][c][i][j] * image[c][y * stride + i * dilation - before][..]`
//! in FP32, in the order of `c`, `i`, `j`, whatever else is in the batch.

use std::sync::Arc;

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, f32x4, f32x8, f32x16};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::math::Max;
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_hir::internal::*;

use crate::image::{Axis, axes};

/// Channels of a block: what is computed at once of one stretch of the image.
const BLOCK: usize = 8;
/// Windows are computed in so many at a time, or multiples of it.
const LANES: usize = 8;
/// Numbers of a cache line.
const LINE: usize = 16;
/// What a window may reach over, and an image be padded with: a file that asks for more gets tract's,
/// which does not copy what is between.
const MAX_REACH: usize = 32;

/// Puts it in place of tract's, with the `Relu` that follows.
pub(crate) fn replace(model: &mut TypedModel) -> TractResult<()> {
    for id in model.eval_order()? {
        let node = model.node(id);
        let Some(filters) = filters(model, node)? else { continue };
        let rectified = rectified(model, node)?;
        let op = PlaneConv { filters: Arc::new(filters), rectified: rectified.is_some() };
        let mut patch = TypedModelPatch::default();
        let input = patch.tap_model(model, node.inputs[0])?;
        let output = patch.wire_node(&node.name, op, &[input])?;
        let replaced = rectified.unwrap_or(id);
        patch.shunt_outside(model, replaced.into(), output[0])?;
        patch.apply(model)?;
    }
    Ok(())
}

/// The filters of a convolution that is computed here.
fn filters(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Filters>> {
    let Some(conv) = node.op_as::<Conv>() else { return Ok(None) };
    let facts = model.node_input_facts(node.id)?;
    let (Some(weights), Some(bias)) = (&facts[1].konst, &facts[2].konst) else { return Ok(None) };
    let spec = &conv.pool_spec;
    let ours = conv.q_params.is_none()
        && conv.group == 1
        && conv.kernel_fmt == KernelFormat::OIHW
        && spec.rank() == 2
        && spec.data_format == DataFormat::NCHW
        && spec.output_channels >= BLOCK / 2
        && near(spec);
    let numbers = facts.iter().take(3).all(|fact| fact.datum_type == DatumType::F32);
    if !ours || !numbers || weights.is_exotic() || weights.len() == 0 {
        return Ok(None);
    }
    // One window has one number for each weight: nothing to do many of at a time.
    let windows = &model.outlet_fact(node.id.into())?.shape[2..];
    if windows.iter().all(|size| size.as_i64().is_some_and(|size| size <= 2)) {
        return Ok(None);
    }
    Filters::new(spec, weights, bias).map(Some)
}

/// Whether a padded image is not much larger than an image and a window.
fn near(spec: &PoolSpec) -> bool {
    let (strides, dilations) = (spec.strides(), spec.dilations());
    let reach = spec.kernel_shape.iter().zip(&*dilations).map(|(&k, &d)| k.saturating_mul(d));
    let padding = match &spec.padding {
        PaddingSpec::Explicit(before, after) => before.iter().chain(after).copied().max(),
        PaddingSpec::Valid | PaddingSpec::SameUpper | PaddingSpec::SameLower => None,
        // Of pools only.
        PaddingSpec::ExplicitOnnxPool(..) => return false,
    };
    let sizes = reach.chain(strides.iter().copied()).chain(padding);
    sizes.max() <= Some(MAX_REACH) && !strides.contains(&0)
}

/// The node that replaces what is negative by 0, if it is all that reads this one.
fn rectified(model: &TypedModel, node: &TypedNode) -> TractResult<Option<usize>> {
    let output = OutletId::from(node.id);
    let Some(next) = model.single_succ(node.id)? else { return Ok(None) };
    let Some(TypedBinOp(op, _)) = next.op_as::<TypedBinOp>() else { return Ok(None) };
    if !op.is::<Max>() || model.output_outlets()?.contains(&output) {
        return Ok(None);
    }
    let other = next.inputs.iter().find(|&&input| input != output);
    let bound = other.map(|&other| model.outlet_fact(other)).transpose()?;
    let bound = bound.and_then(|fact| fact.konst.as_ref());
    let zero = bound.map(|bound| bound.is_all_zero()).transpose()?.unwrap_or(false);
    let same = model.outlet_fact(output)?.shape == model.outlet_fact(next.id.into())?.shape;
    Ok((zero && same).then_some(next.id))
}

/// The weights of all channels.
#[derive(Debug, PartialEq)]
struct Filters {
    spec: PoolSpec,
    /// Block by block, in each for `c`, `i`, `j` one weight of each channel, 0 of those that are not.
    weights: Vec<[f32; BLOCK]>,
    bias: Vec<f32>,
}

impl Filters {
    fn new(spec: &PoolSpec, weights: &Tensor, bias: &Tensor) -> TractResult<Self> {
        let (channels, bias) = (spec.output_channels, bias.try_as_plain_ram()?);
        let bias = bias.as_slice::<f32>()?;
        let bias = (0..channels).map(|o| if bias.len() == 1 { bias[0] } else { bias[o] }).collect();
        let weights = weights.try_as_plain_ram()?;
        let weights = weights.as_slice::<f32>()?;
        let terms = weights.len() / channels;
        let weight = |o: usize, k: usize| if o < channels { weights[o * terms + k] } else { 0.0 };
        let block = |o: usize, k: usize| std::array::from_fn(|i| weight(o + i, k));
        let blocks = (0..channels).step_by(BLOCK);
        let weights = blocks.flat_map(|o| (0..terms).map(move |k| block(o, k))).collect();
        Ok(Self { spec: spec.clone(), weights, bias })
    }

    /// `level` says which vectors there are.
    fn run(
        &self,
        level: Level,
        shape: [usize; 3],
        images: &[f32],
        rectified: bool,
        sums: &mut [f32],
    ) {
        let [channels, height, width] = shape;
        let (rows, columns) = axes(&self.spec, height, width);
        let (image, windows) = (channels * height * width, rows.windows * columns.windows);
        if windows == 0 {
            return;
        }
        let layout = Layout::new(channels, rows, columns);
        let mut padded = vec![0.0; layout.len()];
        let blocks = self.bias.len().div_ceil(BLOCK);
        let mut wide = vec![0.0; blocks * BLOCK * layout.width()];
        let offsets = layout.offsets();
        let sums = sums.chunks_exact_mut(self.bias.len() * windows);
        for (number, sums) in sums.enumerate() {
            layout.copy(&images[number * image..][..image], &mut padded);
            dispatch!(level, simd => {
                self.product(simd, &padded, &offsets, &mut wide);
                self.finish(simd, &layout, &wide, rectified, sums);
            });
        }
    }

    // What holds a vector is inlined into the function that `dispatch` compiles for its instructions;
    // so is what has only to be compiled for them.

    /// Of each channel one row of `wide`. Tiles of as many channels and vectors as the registers hold.
    #[inline(always)]
    fn product<S: Simd>(&self, simd: S, padded: &[f32], offsets: &[usize], wide: &mut [f32]) {
        if S::f32s::LEN >= 16 {
            let start = self.tiles::<S, f32x16<S>, 8, 2>(simd, 0, padded, offsets, wide);
            let start = self.tiles::<S, f32x16<S>, 8, 1>(simd, start, padded, offsets, wide);
            self.tiles::<S, f32x8<S>, 8, 1>(simd, start, padded, offsets, wide);
        } else if S::f32s::LEN >= 8 {
            let start = self.tiles::<S, f32x8<S>, 4, 2>(simd, 0, padded, offsets, wide);
            self.tiles::<S, f32x8<S>, 4, 1>(simd, start, padded, offsets, wide);
        } else {
            self.tiles::<S, f32x4<S>, 4, 2>(simd, 0, padded, offsets, wide);
        }
    }

    /// Tiles of `CHANNELS` channels and `VECTORS` vectors from window `start` on, as many as fit. Gives the
    /// window after the last.
    #[inline(always)]
    fn tiles<
        S: Simd,
        V: SimdFloat<S, Element = f32>,
        const CHANNELS: usize,
        const VECTORS: usize,
    >(
        &self,
        simd: S,
        mut start: usize,
        padded: &[f32],
        offsets: &[usize],
        wide: &mut [f32],
    ) -> usize {
        let blocks = self.bias.len().div_ceil(BLOCK);
        let width = wide.len() / (blocks * BLOCK);
        while start + VECTORS * V::LEN <= width {
            let padded = &padded[start..];
            let blocks = self.weights.chunks_exact(offsets.len());
            for (weights, wide) in blocks.zip(wide.chunks_exact_mut(BLOCK * width)) {
                let parts = wide.chunks_exact_mut(CHANNELS * width).enumerate();
                for (part, wide) in parts {
                    let channel = part * CHANNELS;
                    let sums =
                        tile::<S, V, CHANNELS, VECTORS>(simd, padded, offsets, weights, channel);
                    for (sums, wide) in sums.iter().zip(wide.chunks_exact_mut(width)) {
                        let wide = wide[start..].chunks_exact_mut(V::LEN);
                        sums.iter().zip(wide).for_each(|(sum, wide)| sum.store_slice(wide));
                    }
                }
            }
            start += VECTORS * V::LEN;
        }
        start
    }

    /// Takes out what is between the rows of windows, and adds what is added to all sums of a channel.
    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        _: S,
        layout: &Layout,
        wide: &[f32],
        rectified: bool,
        sums: &mut [f32],
    ) {
        let windows = layout.rows.windows * layout.columns.windows;
        let wide = wide.chunks_exact(layout.width()).zip(&self.bias);
        for (sums, (wide, bias)) in sums.chunks_exact_mut(windows).zip(wide) {
            let rows = wide.chunks(layout.pitch);
            for (sums, wide) in sums.chunks_exact_mut(layout.columns.windows).zip(rows) {
                for (sum, wide) in sums.iter_mut().zip(wide) {
                    *sum = wide + bias;
                    // What is not a number becomes 0.
                    *sum = if !rectified || *sum > 0.0 { *sum } else { 0.0 };
                }
            }
        }
    }
}

/// `CHANNELS` channels of a block, from `channel` on, by `VECTORS` vectors of windows.
#[inline(always)]
fn tile<S: Simd, V: SimdFloat<S, Element = f32>, const CHANNELS: usize, const VECTORS: usize>(
    simd: S,
    padded: &[f32],
    offsets: &[usize],
    weights: &[[f32; BLOCK]],
    channel: usize,
) -> [[V; VECTORS]; CHANNELS] {
    let mut sums = [[V::simd_from(simd, 0.0); VECTORS]; CHANNELS];
    for (weights, &offset) in weights.iter().zip(offsets) {
        let weights = &weights[channel..][..CHANNELS];
        let values = &padded[offset..][..VECTORS * V::LEN];
        for v in 0..VECTORS {
            let values = V::from_slice(simd, &values[v * V::LEN..][..V::LEN]);
            for o in 0..CHANNELS {
                sums[o][v] = values.mul_add(weights[o], sums[o][v]);
            }
        }
    }
    sums
}

/// Where the numbers of a padded image are. Where windows move by more than one, what lies that far apart
/// lies together: for a step of 2 the even rows and the odd ones, of each the even columns and the odd ones.
struct Layout {
    rows: Axis,
    columns: Axis,
    channels: usize,
    /// Numbers of a row.
    pitch: usize,
    /// Numbers of the rows that lie together.
    plane: usize,
    /// Numbers of a channel.
    channel: usize,
}

impl Layout {
    /// At least one window.
    fn new(channels: usize, rows: Axis, columns: Axis) -> Self {
        // Between two rows is one padding: the right of one, the left of the next.
        let pitch = match columns.stride {
            1 => span(&columns).saturating_sub(columns.before).max(columns.before + seen(&columns)),
            stride => span(&columns).div_ceil(stride),
        };
        let pitch = pitch.max(columns.windows);
        let plane = span(&rows).div_ceil(rows.stride) * pitch;
        // An odd number of cache lines: a power of two has all channels at the same places of a cache.
        let channel = ((rows.stride * columns.stride * plane).div_ceil(LINE) | 1) * LINE;
        Self { rows, columns, channels, pitch, plane, channel }
    }

    /// Numbers of one sum for each window, and of what is between the rows of windows; whole vectors.
    fn width(&self) -> usize {
        let windows = (self.rows.windows - 1) * self.pitch + self.columns.windows;
        windows.next_multiple_of(LANES)
    }

    /// Numbers of a padded image. The last row's padding, and the last vector, may reach over its end.
    fn len(&self) -> usize {
        self.channels * self.channel + self.pitch + LANES
    }

    /// Where a row or a column is of those that lie together, and with which it does.
    fn place(&self, row: usize, column: usize) -> usize {
        let group = row % self.rows.stride * self.columns.stride + column % self.columns.stride;
        let within = row / self.rows.stride * self.pitch + column / self.columns.stride;
        group * self.plane + within
    }

    /// Where the first window finds what each weight is multiplied with.
    fn offsets(&self) -> Vec<usize> {
        let mut offsets = Vec::new();
        for channel in 0..self.channels {
            for row in 0..self.rows.kernel {
                for column in 0..self.columns.kernel {
                    let place =
                        self.place(row * self.rows.dilation, column * self.columns.dilation);
                    offsets.push(channel * self.channel + place);
                }
            }
        }
        offsets
    }

    /// `padded` has zeros wherever the image is not.
    fn copy(&self, image: &[f32], padded: &mut [f32]) {
        let (rows, columns) = (&self.rows, &self.columns);
        if image.is_empty() {
            return;
        }
        let seen = seen(columns);
        let channels = image.chunks_exact(rows.size * columns.size);
        for (image, padded) in channels.zip(padded.chunks_exact_mut(self.channel)) {
            let image = image.chunks_exact(columns.size).take(self::seen(rows));
            for (row, numbers) in image.enumerate() {
                let row = row + rows.before;
                if columns.stride == 1 {
                    let place = self.place(row, columns.before);
                    padded[place..][..seen].copy_from_slice(&numbers[..seen]);
                } else {
                    for (column, &number) in numbers[..seen].iter().enumerate() {
                        padded[self.place(row, column + columns.before)] = number;
                    }
                }
            }
        }
    }
}

/// Numbers from the first of the first window to the last of the last.
fn span(axis: &Axis) -> usize {
    (axis.windows - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
}

/// Numbers of the image that are in a window, or between two.
fn seen(axis: &Axis) -> usize {
    span(axis).saturating_sub(axis.before).min(axis.size)
}

/// Of FP32, in two dimensions, channels before rows.
#[derive(Clone, Debug, PartialEq)]
struct PlaneConv {
    filters: Arc<Filters>,
    /// Whether what is negative becomes 0.
    rectified: bool,
}

impl Eq for PlaneConv {}

impl Op for PlaneConv {
    fn name(&self) -> StaticName {
        "PlaneConv".into()
    }

    op_as_typed_op!();
}

impl EvalOp for PlaneConv {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let shape = self.filters.spec.output_shape(input.shape())?;
        let mut output = Tensor::zero::<f32>(&shape.shape)?;
        let [_, channels, height, width] = *input.shape() else { bail!("no images") };
        let (plain, mut plain_output) = (input.try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let (images, sums) = (plain.as_slice()?, plain_output.as_slice_mut::<f32>()?);
        self.filters.run(Level::new(), [channels, height, width], images, self.rectified, sums);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for PlaneConv {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.filters.spec.output_facts(inputs)
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tests::specs;

    /// Values between -1 and 1 that repeat after 997.
    fn values(shape: &[usize]) -> Tensor {
        let values =
            (0..shape.iter().product()).map(|i: usize| (i * 7919 % 997) as f32 / 498.5 - 1.0);
        Tensor::from_shape(shape, &values.collect::<Vec<f32>>()).unwrap()
    }

    /// A graph of one convolution, of images of any number, with what may follow it.
    fn graph(spec: &PoolSpec, (height, width): (usize, usize), next: Option<f32>) -> TypedModel {
        let mut model = TypedModel::default();
        let batch = model.symbols.sym("N").to_dim();
        let shape = [batch, spec.input_channels.to_dim(), height.to_dim(), width.to_dim()];
        let image = model.add_source("image", f32::fact(shape)).unwrap();
        let kernel =
            [spec.output_channels, spec.input_channels, spec.kernel_shape[0], spec.kernel_shape[1]];
        let weights = model.add_const("weights", values(&kernel)).unwrap();
        let bias = model.add_const("bias", values(&[spec.output_channels])).unwrap();
        let conv = Conv::new(spec.clone(), KernelFormat::OIHW, 1, None);
        let mut output = model.wire_node("conv", conv, &[image, weights, bias]).unwrap();
        if let Some(bound) = next {
            let bound = tensor0(bound).into_shape(&[1, 1, 1, 1]).unwrap();
            let bound = model.add_const("bound", bound).unwrap();
            let max = tract_onnx::tract_core::ops::math::max();
            output = model.wire_node("max", max, &[output[0], bound]).unwrap();
        }
        model.select_output_outlets(&output).unwrap();
        model
    }

    fn names(model: &TypedModel) -> Vec<String> {
        let order = model.eval_order().unwrap();
        let names = order.into_iter().map(|id| model.node(id).op.name().to_string());
        names.filter(|name| !matches!(name.as_str(), "Source" | "Const")).collect()
    }

    fn run(model: TypedModel, image: &Tensor) -> Tensor {
        let plan = model.into_optimized().unwrap().into_runnable().unwrap();
        plan.run(tvec!(image.clone().into_tvalue())).unwrap().remove(0).into_tensor()
    }

    /// What this processor has, the best first.
    fn levels() -> Vec<Level> {
        let best = Level::new();
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "the others have one"))]
        let mut levels = vec![best];
        #[cfg(target_arch = "x86_64")]
        levels.extend(
            [best.as_avx2().map(Level::Avx2), best.as_sse2().map(Level::Sse2)]
                .into_iter()
                .flatten(),
        );
        levels
    }

    /// Up to 28 terms of at most 1, each rounded.
    fn close(got: &Tensor, expected: &Tensor) {
        assert_eq!(got.shape(), expected.shape());
        let (got, expected) = (got.view(), expected.view());
        let (got, expected) = (got.as_slice::<f32>().unwrap(), expected.as_slice::<f32>().unwrap());
        for (got, expected) in got.iter().zip(expected) {
            assert!(got == expected || (got - expected).abs() <= 1e-5, "{got}, not {expected}");
        }
    }

    proptest! {
        /// Of every window, padding, step and image, with every vector; an image alone gives the same bits.
        #[test]
        fn the_sums_are_those_of_tract(
            spec in (1..4_usize, 4..20_usize).prop_flat_map(specs),
            size in (11..20_usize, 11..60_usize),
            rectified in any::<bool>(),
        ) {
            prop_assume!(near(&spec));
            let model = graph(&spec, size, rectified.then_some(0.0));
            let mut ours = model.clone();
            replace(&mut ours).unwrap();
            prop_assert_eq!(names(&ours), ["PlaneConv"]);
            let images = values(&[3, spec.input_channels, size.0, size.1]);
            let expected = run(model, &images);
            let got = run(ours.clone(), &images);
            close(&got, &expected);
            let last = images.slice(0, 2, 3).unwrap();
            let alone = run(ours, &last);
            prop_assert_eq!(alone, got.slice(0, 2, 3).unwrap());
            let constant = |name: &str| {
                let model = graph(&spec, size, None);
                model.node_by_name(name).unwrap().outputs[0].fact.konst.clone().unwrap()
            };
            let filters = Filters::new(&spec, &constant("weights"), &constant("bias")).unwrap();
            for level in levels() {
                let mut sums = Tensor::zero::<f32>(expected.shape()).unwrap();
                {
                    let (images, mut sums) = (images.view(), sums.view_mut());
                    let shape = [spec.input_channels, size.0, size.1];
                    let (images, sums) = (images.as_slice().unwrap(), sums.as_slice_mut().unwrap());
                    filters.run(level, shape, images, rectified, sums);
                }
                close(&sums, &expected);
            }
        }
    }

    fn spec(kernel: usize, dilation: usize, padding: usize, channels: usize) -> PoolSpec {
        let both = |size| tvec![size, size];
        let padding = PaddingSpec::Explicit(both(padding), both(padding));
        let (dilations, strides) = (Some(both(dilation)), Some(both(1)));
        PoolSpec::new(DataFormat::NCHW, both(kernel), padding, dilations, strides, 2, channels)
    }

    #[test]
    fn what_is_better_left_to_tract_is() {
        let replaced = |spec: PoolSpec, size: usize, next: Option<f32>| {
            let mut model = graph(&spec, (size, size), next);
            replace(&mut model).unwrap();
            names(&model)
        };
        assert_eq!(replaced(spec(3, 1, 1, 8), 5, None), ["PlaneConv"]);
        assert_eq!(replaced(spec(3, 1, 1, 2), 5, None), ["Conv"], "few channels");
        assert_eq!(replaced(spec(3, 1, 1, 8), 2, None), ["Conv"], "few windows");
        assert_eq!(replaced(spec(2, 40, 40, 8), 5, None), ["Conv"], "a far reach");
        assert_eq!(replaced(spec(3, 1, 1000, 8), 5, None), ["Conv"], "much padding");
        assert_eq!(replaced(spec(3, 1, 1, 8), 5, Some(1.0)), ["PlaneConv", "Max"], "not Relu");
    }

    /// Rows lie next to each other, and vectors reach over their ends.
    #[test]
    fn what_is_infinite_stays_in_its_windows() {
        let model = graph(&spec(3, 1, 1, 8), (5, 5), Some(0.0));
        let mut images = values(&[1, 2, 5, 5]);
        images.view_mut().as_slice_mut::<f32>().unwrap()[7] = f32::INFINITY;
        let expected = run(model.clone(), &images);
        let mut ours = model;
        replace(&mut ours).unwrap();
        close(&run(ours, &images), &expected);
    }
}
