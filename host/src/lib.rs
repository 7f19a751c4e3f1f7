//! spinfer: machine-learning models as serverless WebAssembly functions. This crate is the host.
//!
//! # The life of a request
//!
//! [`server`] accepts the connection and reads the head of the request. [`request`] does the rest,
//! one numbered step a line: it routes the request to a component, admits the body ([`http`]), looks
//! the response up in the [`cache`], invokes the component through one of its two doors ([`guest`]),
//! caches the response, and records its predictions ([`prediction_log`]). A component imports
//! [`capabilities`]: `wasi:nn` is backed by [`inference`], key-value stores and Redis by [`storage`].
//! A step that fails returns an [`http::error::Failure`], the one place that knows statuses.
//!
//! # Before the first request
//!
//! [`cli`] parses the command line. [`config`] reads the manifest and the operator's runtime config,
//! resolves them, and reports every problem at once. [`host`] compiles and links the components and
//! assembles the running application. Only then is the socket bound.

pub mod cli;
pub mod config;

pub mod host;
pub mod request;

pub mod server;

pub mod http;

pub mod guest;

pub mod cache;

pub mod capabilities;
pub mod inference;
pub mod storage;

pub mod drift;
pub mod experiment;
pub mod prediction_log;
pub mod registry;

pub mod admin;
pub mod metrics;

pub mod process;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
