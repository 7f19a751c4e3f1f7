//! Products of rows with a constant matrix: `Gemm`, `MatMul`, and the linear models.
//!
//! `y[r][j] = sum_k x[r][k] * w[k][j] + bias[j]` in FP32. The matrix is packed into panels of
//! columns, each stored row after row, so that the inner loop reads it in order and keeps one sum
//! per row and column of a tile in registers. Vectors are as wide as those of the processor, which
//! is detected at run time. Multiplication and addition are fused where the processor can, as in
//! ONNX Runtime. The order of a sum is that of `k`, or depends on the shape of the matrix: a row
//! has the same bits in any batch.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, f32x8, f32x16};

/// Columns of a panel of a matrix with as few columns: most linear models.
const NARROW: usize = 8;
/// Columns of any other panel: one vector of the widest registers, two or four of narrower ones.
const WIDE: usize = 16;
/// Terms from which on a narrow panel computes four partial sums: additions to one sum wait for
/// each other.
const LONG: usize = 32;

/// A constant matrix and a bias.
#[derive(Debug)]
pub(crate) enum Dense {
    Narrow(Panels<NARROW>),
    Wide(Panels<WIDE>),
}

impl Dense {
    /// A matrix of `shape`, `inputs` rows by `outputs` columns, both at least 1, with the elements
    /// `weight(k, j)` in row `k` and column `j`.
    pub(crate) fn new(
        shape: (usize, usize),
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
    ) -> Self {
        if shape.1 <= NARROW {
            Self::Narrow(Panels::new(shape, weight, bias))
        } else {
            Self::Wide(Panels::new(shape, weight, bias))
        }
    }

    /// Multiplies the rows `x` into `y`, with the vectors of `level`.
    pub(crate) fn run(&self, level: Level, x: &[f32], y: &mut [f32]) {
        match self {
            Self::Narrow(panels) => dispatch!(level, simd => panels.run_narrow(simd, x, y)),
            Self::Wide(panels) => dispatch!(level, simd => panels.run_wide(simd, x, y)),
        }
    }
}

/// One row of a panel. Aligned, so that no vector spans two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Lanes<const LANES: usize>([f32; LANES]);

#[derive(Debug)]
pub(crate) struct Panels<const LANES: usize> {
    panels: Vec<Lanes<LANES>>,
    /// One per column, padded to whole panels.
    bias: Vec<Lanes<LANES>>,
    inputs: usize,
    outputs: usize,
}

impl<const LANES: usize> Panels<LANES> {
    fn new(
        (inputs, outputs): (usize, usize),
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
    ) -> Self {
        let panel = |start: usize, value: &dyn Fn(usize) -> f32| {
            let value = |i| if start + i < outputs { value(start + i) } else { 0.0 };
            Lanes(std::array::from_fn(value))
        };
        let starts = (0..outputs).step_by(LANES);
        let panels = starts
            .clone()
            .flat_map(|start| (0..inputs).map(move |k| (start, k)))
            .map(|(start, k)| panel(start, &|j| weight(k, j)))
            .collect();
        let bias = starts.map(|start| panel(start, &bias)).collect();
        Self { panels, bias, inputs, outputs }
    }
}

// Functions with vectors are inlined into the function that `dispatch` compiles for the processor's
// instructions; closures would not be.

impl Panels<NARROW> {
    #[inline(always)]
    fn run_narrow<S: Simd>(&self, simd: S, x: &[f32], y: &mut [f32]) {
        if self.inputs < LONG {
            self.sums::<S, 1>(simd, x, y);
        } else {
            self.sums::<S, 4>(simd, x, y);
        }
    }

    /// Each sum is that of `PARTS` partial sums.
    #[inline(always)]
    fn sums<S: Simd, const PARTS: usize>(&self, simd: S, x: &[f32], y: &mut [f32]) {
        let (panel, panel_rest) = self.panels.as_chunks::<PARTS>();
        let bias = f32x8::simd_from(simd, self.bias[0].0);
        for (x, y) in x.chunks_exact(self.inputs).zip(y.chunks_exact_mut(self.outputs)) {
            let (x, x_rest) = x.as_chunks::<PARTS>();
            let mut parts = [f32x8::splat(simd, 0.0); PARTS];
            for (weights, x) in panel.iter().zip(x) {
                for ((part, weights), x) in parts.iter_mut().zip(weights).zip(x) {
                    *part = f32x8::simd_from(simd, weights.0).mul_add(*x, *part);
                }
            }
            for ((part, weights), x) in parts.iter_mut().zip(panel_rest).zip(x_rest) {
                *part = f32x8::simd_from(simd, weights.0).mul_add(*x, *part);
            }
            let mut sum = parts[0];
            for part in &parts[1..] {
                sum += *part;
            }
            let sum: [f32; NARROW] = (sum + bias).into();
            y.iter_mut().zip(&sum).for_each(|(y, sum)| *y = *sum);
        }
    }
}

