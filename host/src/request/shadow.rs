//! Copies of requests for shadows. A copy is sent in the background, at most [`MAX_COPIES`] at a time
//! to one shadow; its response is discarded, and no client waits for it.
//!
//! [`MAX_COPIES`]: crate::experiment::router::MAX_COPIES

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Uri};
use http_body_util::BodyExt;
use tracing::debug;

use super::exchange::Exchange;
use super::{ComponentTarget, count, serve_component};
use crate::cache::copied;
use crate::experiment::Arm;
use crate::host::Host;
use crate::http::spin_headers::RequestSource;

/// A copy to be sent.
#[derive(Debug)]
pub(super) struct ShadowCopy {
    pub arm: Arc<Arm>,
    /// The path and query that the shadow is called with.
    pub uri: Uri,
}

/// Sends `copy`, unless its shadow is at its limit or the body is streamed: then it is skipped.
pub(super) fn send(
    host: &Host,
    copy: ShadowCopy,
    client: RequestSource,
    head: &Parts,
    body: Option<&Bytes>,
) {
    let ShadowCopy { arm, uri } = copy;
    let copies = &arm.copies;
    let permit = Arc::clone(&copies.permits).try_acquire_owned();
    let (Ok(permit), Some(body), Some(host)) = (permit, body.cloned(), host.share()) else {
        return copies.skipped.count();
    };
    let mut head = copied(head);
    head.uri = uri;
    // The shadow computes its response; a cached one would tell nothing about it.
    head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    tokio::spawn(async move {
        let status = serve(&host, client, &arm, head, body).await;
        debug!(?status, component = arm.component, "copy served by the shadow");
        match status {
            Some(status) if !status.is_server_error() => arm.copies.served.count(),
            Some(_) | None => arm.copies.failed.count(),
        }
        drop(permit);
    });
}

/// Has the shadow serve a copy; the status of its response, if it gave one.
async fn serve(
    host: &Host,
    client: RequestSource,
    arm: &Arc<Arm>,
    head: Parts,
    body: Bytes,
) -> Option<StatusCode> {
    let target = ComponentTarget::of(host.component_target(&arm.component)?)?;
    let mut exchange = Exchange::of_host(client, head, body);
    exchange.arm = Some(Arc::clone(arm));
    let served = serve_component(host, target, &mut exchange, Vec::new()).await;
    count(target.metrics, exchange.start, &served);
    let (head, body) = served.ok()?.into_parts();
    body.collect().await.ok().map(|_| head.status)
}
