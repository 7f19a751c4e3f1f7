//! What the admin plane answers.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::ACCEPT;
use http::request::Parts;
use http::{Method, Response};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::parameters::parameters;
use super::refusal::Refusal;
use super::response::{json, response};
use super::stats::Stats;
use crate::http::body::Body;
use crate::cache::Told;
use crate::cache::generation::Scope;
use crate::host::Host;
use crate::process::text::shortened;
use super::collect::expose;
use crate::metrics::exposition::Format;
use crate::prediction_log::stats::Stats as LogStats;

pub const METRICS: &str = "/metrics";
pub const STATS: &str = "/cache/stats";
pub const CACHE: &str = "/cache";
pub const DRIFT: &str = "/drift";
pub const LOG_STATS: &str = "/log/stats";

/// Each, and the methods it answers.
const ENDPOINTS: [(&str, &str); 5] = [
    (METRICS, "GET, HEAD"),
    (STATS, "GET, HEAD"),
    (CACHE, "DELETE"),
    (DRIFT, "GET, HEAD"),
    (LOG_STATS, "GET, HEAD"),
];

pub(super) async fn answer(host: Arc<Host>, head: Parts) -> Result<Response<Body>, Refusal> {
    let asked = head.uri.path();
    let Some((path, allow)) = ENDPOINTS.into_iter().find(|(path, _)| *path == asked) else {
        let all = ENDPOINTS.into_iter().chain(super::experiments::ENDPOINTS);
        let all: Vec<_> = all.map(|(path, allow)| format!("{path} ({allow})")).collect();
        let there_are = all.join(", ");
        return Err(Refusal::NoEndpoint { path: asked.to_owned(), there_are });
    };
    if !allow.split(", ").any(|method| head.method.as_str() == method) {
        return Err(Refusal::Method { path, allow });
    }
    match (path, &head.method) {
        (CACHE, &Method::DELETE) => purge(&host, &parameters(&head, &SCOPES)?).await,
        (STATS, _) => {
            parameters(&head, &[])?;
            json(&Stats::of(&host))
        }
        (DRIFT, _) => drift(host, parameters(&head, &[MODEL])?).await,
        (LOG_STATS, _) => {
            parameters(&head, &[])?;
            log_stats(host).await
        }
        _ => {
            parameters(&head, &[])?;
            // Those of a thousand routes take milliseconds to write, which nobody is to wait for.
            spawn_blocking(move || metrics(&host, &head)).await.map_err(|lost| {
                error!(%lost, "the metrics could not be written");
                Refusal::Failed
            })
        }
    }
}

/// The parameters of what may be forgotten.
const SCOPES: [&str; 3] = [COMPONENT, ROUTE, MODEL];
pub const COMPONENT: &str = "component";
pub const ROUTE: &str = "route";
pub const MODEL: &str = "model";

/// Forgets what the one parameter names, or everything.
async fn purge(host: &Host, parameters: &[(String, String)]) -> Result<Response<Body>, Refusal> {
    let scope = match parameters {
        [] => Scope::Everything,
        [(name, value)] => match name.as_str() {
            COMPONENT => Scope::Component(value.clone()),
            ROUTE => Scope::Route(value.clone()),
            _ => Scope::Model(value.clone()),
        },
        [_, (second, _), ..] => {
            return Err(Refusal::Parameter(format!(
                "`{second}`: one at a time can be forgotten, by {}",
                SCOPES.join(", by ")
            )));
        }
    };
    let told = host.cache().purge(&scope).await.map_err(|known| {
        let like_it = |known: &&Scope| discriminant(*known) == discriminant(&scope);
        let known: Vec<_> = known.iter().filter(like_it).map(ToString::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal::Unknown(format!("there is no {scope} here; of the kind there are: {known}"))
    })?;
    info!(%scope, ?told, "kept answers are forgotten");
    json(&Purged { purged: scope.to_string(), told })
}

/// The drift of every model version, or of those of one model.
async fn drift(
    host: Arc<Host>,
    parameters: Vec<(String, String)>,
) -> Result<Response<Body>, Refusal> {
    let model = match parameters.as_slice() {
        [] => None,
        [(_, model)] => Some(model.clone()),
        [_, ..] => return Err(Refusal::Parameter(format!("`{MODEL}`: one at a time"))),
    };
    if let Some(model) = model.as_deref().filter(|model| !host.drift().knows(model)) {
        let known = host.drift().models().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        let model = shortened(model);
        return Err(Refusal::Unknown(format!(
            "no model `{model}` is mounted; mounted models: {known}"
        )));
    }
    // Of thousands of fields it takes milliseconds.
    let report = spawn_blocking(move || host.drift().report(SystemTime::now(), model.as_deref()));
    json(&report.await.map_err(|lost| {
        error!(%lost, "drift could not be computed");
        Refusal::Failed
    })?)
}

/// What was forgotten.
#[derive(Debug, Serialize, Deserialize)]
pub struct Purged {
    pub purged: String,
    /// Which other nodes have heard of it.
    pub told: Told,
}

/// Statistics of the prediction log, read from its file: one at a time.
async fn log_stats(host: Arc<Host>) -> Result<Response<Body>, Refusal> {
    static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);
    let Some(log) = host.prediction_log().map(Arc::clone) else {
        return Err(Refusal::Unknown("predictions are not logged here".into()));
    };
    let _permit = ONE_AT_A_TIME.acquire().await.map_err(|_| Refusal::Failed)?;
    let read = spawn_blocking(move || LogStats::of_host(&log)).await;
    match read.map_err(anyhow::Error::from).and_then(|stats| Ok(stats?)) {
        Ok(stats) => json(&stats),
        Err(error) => {
            error!(%error, "the prediction log could not be read");
            Err(Refusal::Failed)
        }
    }
}

fn metrics(host: &Host, head: &Parts) -> Response<Body> {
    let accept = head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::asked(&accept.collect::<Vec<_>>().join(","));
    response(expose(host, format), format.content_type())
}
