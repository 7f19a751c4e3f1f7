//! Experiments: the format of `experiments.toml` ([`mod@format`]), changes without a restart
//! ([`change`]), and the assignment of units to variants ([`split`], [`router`]).
//!
//! Pure: no I/O, no clock. The router component assigns with it, and the host checks with it, so
//! both interpret a file the same way, and every node assigns a unit the same way.

pub mod change;
pub mod format;
pub mod hash;
pub mod router;
pub mod split;
pub mod unit;

pub use change::{Change, key};
pub use format::{CONTROL, Experiment, Experiments, Invalid, Kind, Variant};
pub use router::{Assignment, Refusal, Router};
pub use split::Split;
pub use unit::Unit;
