//! spinfer: machine-learning models as serverless WebAssembly functions. This is the host.
//!
//! # The life of a request
//!
//! [`server`] accepts the connection and reads the head. [`request`] does the rest, a step a line:
//! [`route`] finds the component, [`body`] takes the body in, [`door`] gives both to an
//! [`instance`], which imports its [`capabilities`] (`wasi:nn` is served by [`inference`]), and the
//! answer goes back. A step that fails returns an [`error::Failure`], the one place that knows
//! statuses.
//!
//! # Before the first request
//!
//! [`cli`] reads the command line; [`manifest`] reads `spin.toml`; [`app`] resolves it, with every
//! mistake found and every limit ([`limits`]) settled; [`engine`] compiles the components;
//! [`host`] puts it all together. Only then the socket is bound.

pub mod cli;

pub mod manifest;

pub mod app;
pub mod limits;

pub mod host;

pub mod server;

pub mod request;

pub mod body;
pub mod error;
pub mod route;

pub mod door;

pub mod engine;
pub mod instance;

pub mod capabilities;
pub mod inference;

pub mod build;
pub mod telemetry;
