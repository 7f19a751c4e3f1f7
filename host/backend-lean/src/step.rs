//! Steps of a plan, and their evaluation.

use fearless_simd::Level;
use spinfer_backend::Error;

use crate::dense::Dense;
use crate::post_transform::logistic;
use crate::rows::RowOp;
use crate::scratch::{Area, Columns, Scratch};
use crate::tree::{Classifier, Regressor};

/// One operation from columns to columns.
#[derive(Debug)]
pub(crate) enum Step {
    /// Copies columns into those of `to` that start at `at`.
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
    /// `Scaler` of FP64: `(x - offset) * scale` in FP64, then rounded to FP32.
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
    /// The label of a linear classifier, from the scores of each row.
    Label {
        from: Columns,
        to: Columns,
        labels: Labels,
    },
    /// Two scores from one score `s`: `f(-s), f(s)` where `f` is the logistic function, or
    /// `1 - s, s`.
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
    /// The index of the greatest value of each row; of equal values the first, or the `last`.
    ArgMax {
        from: Columns,
        to: Columns,
        last: bool,
    },
    /// The entry of `table` at a computed index.
    Lookup {
        from: Columns,
        to: Columns,
        table: Vec<i64>,
    },
}

/// The labels of a linear classifier.
#[derive(Debug)]
pub(crate) enum Labels {
    /// For one score: the second label if the score is above 0, else the first.
    Sign([i64; 2]),
    /// For several scores: the label of the greatest, the first of equal ones.
    Greatest(Vec<i64>),
}

impl Step {
    pub(crate) fn run(&self, area: Area, scratch: &mut Scratch) -> Result<(), Error> {
        let Scratch { floats, doubles, ints } = scratch;
        match self {
            Self::Copy { from, to, at } => {
                let (x, y) = area.pair(floats, *from, *to);
                for (x, y) in x.chunks_exact(from.width).zip(y.chunks_exact_mut(to.width)) {
                    y[*at..at + from.width].copy_from_slice(x);
                }
            }
            Self::DoubleToFloat { from, to } => {
                #[expect(clippy::cast_possible_truncation, reason = "Cast")]
                convert(area.of(doubles, *from), area.of_mut(floats, *to), |x| x as f32);
            }
            Self::IntToFloat { from, to } => {
                convert(area.of(ints, *from), area.of_mut(floats, *to), |x| x as f32);
            }
            Self::FloatToInt { from, to } => {
                #[expect(clippy::cast_possible_truncation, reason = "Cast")]
                convert(area.of(floats, *from), area.of_mut(ints, *to), |x| x as i64);
            }
            Self::ScaleDoubles { from, to, offset, scale } => {
                let x = area.of(doubles, *from).chunks_exact(from.width);
                let y = area.of_mut(floats, *to).chunks_exact_mut(from.width);
                for (x, y) in x.zip(y) {
                    for (((x, y), offset), scale) in x.iter().zip(y).zip(offset).zip(scale) {
                        #[expect(clippy::cast_possible_truncation, reason = "the output is FP32")]
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
                        Error::Runtime(format!(
                            "index {index} is out of range: there are {} classes",
                            table.len()
                        ))
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

/// The index of the greatest value; of equal ones the first, or the `last`.
fn index_of_max(row: &[f32], last: bool) -> usize {
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
