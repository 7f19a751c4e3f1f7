//! Copies of requests for shadows: sent beside the request, their responses discarded, bounded in
//! number, and never in the way of a client.

use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use tracing::debug;

use super::router::Arm;
use crate::cache::copied;
use crate::host::Host;
use crate::request;
use crate::http::spin_headers::Client;

/// A copy that is to be sent.
#[derive(Debug)]
pub struct ShadowCopy {
    pub arm: Arc<Arm>,
    /// What the shadow is called with.
    pub uri: Uri,
}

/// Sends `copy`, unless too many are under way for its shadow or there is no whole `body`.
pub fn send(host: &Host, copy: ShadowCopy, client: Client, head: &Parts, body: Option<&Bytes>) {
    let ShadowCopy { arm, uri } = copy;
    let copies = &arm.copies;
    let permit = Arc::clone(&copies.permits).try_acquire_owned();
    let (Ok(permit), Some(body), Some(host)) = (permit, body.cloned(), host.share()) else {
        return copies.skipped.count();
    };
    let mut head = copied(head);
    head.uri = uri;
    // It is there to be computed, and nobody waits for it.
    head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    tokio::spawn(async move {
        let status = request::shadow(&host, client, &arm, head, body).await;
        debug!(?status, component = arm.component, "a copy was served");
        match status {
            Some(status) if !status.is_server_error() => arm.copies.served.count(),
            Some(_) | None => arm.copies.failed.count(),
        }
        drop(permit);
    });
}
