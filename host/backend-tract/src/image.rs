//! The two dimensions of an image that windows move over.

use tract_onnx::tract_core::ops::cnn::PoolSpec;

/// One dimension of the image, and the windows over it.
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// What the first window begins with of nothing.
    pub(crate) before: usize,
    pub(crate) windows: usize,
}

/// Rows and columns.
pub(crate) fn axes(spec: &PoolSpec, height: usize, width: usize) -> (Axis, Axis) {
    let padded = spec.computed_padding(&[height, width]);
    let axis = |axis: usize, size: usize| Axis {
        size,
        kernel: spec.kernel_shape[axis],
        stride: spec.stride(axis),
        dilation: spec.dilation(axis),
        before: padded[axis].pad_before,
        windows: padded[axis].convoluted,
    };
    (axis(0, height), axis(1, width))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use tract_onnx::tract_core::ops::cnn::PaddingSpec;
    use tract_onnx::tract_core::ops::nn::DataFormat;
    use tract_onnx::tract_hir::internal::tvec;

    use super::*;

    fn padding(height: usize, width: usize) -> impl Strategy<Value = PaddingSpec> {
        let both = || (0..=height, 0..=width).prop_map(|(h, w)| tvec![h, w]);
        prop_oneof![
            Just(PaddingSpec::Valid),
            Just(PaddingSpec::SameUpper),
            Just(PaddingSpec::SameLower),
            (both(), both()).prop_map(|(before, after)| PaddingSpec::Explicit(before, after)),
            (both(), both(), any::<bool>()).prop_map(|(before, after, ceil)| {
                PaddingSpec::ExplicitOnnxPool(before, after, ceil)
            }),
        ]
    }

    prop_compose! {
        /// Windows of every size, padding and step, with so many channels before and after.
        pub(crate) fn specs(channels: (usize, usize))(kernel in (1..4_usize, 1..4_usize))(
            padding in padding(kernel.0 - 1, kernel.1 - 1),
            stride in (1..4_usize, 1..4_usize),
            dilation in (1..3_usize, 1..3_usize),
            kernel in Just(kernel),
        ) -> PoolSpec {
            let pair = |(a, b)| tvec![a, b];
            let (kernel, dilation, stride) = (pair(kernel), Some(pair(dilation)), Some(pair(stride)));
            let (before, after) = channels;
            PoolSpec::new(DataFormat::NCHW, kernel, padding, dilation, stride, before, after)
        }
    }
}
