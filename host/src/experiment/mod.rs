//! Experiments in the host: checks at startup ([`check`]), routers and the counters of their
//! variants ([`router`]), what is known of an assigned request ([`assignment`]), the comparison of
//! shadows ([`agreement`]), status ([`status`]) and changes by operators ([`update`]). Once a second the
//! [`supervisor`] looks at the [`outcomes`] of requests and at the units of the log, on all nodes
//! (`nodes`): at the [`guardrails`], and for the verdict ([`assessment`]). What happens is in the journal
//! ([`ledger`]). The router component assigns requests to variants.

pub mod agreement;
pub mod assessment;
pub mod assignment;
pub mod check;
#[cfg(test)]
mod fixtures;
pub mod guardrails;
pub mod ledger;
pub(crate) mod nodes;
pub mod outcomes;
pub mod router;
mod signature;
pub mod status;
pub mod supervisor;
pub(crate) mod text;
pub mod update;

pub use assignment::ServedAssignment;
pub use router::{Arm, ExperimentRouter};

/// Path at which a router mounts its experiments.
pub const FILE: &str = "/experiments.toml";
/// Label of the key-value store with the changes, which the router must be granted.
pub const STORE: &str = crate::storage::key_value::DEFAULT;
