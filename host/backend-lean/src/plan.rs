//! A compiled graph: steps over columns of scratch memory, a block of rows at a time.
//!
//! Every value of the graph is a matrix with one row for each row of the batch, so it is known at
//! load how many columns each needs. A block of rows is small enough for its values to stay in the
//! first-level cache, or of wide values in the second. A step reads columns below those it writes, or works in place.

use fearless_simd::Level;
use spinfer_backend::Error;

use crate::dense::Dense;
use crate::post_transform::logistic;
use crate::rows::RowOp;
use crate::tree::{Classifier, Regressor};

/// Columns of one of the three arenas of [`Scratch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) start: usize,
    pub(crate) width: usize,
}

/// What the values of one block of rows are computed in.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) floats: Vec<f32>,
    pub(crate) doubles: Vec<f64>,
    pub(crate) ints: Vec<i64>,
}

impl Scratch {
    /// Makes room for a block; memory is kept from call to call.
    pub(crate) fn reserve(&mut self, plan: &Plan) {
        fn grow<T: Clone + Default>(arena: &mut Vec<T>, len: usize) {
            if arena.len() < len {
                arena.resize(len, T::default());
            }
        }
        grow(&mut self.floats, plan.floats * plan.block);
        grow(&mut self.doubles, plan.doubles * plan.block);
        grow(&mut self.ints, plan.ints * plan.block);
    }
}

/// The steps of a graph and the columns they need of each arena.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) floats: usize,
    pub(crate) doubles: usize,
    pub(crate) ints: usize,
    /// Rows computed together.
    pub(crate) block: usize,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Copies columns to the columns from `at` on of `to`.
    Copy {
        from: Columns,
        to: Columns,
        at: usize,
    },
    DoubleToFloat {
        from: Columns,
        to: Columns,
    },
    IntToFloat {
        from: Columns,
        to: Columns,
    },
    FloatToInt {
        from: Columns,
        to: Columns,
    },
    /// `Scaler` of FP64: `(x - offset) * scale` in FP64, then rounded.
    ScaleDoubles {
        from: Columns,
        to: Columns,
        offset: Vec<f32>,
        scale: Vec<f32>,
    },
    Dense {
        from: Columns,
        to: Columns,
        dense: Dense,
    },
    Rows {
        at: Columns,
        op: RowOp,
    },
    /// The label of each row of a linear classifier's scores.
    Label {
        from: Columns,
        to: Columns,
        labels: Labels,
    },
    /// One score `s` becomes two: `f(-s), f(s)`, `f` being the logistic function, or `1 - s, s`.
    TwoClasses {
        from: Columns,
        to: Columns,
        logistic: bool,
    },
    Regress {
        from: Columns,
        to: Columns,
        trees: Regressor<f32>,
    },
    RegressDoubles {
        from: Columns,
        to: Columns,
        trees: Regressor<f64>,
    },
    Classify {
        from: Columns,
        labels: Columns,
        to: Columns,
        trees: Classifier<f32>,
    },
    ClassifyDoubles {
        from: Columns,
        labels: Columns,
        to: Columns,
        trees: Classifier<f64>,
    },
    ArgMax {
        from: Columns,
        to: Columns,
        last: bool,
    },
    Lookup {
        from: Columns,
        to: Columns,
        table: Vec<i64>,
    },
}

/// How a linear classifier names its classes.
#[derive(Debug)]
pub(crate) enum Labels {
    /// One score: the second label above 0, else the first.
    Sign([i64; 2]),
    /// The label of the greatest score, the first of equals.
    Greatest(Vec<i64>),
}

impl Plan {
    /// Sets the size of a block once all columns are known.
    pub(crate) fn set_block(&mut self) {
        /// 32 KiB of FP32: what a first-level data cache holds.
        const FIRST_LEVEL: usize = 8192;
        /// 512 KiB: what a second-level cache holds beside some weights.
        const SECOND_LEVEL: usize = 16 * FIRST_LEVEL;
        /// A network of wide layers reads its weights once for each block, so that these are worth
        /// more than values in the first cache.
        const REUSE_ROWS: usize = 48;
        /// More rows gain nothing: the steps' fixed costs are spread thin by then.
        const MAX_ROWS: usize = 64;
        let columns = (self.floats + 2 * (self.doubles + self.ints)).max(1);
        let rows = (SECOND_LEVEL / columns).min(REUSE_ROWS).max(FIRST_LEVEL / columns);
        self.block = rows.clamp(1, MAX_ROWS);
    }

    /// Runs every step on `rows` rows, at most a block.
    pub(crate) fn run(&self, rows: usize, scratch: &mut Scratch) -> Result<(), Error> {
        let area = Area { rows, block: self.block };
        self.steps.iter().try_for_each(|step| step.run(area, scratch))
    }
}

/// Where the columns of a block lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) rows: usize,
    pub(crate) block: usize,
}

impl Area {
    pub(crate) fn of<T>(self, arena: &[T], columns: Columns) -> &[T] {
        &arena[columns.start * self.block..][..columns.width * self.rows]
    }

    pub(crate) fn of_mut<T>(self, arena: &mut [T], columns: Columns) -> &mut [T] {
        &mut arena[columns.start * self.block..][..columns.width * self.rows]
    }

