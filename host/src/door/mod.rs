//! The ways into a component. [`fast`]: one typed call with the whole request, for components
//! that export `spinfer:serve/buffered-handler`. [`standard`]: `wasi:http`, for every component
//! and every body.

pub mod fast;
pub mod standard;

use tracing::warn;

use crate::app::ComponentSpec;
use crate::error::Failure;

/// Every instance is taken, for as long as the request could wait.
#[must_use]
pub fn busy(spec: &ComponentSpec) -> Failure {
    Failure::Busy { component: spec.id.clone(), limit: spec.limits.instances }
}

/// The deadline has passed.
#[must_use]
pub fn late(spec: &ComponentSpec) -> Failure {
    warn!(component = spec.id, "missed the deadline");
    Failure::Deadline { component: spec.id.clone() }
}

/// It answered what HTTP cannot say.
#[must_use]
pub fn invalid_answer(spec: &ComponentSpec, problem: String) -> Failure {
    warn!(component = spec.id, problem, "invalid answer");
    Failure::InvalidAnswer { component: spec.id.clone(), problem }
}
