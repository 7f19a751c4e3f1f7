//! A compiled graph: steps over columns of scratch memory, a block of rows at a time.
//!
//! Every value of the graph is a matrix with one row for each row of the batch, so the number of
//! its columns is known when the graph is loaded. A block has so few rows that its values stay in
//! the first-level cache, or in the second-level cache if they are wide. A step reads columns below
//! those it writes, or works in place.

use spinfer_backend::Error;

use crate::scratch::{Area, Scratch};
use crate::step::Step;

/// The steps of a graph, and the number of columns that they need of each arena.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) floats: usize,
    pub(crate) doubles: usize,
    pub(crate) ints: usize,
    /// Rows of a block, which are computed together.
    pub(crate) block: usize,
}

impl Plan {
    /// Sets the size of a block, from the number of columns.
    pub(crate) fn set_block(&mut self) {
        /// Size of a first-level data cache in FP32 numbers: 32 KiB.
        const FIRST_LEVEL: usize = 8192;
        /// Values that fit into a second-level cache along with some weights, in FP32 numbers: 512
        /// KiB.
        const SECOND_LEVEL: usize = 16 * FIRST_LEVEL;
        /// Rows of a block of wide layers. Weights are read once for each block, so more rows are
        /// worth more than values in the first-level cache.
        const REUSE_ROWS: usize = 48;
        /// With more rows the fixed costs of the steps are negligible already.
        const MAX_ROWS: usize = 64;
        let columns = (self.floats + 2 * (self.doubles + self.ints)).max(1);
        let rows = (SECOND_LEVEL / columns).min(REUSE_ROWS).max(FIRST_LEVEL / columns);
        self.block = rows.clamp(1, MAX_ROWS);
    }

    /// Runs every step on `rows` rows, at most one block.
    pub(crate) fn run(&self, rows: usize, scratch: &mut Scratch) -> Result<(), Error> {
        let area = Area { rows, block: self.block };
        self.steps.iter().try_for_each(|step| step.run(area, scratch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_fits_into_the_cache() {
        let block = |floats| {
            let mut plan = Plan { floats, ..Plan::default() };
            plan.set_block();
            plan.block
        };
        assert_eq!([0, 10, 140, 256].map(block), [64, 64, 58, 48]);
        assert_eq!([2826, 16 * 8192, 1 << 20].map(block), [46, 1, 1]);
    }
}