    /// Columns to read and columns to write of one arena, the first below the second.
    fn pair<T>(self, arena: &mut [T], from: Columns, to: Columns) -> (&[T], &mut [T]) {
        let (low, high) = arena.split_at_mut(to.start * self.block);
        (self.of(low, from), &mut high[..to.width * self.rows])
    }
}

impl Step {
    fn run(&self, area: Area, scratch: &mut Scratch) -> Result<(), Error> {
        let Scratch { floats, doubles, ints } = scratch;
        match self {
            Self::Copy { from, to, at } => {
                let (x, y) = area.pair(floats, *from, *to);
                for (x, y) in x.chunks_exact(from.width).zip(y.chunks_exact_mut(to.width)) {
                    y[*at..at + from.width].copy_from_slice(x);
                }
            }
            Self::DoubleToFloat { from, to } => {
                #[expect(clippy::cast_possible_truncation, reason = "what Cast says")]
                convert(area.of(doubles, *from), area.of_mut(floats, *to), |x| x as f32);
            }
            Self::IntToFloat { from, to } => {
                convert(area.of(ints, *from), area.of_mut(floats, *to), |x| x as f32);
            }
            Self::FloatToInt { from, to } => {
                #[expect(clippy::cast_possible_truncation, reason = "what Cast says")]
                convert(area.of(floats, *from), area.of_mut(ints, *to), |x| x as i64);
            }
            Self::ScaleDoubles { from, to, offset, scale } => {
                let x = area.of(doubles, *from).chunks_exact(from.width);
                let y = area.of_mut(floats, *to).chunks_exact_mut(from.width);
                for (x, y) in x.zip(y) {
                    for (((x, y), offset), scale) in x.iter().zip(y).zip(offset).zip(scale) {
                        #[expect(clippy::cast_possible_truncation, reason = "Scaler gives FP32")]
                        let scaled = ((x - f64::from(*offset)) * f64::from(*scale)) as f32;
                        *y = scaled;
                    }
                }
            }
            Self::Dense { from, to, dense } => {
                let (x, y) = area.pair(floats, *from, *to);
                dense.run(Level::new(), x, y);
            }
            Self::Rows { at, op } => op.run(area.of_mut(floats, *at), at.width),
            Self::Label { from, to, labels } => {
                let rows = area.of(floats, *from).chunks_exact(from.width);
                rows.zip(area.of_mut(ints, *to)).for_each(|(row, label)| *label = labels.of(row));
            }
            Self::TwoClasses { from, to, logistic: f } => {
                let (x, y) = area.pair(floats, *from, *to);
                for (&x, y) in x.iter().zip(y.as_chunks_mut().0) {
                    *y = if *f { [logistic(-x), logistic(x)] } else { [1.0 - x, x] };
                }
            }
            Self::Regress { from, to, trees } => {
                let (x, y) = area.pair(floats, *from, *to);
                trees.run(x, from.width, y);
            }
            Self::RegressDoubles { from, to, trees } => {
                trees.run(area.of(doubles, *from), from.width, area.of_mut(floats, *to));
            }
            Self::Classify { from, labels, to, trees } => {
                let (x, y) = area.pair(floats, *from, *to);
                trees.run(x, from.width, area.of_mut(ints, *labels), y);
            }
            Self::ClassifyDoubles { from, labels, to, trees } => {
                let (x, y) = (area.of(doubles, *from), area.of_mut(floats, *to));
                trees.run(x, from.width, area.of_mut(ints, *labels), y);
            }
            Self::ArgMax { from, to, last } => {
                let rows = area.of(floats, *from).chunks_exact(from.width);
                for (row, index) in rows.zip(area.of_mut(ints, *to)) {
                    *index = index_of_max(row, *last) as i64;
                }
            }
            Self::Lookup { from, to, table } => {
                let (x, y) = area.pair(ints, *from, *to);
                for (&index, y) in x.iter().zip(y) {
                    let entry = usize::try_from(index).ok().and_then(|index| table.get(index));
                    *y = *entry.ok_or_else(|| {
                        Error::Runtime(format!("index {index} into {} classes", table.len()))
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn convert<A: Copy, B>(from: &[A], to: &mut [B], convert: impl Fn(A) -> B) {
    from.iter().zip(to).for_each(|(x, y)| *y = convert(*x));
}

/// The index of the greatest, of equals the first or the last.
pub(crate) fn index_of_max(row: &[f32], last: bool) -> usize {
    let mut best = 0;
    for (index, x) in row.iter().enumerate() {
        if *x > row[best] || (last && *x == row[best]) {
            best = index;
        }
    }
    best
}

impl Labels {
    fn of(&self, row: &[f32]) -> i64 {
        match self {
            Self::Sign(labels) => labels[usize::from(row[0] > 0.0)],
            Self::Greatest(labels) => labels[index_of_max(row, false)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_as_large_as_its_cache_lets_it() {
        let block = |floats| {
            let mut plan = Plan { floats, ..Plan::default() };
            plan.set_block();
            plan.block
        };
        assert_eq!([0, 10, 140, 256].map(block), [64, 64, 58, 48]);
        assert_eq!([2826, 16 * 8192, 1 << 20].map(block), [46, 1, 1]);
    }
}
