//! The product of rows with a constant matrix: `Gemm`, `MatMul`, and the linear models.
//!
//! `y[r][j] = sum_k x[r][k] * w[k][j] + bias[j]`, summed in the order of `k` in FP32. The matrix is
//! packed into panels of columns, each stored row after row, so that the inner loop reads it in
//! order and keeps one sum per column of the panel in registers: it vectorises without reordering
//! any sum.

/// Columns of a panel where the matrix has few: most linear models.
const NARROW: usize = 8;
/// Columns of a panel otherwise. Of 8, 16 and 32, with 1, 2 or 4 rows at a time, 32 with 1 was the
/// fastest for one row (1.2 microseconds for 64-128-64) and within 16 % of the best for 30 (16 with 2).
const WIDE: usize = 32;

#[derive(Debug)]
pub(crate) enum Dense {
    Narrow(Panels<NARROW>),
    Wide(Panels<WIDE>),
}

impl Dense {
    /// `weight(k, j)` for `inputs` rows `k` and `outputs` columns `j`; both at least 1.
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

    pub(crate) fn run(&self, x: &[f32], y: &mut [f32]) {
        match self {
            Self::Narrow(panels) => panels.run(x, y),
            Self::Wide(panels) => panels.run(x, y),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Panels<const LANES: usize> {
    panels: Vec<[f32; LANES]>,
    /// One per column, padded to whole panels.
    bias: Vec<[f32; LANES]>,
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
            std::array::from_fn(|i| if start + i < outputs { value(start + i) } else { 0.0 })
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

    fn run(&self, x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(self.inputs).zip(y.chunks_exact_mut(self.outputs)) {
            let panels = self.panels.chunks_exact(self.inputs);
            for ((panel, bias), y) in panels.zip(&self.bias).zip(y.chunks_mut(LANES)) {
                let mut sums = [0.0f32; LANES];
                for (weights, x) in panel.iter().zip(x) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum += x * weight;
                    }
                }
                for ((y, sum), bias) in y.iter_mut().zip(&sums).zip(bias) {
                    *y = sum + bias;
                }
            }
        }
    }
}