impl Panels<WIDE> {
    /// Panel by panel, as a panel stays in a cache and the matrix may not. Within a panel in tiles
    /// of rows that fit into the registers. Of 2, 3, 4, 6, 8 and 12 rows at a time, 6 are
    /// the fastest with AVX2 and AVX-512 (106 GFLOPS; 4 and 8: at most 103), and 2 with SSE2 (39;
    /// 4: 30).
    #[inline(always)]
    fn run_wide<S: Simd>(&self, simd: S, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.inputs;
        let panels = self.bias.len();
        if rows == 1 {
            // One row has one sum per column of a panel: too few to keep a core busy.
            let four = panels / 4 * 4;
            for panel in (0..four).step_by(4) {
                self.tile::<S, 1, 4>(simd, panel, x, y);
            }
            for panel in four..panels {
                self.tile::<S, 1, 1>(simd, panel, x, y);
            }
            return;
        }
        for panel in 0..panels {
            let mut row = 0;
            if S::f32s::LEN >= 8 {
                row = self.tiles::<S, 6>(simd, panel, row, x, y);
                row = self.tiles::<S, 4>(simd, panel, row, x, y);
            }
            row = self.tiles::<S, 2>(simd, panel, row, x, y);
            self.tiles::<S, 1>(simd, panel, row, x, y);
        }
    }

    /// As many tiles of `ROWS` rows as fit, starting at `row`. Returns the row after the last.
    #[inline(always)]
    fn tiles<S: Simd, const ROWS: usize>(
        &self,
        simd: S,
        panel: usize,
        row: usize,
        x: &[f32],
        y: &mut [f32],
    ) -> usize {
        let x = x[row * self.inputs..].chunks_exact(ROWS * self.inputs);
        let y = y[row * self.outputs..].chunks_exact_mut(ROWS * self.outputs);
        let tiles = x.len();
        for (x, y) in x.zip(y) {
            self.tile::<S, ROWS, 1>(simd, panel, x, y);
        }
        row + tiles * ROWS
    }

    /// Multiplies `ROWS` rows by `PANELS` panels.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const PANELS: usize>(
        &self,
        simd: S,
        panel: usize,
        x: &[f32],
        y: &mut [f32],
    ) {
        let inputs = self.inputs;
        let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &x[r * inputs..][..inputs]);
        let panels: [&[Lanes<WIDE>]; PANELS] =
            std::array::from_fn(|p| &self.panels[(panel + p) * inputs..][..inputs]);
        let mut sums = [[f32x16::splat(simd, 0.0); PANELS]; ROWS];
        for k in 0..inputs {
            for p in 0..PANELS {
                let weights = f32x16::simd_from(simd, panels[p][k].0);
                for r in 0..ROWS {
                    sums[r][p] = weights.mul_add(rows[r][k], sums[r][p]);
                }
            }
        }
        for (sums, y) in sums.iter().zip(y.chunks_exact_mut(self.outputs)) {
            let columns = y[panel * WIDE..].chunks_mut(WIDE);
            for ((sum, bias), y) in sums.iter().zip(&self.bias[panel..]).zip(columns) {
                let sum: [f32; WIDE] = (*sum + f32x16::simd_from(simd, bias.0)).into();
                // A copy of known length is one store; any other is a call.
                match y.as_mut_array::<WIDE>() {
                    Some(y) => *y = sum,
                    None => y.copy_from_slice(&sum[..y.len()]),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The levels of this processor, the best first.
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

    /// Values between -1 and 1 with a period of 997.
    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i * 7919 % 997) as f32 / 498.5 - 1.0).collect()
    }

    #[test]
    fn sums_are_right_for_every_shape_and_vector() {
        for inputs in [1, 2, 3, 4, 7, 40] {
            for outputs in [1, 7, 8, 9, 16, 17, 64, 65, 130] {
                for rows in [0, 1, 2, 5, 6, 7, 13, 20] {
                    check(inputs, outputs, rows);
                }
            }
        }
    }

    fn check(inputs: usize, outputs: usize, rows: usize) {
        let weights = values(inputs * outputs);
        let weight = |k, j| weights[j * inputs + k];
        let dense = Dense::new((inputs, outputs), weight, |j| j as f32);
        let x = values(rows * inputs);
        for level in levels() {
            let mut y = vec![f32::NAN; rows * outputs];
            dense.run(level, &x, &mut y);
            for (i, &got) in y.iter().enumerate() {
                let (row, j) = (&x[i / outputs * inputs..][..inputs], i % outputs);
                let terms = row.iter().enumerate().map(|(k, x)| f64::from(x * weight(k, j)));
                let expected = terms.sum::<f64>() + j as f64;
                let off = (f64::from(got) - expected).abs() / expected.abs().max(1.0);
                assert!(off < 2e-6, "{level:?} {inputs} {outputs} {rows}: {got}, not {expected}");
            }
            for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)) {
                let mut alone = vec![f32::NAN; outputs];
                dense.run(level, x, &mut alone);
                assert_eq!(alone, y, "{level:?}: a row alone");
            }
        }
    }
}
