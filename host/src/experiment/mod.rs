//! Experiments, as the host sees them: the routers of an application and what they mount ([`check`]),
//! what it counts of their variants ([`router`]), what an operator sees and changes ([`status`]), and
//! copies for shadows ([`shadow`]). Which variant a request goes to says the router component.

pub mod check;
pub mod router;
mod signature;
pub mod status;

pub use router::{Arm, ExperimentRouter};

/// Where a router mounts its experiments.
pub const FILE: &str = "/experiments.toml";
/// The store in which changes are, by the label that the router is granted.
pub const STORE: &str = crate::storage::key_value::DEFAULT;
