//! Scratch memory: the values of one block of rows.

use crate::plan::Plan;

/// Columns of one of the three arenas of [`Scratch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) start: usize,
    pub(crate) width: usize,
}

/// Three arenas, each with the values of one element type.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) floats: Vec<f32>,
    pub(crate) doubles: Vec<f64>,
    pub(crate) ints: Vec<i64>,
}

impl Scratch {
    /// Grows to the size of a block of `plan`. It never shrinks.
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

/// The layout of a block: `rows` of at most `block` rows.
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

    /// Columns to read and columns to write of one arena; the first are below the second.
    pub(crate) fn pair<T>(self, arena: &mut [T], from: Columns, to: Columns) -> (&[T], &mut [T]) {
        let (low, high) = arena.split_at_mut(to.start * self.block);
        (self.of(low, from), &mut high[..to.width * self.rows])
    }
}
