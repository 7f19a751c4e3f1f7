//! Experiments: the format of `experiments.toml` ([`mod@format`]), changes without a restart
//! ([`change`]), and the assignment of requests: whether one is in an experiment ([`eligibility`]), and
//! which variant serves its unit ([`split`], [`router`]).
//!
//! Pure: no I/O, no clock. The router component assigns with it, and the host checks with it, so
//! both interpret a file the same way, and every node assigns a unit the same way.

pub mod change;
pub mod cookie;
pub mod eligibility;
pub mod format;
pub mod hash;
pub mod progress;
pub mod router;
pub mod split;
pub mod unit;

pub use change::{Change, key};
pub use eligibility::{Exclusion, Subject};
pub use format::{CONTROL, Experiment, Experiments, Invalid, Kind, Variant};
pub use router::{Assignment, Basis, Refusal, Router};
pub use split::Split;
pub use unit::Unit;
