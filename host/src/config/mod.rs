//! Configuration: the manifest ([`manifest`]), the operator's runtime config ([`runtime_config`]),
//! and the application that both resolve to ([`app`]).

pub mod app;
pub mod manifest;
pub mod runtime_config;

pub mod template;
pub mod variables;

pub mod blocked_networks;
pub mod http_hosts;
pub mod instance_reuse;
pub mod limits;
pub mod outbound_hosts;
