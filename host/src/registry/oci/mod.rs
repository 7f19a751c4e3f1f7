//! OCI registries: push and pull of components and model versions, and components of a manifest that
//! are in a registry.
//!
//! A [`mod@reference`] names an artifact. The [`client`] speaks the distribution API over the [`transport`],
//! with authorization ([`auth`]) by [`credentials`] shared with Docker's tools. An artifact is a
//! [`manifest`] and its content: a [`component`] or a version of a [`model`]. Remote components of a
//! `spin.toml` ([`remote`]) are fetched by [`sources`] into the [`store`] and pinned in the [`lock`].
//!
//! Registries are not trusted: responses are bounded in size, time and redirects, and content is used
//! only if its digest matches.

pub mod digest;
pub mod reference;

pub mod auth;
pub mod challenge;
pub mod credentials;
mod sensitive_header;

pub mod client;
pub mod error;
pub mod manifest;
pub mod progress;
pub mod response;
pub mod transport;

pub mod component;
pub mod model;

pub mod lock;
pub mod remote;
pub mod sources;
pub mod store;
