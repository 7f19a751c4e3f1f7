//! The A/B router: assigns each request to a variant of an experiment (`spinfer-experiment`).
//!
//! ```text
//! host -> assignment door (assign)   returns the assigned component; the host forwards the request
//!      -> standard door (standard)   wasi:http/handler: the same assignment, and forwards the request to
//!                                    http://<component>.spin.internal
//!           experiments              /experiments.toml, read once in the life of an instance
//!             changes                allocations that `spinfer experiment` wrote into the key-value store
//!             units                  the unit of a request: its header, cookie or field, or an assigned cookie
//! ```

mod assign;
mod bindings;
mod changes;
mod experiments;
mod standard;
mod units;

use bindings::AbRouter;

spin_sdk::wasip3::http::service::export!(AbRouter);
