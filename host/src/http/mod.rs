//! HTTP in the host: routes, bodies, errors, and headers.

pub mod authority;
pub mod error;
pub mod error_response;

pub mod percent;
pub mod request_log;
pub mod reserved;
pub mod route;

pub mod body;
pub mod content_encoding;
pub mod framing;

pub mod cors;
pub mod spin_headers;
pub mod vary;

pub mod client_tls;
