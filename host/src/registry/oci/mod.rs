//! OCI registries: components and model versions are pushed to and pulled from them, and a manifest's
//! components may be in one.
//!
//! [`reference`] names an artifact, [`client`] speaks the distribution API of its repository over the
//! [`transport`], authorized ([`auth`]) by [`credentials`] that Docker's tools share. An artifact is a
//! [`manifest`] and its content: a [`component`], or a version of a [`model`]. What a `spin.toml` has
//! elsewhere ([`remote`]) is fetched by [`sources`] into the [`store`] and pinned in the [`lock`].
//!
//! A registry is a stranger: what it sends is bounded in size, time and redirects, and nothing is used
//! that has not the digest it should have.

pub mod digest;
pub mod reference;

pub mod auth;
pub mod challenge;
pub mod credentials;

pub mod client;
pub mod error;
pub mod manifest;
pub mod progress;
pub mod transport;

pub mod component;
pub mod model;

pub mod lock;
pub mod remote;
pub mod sources;
pub mod store;
