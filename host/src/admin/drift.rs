//! The endpoints for drift: the report, also of several hosts, and the windows of this one.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use http_body::Body as HttpBody;
use tokio::task::spawn_blocking;
use tracing::error;

use super::MODEL;
use super::parameters::parameters;
use super::refusal::Refusal;
use super::response::json;
use crate::drift::{Report, SavedWindows};
use crate::host::Host;
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::content_encoding::{Admission, admit};
use crate::process::text::shortened;

pub const DRIFT: &str = "/drift";
pub const DRIFT_WINDOWS: &str = "/drift/windows";

/// Path and allowed methods of each endpoint.
pub(super) const ENDPOINTS: [(&str, &str); 2] =
    [(DRIFT, "GET, HEAD, POST"), (DRIFT_WINDOWS, "GET, HEAD")];

/// Maximum size of the windows of other hosts, in bytes.
const MAX_WINDOWS: usize = 64 << 20;
/// Time for them to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whether `path` is one of these endpoints.
pub(super) fn is_under(path: &str) -> bool {
    ENDPOINTS.iter().any(|(endpoint, _)| *endpoint == path)
}

pub(super) async fn respond<B>(
    host: Arc<Host>,
    mut head: Parts,
    body: B,
) -> Result<Response<Body>, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    match (head.uri.path(), &head.method) {
        (DRIFT, &Method::GET | &Method::HEAD) => {
            let model = model(&head)?;
            check_mounted(&host, model.as_deref(), &[])?;
            report(host, move |host, now| Ok(host.drift().report(now, model.as_deref()))).await
        }
        (DRIFT, &Method::POST) => {
            let model = model(&head)?;
            let others = windows(&host, &mut head, body).await?;
            check_mounted(&host, model.as_deref(), &others)?;
            report(host, move |host, now| {
                host.drift().merged_report(now, model.as_deref(), &others)
            })
            .await
        }
        (DRIFT, _) => Err(Refusal::Method { path: DRIFT, allow: ENDPOINTS[0].1 }),
        (_, &Method::GET | &Method::HEAD) => {
            parameters(&head, &[])?;
            let windows = blocking(move || {
                let mut windows = host.drift().windows();
                if let Some(log) = host.prediction_log() {
                    windows.add_quality(&log.quality());
                }
                windows
            });
            json(&windows.await?)
        }
        _ => Err(Refusal::Method { path: DRIFT_WINDOWS, allow: ENDPOINTS[1].1 }),
    }
}

/// The one model that a report is wanted of.
fn model(head: &Parts) -> Result<Option<String>, Refusal> {
    match parameters(head, &[MODEL])?.as_slice() {
        [] => Ok(None),
        [(_, model)] => Ok(Some(model.clone())),
        [_, ..] => Err(Refusal::Parameter(format!("`{MODEL}`: only one is allowed"))),
    }
}

/// Refuses a `model` that neither this host mounts nor one of the `others` watches.
fn check_mounted(host: &Host, model: Option<&str>, others: &[SavedWindows]) -> Result<(), Refusal> {
    let Some(model) = model else { return Ok(()) };
    let watched = || others.iter().flat_map(SavedWindows::versions).any(|(name, _)| name == model);
    if host.drift().is_mounted(model) || watched() {
        return Ok(());
    }
    let known = host.drift().models().join(", ");
    let known = if known.is_empty() { "none".to_owned() } else { known };
    let model = shortened(model);
    Err(Refusal::Unknown(format!("no model `{model}` is mounted; mounted models: {known}")))
}

/// The windows of other hosts: an array of what `GET /drift/windows` of each returned.
async fn windows<B>(host: &Host, head: &mut Parts, body: B) -> Result<Vec<SavedWindows>, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let admission = Admission {
        budget: host.body_budget(),
        whole: MAX_WINDOWS,
        limit: MAX_WINDOWS,
        deadline: Instant::now() + TIMEOUT,
        decode: true,
    };
    let admitted = admit(head, body, admission).await;
    let (_charge, body) = admitted.map_err(|error| Refusal::Parameter(error.to_string()))?;
    let Some(body) = body.whole() else {
        return Err(Refusal::Parameter(format!("the body: exceeds {MAX_WINDOWS} bytes")));
    };
    SavedWindows::parse_all(body).map_err(|error| {
        Refusal::Parameter(format!(
            "the body: {error:#}; send an array of the responses of {DRIFT_WINDOWS} of other hosts, \
             which run the same version of spinfer"
        ))
    })
}

/// The report that `compute` returns, with the accuracy on labelled predictions.
async fn report(
    host: Arc<Host>,
    compute: impl FnOnce(&Host, SystemTime) -> anyhow::Result<Report> + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    // The report of thousands of fields takes milliseconds.
    let report = blocking(move || {
        let mut report = compute(&host, SystemTime::now())?;
        if let Some(log) = host.prediction_log() {
            report.add_quality(&log.quality());
        }
        anyhow::Ok(report)
    });
    json(&report.await?.map_err(|error| Refusal::Conflict(error.to_string()))?)
}

async fn blocking<T: Send + 'static>(
    compute: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    spawn_blocking(compute).await.map_err(|error| {
        error!(%error, "cannot compute drift");
        Refusal::Failed
    })
}
