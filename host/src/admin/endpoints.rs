//! The endpoints of the admin plane.

use std::mem::discriminant;
use std::sync::Arc;

use http::header::ACCEPT;
use http::request::Parts;
use http::{Method, Response};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::collect::expose;
use super::parameters::parameters;
use super::refusal::Refusal;
use super::response::{json, response};
use super::stats::HostCacheStats;
use crate::cache::Propagation;
use crate::cache::generation::PurgeScope;
use crate::host::Host;
use crate::http::body::Body;
use crate::metrics::exposition::ExpositionFormat;
use crate::prediction_log::stats::LogStats;

pub const METRICS: &str = "/metrics";
pub const STATS: &str = "/cache/stats";
pub const CACHE: &str = "/cache";
pub const LOG_STATS: &str = "/log/stats";

/// Path and allowed methods of each endpoint.
const ENDPOINTS: [(&str, &str); 4] =
    [(METRICS, "GET, HEAD"), (STATS, "GET, HEAD"), (CACHE, "DELETE"), (LOG_STATS, "GET, HEAD")];

pub(super) async fn respond(host: Arc<Host>, head: Parts) -> Result<Response<Body>, Refusal> {
    let requested = head.uri.path();
    let Some((path, allow)) = ENDPOINTS.into_iter().find(|(path, _)| *path == requested) else {
        let all = ENDPOINTS.into_iter().chain(super::drift::ENDPOINTS);
        let all = all.chain(super::experiments::ENDPOINTS);
        let all: Vec<_> = all.map(|(path, allow)| format!("{path} ({allow})")).collect();
        let available = all.join(", ");
        return Err(Refusal::NoEndpoint { path: requested.to_owned(), available });
    };
    if !allow.split(", ").any(|method| head.method.as_str() == method) {
        return Err(Refusal::Method { path, allow });
    }
    match (path, &head.method) {
        (CACHE, &Method::DELETE) => purge(&host, &parameters(&head, &SCOPES)?).await,
        (STATS, _) => {
            parameters(&head, &[])?;
            json(&HostCacheStats::of(&host))
        }
        (LOG_STATS, _) => {
            parameters(&head, &[])?;
            log_stats(host).await
        }
        _ => {
            parameters(&head, &[])?;
            // The metrics of a thousand routes take milliseconds, too long for this thread.
            spawn_blocking(move || metrics(&host, &head)).await.map_err(|error| {
                error!(%error, "cannot write the metrics");
                Refusal::Failed
            })
        }
    }
}

/// Parameters that name a scope to purge.
const SCOPES: [&str; 3] = [COMPONENT, ROUTE, MODEL];
pub const COMPONENT: &str = "component";
pub const ROUTE: &str = "route";
pub const MODEL: &str = "model";

/// Purges the cached responses of the scope that the one parameter names, or all.
async fn purge(host: &Host, parameters: &[(String, String)]) -> Result<Response<Body>, Refusal> {
    let scope = match parameters {
        [] => PurgeScope::Everything,
        [(name, value)] => match name.as_str() {
            COMPONENT => PurgeScope::Component(value.clone()),
            ROUTE => PurgeScope::Route(value.clone()),
            _ => PurgeScope::Model(value.clone()),
        },
        [_, (second, _), ..] => {
            return Err(Refusal::Parameter(format!(
                "`{second}`: only one parameter is allowed, one of {}",
                SCOPES.join(", ")
            )));
        }
    };
    let propagation = host.cache().purge(&scope).await.map_err(|known| {
        let same_kind = |known: &&PurgeScope| discriminant(*known) == discriminant(&scope);
        let known: Vec<_> = known.iter().filter(same_kind).map(ToString::to_string).collect();
        let available = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal::Unknown(format!("{scope} does not exist; available: {available}"))
    })?;
    info!(%scope, ?propagation, "response cache purged");
    json(&Purged { purged: scope.to_string(), propagation })
}

/// The result of a purge.
#[derive(Debug, Serialize, Deserialize)]
pub struct Purged {
    /// The purged scope.
    pub purged: String,
    /// Which other nodes have received the purge.
    pub propagation: Propagation,
}

/// Statistics of the prediction log, read from its file for one request at a time.
async fn log_stats(host: Arc<Host>) -> Result<Response<Body>, Refusal> {
    static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);
    let Some(log) = host.prediction_log().map(Arc::clone) else {
        return Err(Refusal::Unknown("this host does not log predictions".into()));
    };
    let _permit = ONE_AT_A_TIME.acquire().await.map_err(|_| Refusal::Failed)?;
    let read = spawn_blocking(move || LogStats::of_host(&log)).await;
    match read.map_err(anyhow::Error::from).and_then(|stats| Ok(stats?)) {
        Ok(stats) => json(&stats),
        Err(error) => {
            error!(%error, "cannot read the prediction log");
            Err(Refusal::Failed)
        }
    }
}

fn metrics(host: &Host, head: &Parts) -> Response<Body> {
    let accept = head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = ExpositionFormat::negotiate(&accept.collect::<Vec<_>>().join(","));
    response(expose(host, format), format.content_type())
}
