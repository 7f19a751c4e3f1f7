//! The product of rows with a constant matrix: `Gemm`, `MatMul`, and the linear models.
//!
//! `y[r][j] = sum_k x[r][k] * w[k][j] + bias[j]`, summed in the order of `k` in FP32. The matrix is
//! packed into panels of [`LANES`] columns, each stored row after row: the inner loop reads it in
//! order, and keeps one panel's worth of sums in registers.

/// Columns of a panel: sums that stay in registers and vectorise without reordering a sum.
const LANES: usize = 16;
/// Rows that share a pass over a panel in a batch.
const ROWS: usize = 4;

#[derive(Debug)]
pub(crate) struct Dense {
    panels: Vec<[f32; LANES]>,
    /// One per column, padded to whole panels.
    bias: Vec<[f32; LANES]>,
    inputs: usize,
    outputs: usize,
}

impl Dense {
    /// `weight(k, j)` for `inputs` rows `k` and `outputs` columns `j`; both at least 1.
    pub(crate) fn new(
        (inputs, outputs): (usize, usize),
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
    ) -> Self {
        let starts = (0..outputs).step_by(LANES);
        let panel = |start: usize, value: &dyn Fn(usize) -> f32| {
            std::array::from_fn(|i| if start + i < outputs { value(start + i) } else { 0.0 })
        };
        let panels = starts
            .clone()
            .flat_map(|start| (0..inputs).map(move |k| (start, k)))
            .map(|(start, k)| panel(start, &|j| weight(k, j)))
            .collect();
        let bias = starts.map(|start| panel(start, &bias)).collect();
        Self { panels, bias, inputs, outputs }
    }

    pub(crate) fn run(&self, x: &[f32], y: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let mut x = x.chunks_exact(ROWS * inputs);
        let mut y = y.chunks_exact_mut(ROWS * outputs);
        for (x, y) in (&mut x).zip(&mut y) {
            self.rows::<ROWS>(x, y);
        }
        let rest = x.remainder().chunks_exact(inputs);
        for (x, y) in rest.zip(y.into_remainder().chunks_exact_mut(outputs)) {
            self.rows::<1>(x, y);
        }
    }

    #[inline]
    fn rows<const R: usize>(&self, x: &[f32], y: &mut [f32]) {
        let panels = self.panels.chunks_exact(self.inputs);
        let starts = (0..self.outputs).step_by(LANES);
        let x: [&[f32]; R] = std::array::from_fn(|r| &x[r * self.inputs..(r + 1) * self.inputs]);
        for ((panel, bias), start) in panels.zip(&self.bias).zip(starts) {
            let mut sums = [[0.0f32; LANES]; R];
            for (k, weights) in panel.iter().enumerate() {
                for (sums, x) in sums.iter_mut().zip(&x) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum += x[k] * weight;
                    }
                }
            }
            let end = self.outputs.min(start + LANES);
            for (r, sums) in sums.iter().enumerate() {
                let y = &mut y[r * self.outputs + start..r * self.outputs + end];
                for ((y, sum), bias) in y.iter_mut().zip(sums).zip(bias) {
                    *y = sum + bias;
                }
            }
        }
    }
}
