//! A compiled graph: steps over columns of scratch memory, a block of rows at a time.
//!
//! Every value of the graph is a matrix with one row for each row of the batch, so it is known at
//! load how many columns each needs. A block of rows is small enough for its values to stay in the
//! first-level cache, or of wide values in the second. A step reads columns below those it writes, or works in place.

use spinfer_backend::Error;

use crate::scratch::{Area, Scratch};
use crate::step::Step;

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
