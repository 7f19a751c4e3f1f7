//! spinfer: machine-learning models as serverless WebAssembly functions. This is the host.
//!
//! # The life of a request
//!
//! [`server`] accepts the connection and reads the head. [`request`] does the rest, a step a line:
//! [`route`] finds the component, [`body`] takes the body in, [`service`] lets the request in when
//! it is its turn, [`door`] gives it to an [`instance`], which imports its [`capabilities`]
//! (`wasi:nn` is served by [`inference`], stores by [`key_value`]), and the answer goes back. What takes long goes on in the
//! [`background`]. A step that fails returns an [`error::Failure`], the one place that knows
//! statuses.
//!
//! # Before the first request
//!
//! [`cli`] and [`flags`] read the command line, [`runtime_config`] the operator's file, [`manifest`]
//! `spin.toml`; [`app`] resolves it all, with every mistake found and every limit ([`limits`],
//! [`reuse`]) settled; [`code`] has the components compiled by the [`engine`] into [`artifact`]s;
//! [`host`] puts it all together. Only then the socket is bound.

pub mod cli;
pub mod flags;

pub mod manifest;

pub mod runtime_config;
pub mod template;
pub mod variables;

pub mod app;
pub mod blocked_networks;
pub mod files;
pub mod limits;
pub mod outbound_hosts;
pub mod reuse;

pub mod host;

pub mod server;

pub mod admin;
pub mod metrics;

pub mod connections;
pub mod listen_address;
pub mod opening;
pub mod tls;

pub mod request;

pub mod model_index;

pub mod body;
pub mod body_error;
pub mod cache;
pub mod content_encoding;
pub mod cors;
pub mod error;
pub mod experiment;
pub mod percent;
pub mod route;
pub mod spin_headers;
pub mod streams;
pub mod vary;

pub mod service;

pub mod background;
pub mod door;
pub mod priority;

pub mod answers;
pub mod artifact;
pub mod code;
pub mod engine;
pub mod imports;
pub mod instance;
pub mod memory;

pub mod capabilities;
pub mod drift;
pub mod inference;
pub mod key_value;
pub mod prediction_log;
pub mod redis_connections;
pub mod registry;
pub mod trust;

pub mod build;
pub mod commands;
pub mod optimize;
pub mod state_dir;
pub mod telemetry;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
