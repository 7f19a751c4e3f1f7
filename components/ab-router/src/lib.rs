//! The A/B router: assigns each request to a variant of an experiment (`spinfer-experiment`).
//!
//! ```text
//! host -> assignment door (assign)   where the request goes; the host hands it on by itself
//!      -> standard door (standard)   wasi:http/handler: decides alike, and forwards the request to
//!                                    http://<component>.spin.internal
//!           experiments              /experiments.toml, read once in the life of an instance
//!             changes                what `spinfer experiment` wrote into the key-value store since
//! ```

mod assign;
mod bindings;
mod changes;
mod experiments;
mod standard;

use bindings::AbRouter;

spin_sdk::wasip3::http::service::export!(AbRouter);
