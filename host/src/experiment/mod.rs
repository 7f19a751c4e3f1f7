//! Experiments in the host: checks at startup ([`check`]), routers and the counters of their
//! variants ([`router`]), what is known of an assigned request ([`assignment`]), the comparison of
//! shadows ([`agreement`]), and status and changes for operators ([`status`]). The router component
//! assigns requests to variants.

pub mod agreement;
pub mod assignment;
pub mod check;
pub mod router;
mod signature;
pub mod status;

pub use assignment::ServedAssignment;
pub use router::{Arm, ExperimentRouter};

/// Path at which a router mounts its experiments.
pub const FILE: &str = "/experiments.toml";
/// Label of the key-value store with the changes, which the router must be granted.
pub const STORE: &str = crate::storage::key_value::DEFAULT;
