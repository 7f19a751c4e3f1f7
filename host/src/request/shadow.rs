//! Copies of requests for shadows. A copy is sent in the background, at most [`MAX_COPIES`] at a time
//! to one shadow; its response is discarded, and no client waits for it. Its predictions are compared
//! with those of the variant that serves the client.
//!
//! [`MAX_COPIES`]: crate::experiment::router::MAX_COPIES

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::exchange::{ComparedPredictions, Exchange};
use super::{ComponentTarget, count, serve_component};
use crate::cache::copied;
use crate::experiment::{Arm, ServedAssignment};
use crate::host::Host;
use crate::http::spin_headers::RequestSource;
use crate::prediction_log::Appended;

/// A copy to be sent.
#[derive(Debug)]
pub(super) struct ShadowCopy {
    pub arm: Arc<Arm>,
    /// The path and query that the shadow is called with.
    pub uri: Uri,
    /// Hash of the request's unit.
    pub unit: Option<Arc<str>>,
    /// Receives the predictions that the client is served.
    pub primary: oneshot::Receiver<Option<Appended>>,
}

/// Sends `copy`, unless its shadow is at its limit or the body is streamed: then it is skipped.
pub(super) fn send(
    host: &Host,
    copy: ShadowCopy,
    client: RequestSource,
    head: &Parts,
    body: Option<&Bytes>,
) {
    let ShadowCopy { arm, uri, unit, primary } = copy;
    let copies = &arm.copies;
    let permit = Arc::clone(&copies.permits).try_acquire_owned();
    let (Ok(permit), Some(body), Some(host)) = (permit, body.cloned(), host.share()) else {
        return copies.skipped.count();
    };
    let mut head = copied(head);
    head.uri = uri;
    // The shadow computes its response; a cached one would tell nothing about it.
    head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let assignment = ServedAssignment::of_copy(Arc::clone(&arm), unit);
    tokio::spawn(async move {
        let served = serve(&host, client, assignment, &arm, head, body).await;
        let status = served.as_ref().map(|(status, _)| *status);
        debug!(?status, component = arm.component, "copy served by the shadow");
        match served {
            Some((status, predictions)) if !status.is_server_error() => {
                arm.copies.served.count();
                compare(arm, primary, predictions).await;
            }
            Some(_) | None => arm.copies.failed.count(),
        }
        drop(permit);
    });
}

/// Has the shadow serve a copy; the status and the predictions of its response, if it gave one.
async fn serve(
    host: &Host,
    client: RequestSource,
    assignment: ServedAssignment,
    arm: &Arm,
    head: Parts,
    body: Bytes,
) -> Option<(StatusCode, Option<Appended>)> {
    let target = ComponentTarget::of(host.component_target(&arm.component)?)?;
    let mut exchange = Exchange::of_host(client, head, body);
    exchange.assignment = Some(assignment);
    exchange.predictions = ComparedPredictions::Compared(None);
    let served = serve_component(host, target, &mut exchange, Vec::new()).await;
    count(target.metrics, exchange.start, &served);
    let (head, body) = served.ok()?.into_parts();
    body.collect().await.ok()?;
    Some((head.status, exchange.predictions.take()))
}

/// Compares the predictions of the shadow with those that the client is served. A request that
/// fails has none, and is no evidence about the shadow.
async fn compare(
    arm: Arc<Arm>,
    primary: oneshot::Receiver<Option<Appended>>,
    shadow: Option<Appended>,
) {
    let Ok(primary) = primary.await else { return };
    // Of a request with many rows there is much to compare.
    let comparing = move || arm.copies.agreement.add(primary.as_ref(), shadow.as_ref());
    if let Err(error) = tokio::task::spawn_blocking(comparing).await {
        warn!(%error, "the predictions of a shadow were not compared");
    }
}
