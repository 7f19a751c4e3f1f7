//! Paths, host names and headers that belong to the host.

use http::header::{self, HeaderName};

use super::route::Pattern;

/// Server metadata, as the Open Inference Protocol defines it.
pub const SERVER: &str = "/v2";
/// Liveness, as the Open Inference Protocol defines it.
pub const LIVE: &str = "/v2/health/live";
/// Readiness, as the Open Inference Protocol defines it.
pub const READY: &str = "/v2/health/ready";
/// The names of all models, as KServe lists them.
pub const MODELS: &str = "/v2/models";
/// All model versions with their states, as Triton lists them.
pub const REPOSITORY_INDEX: &str = "/v2/repository/index";
/// Feedback for the prediction log.
pub const FEEDBACK: &str = "/v2/feedback";
/// The host's own paths that are complete.
pub const OWN: [&str; 6] = [SERVER, LIVE, READY, MODELS, REPOSITORY_INDEX, FEEDBACK];
/// Prefix of the paths that Spin reserves.
pub const WELL_KNOWN: &str = "/.well-known/spin/";

/// Whether a route would take a path of the host.
pub(crate) fn is_reserved(route: &Pattern) -> bool {
    OWN.contains(&route.to_string().as_str()) || route.is_under(WELL_KNOWN)
}

/// Suffix, in lower case, of the host names by which components reach each other.
pub const INTERNAL: &str = ".spin.internal";

/// Headers that describe a connection or that the host derives. A guest's are dropped.
pub const HOST_HEADERS: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
