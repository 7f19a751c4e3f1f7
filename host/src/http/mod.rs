//! HTTP as the host uses it: routes, bodies, errors, and the headers it reads and writes.

pub mod error;
pub mod error_response;


pub mod reserved;
pub mod route;

pub mod body;
pub mod content_encoding;

pub mod cors;
pub mod percent;
pub mod spin_headers;
pub mod vary;

pub mod client_tls;
