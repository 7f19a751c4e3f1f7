//! Requests to the admin plane of a host that serves.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use crate::admin::guard::{BEARER, TOKEN};

/// How long a host has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer: statistics of thousands of routes.
const MAX_ANSWER: usize = 64 << 20;

/// What the admin plane at `address` answers to `method` of `path`.
pub(super) fn ask(address: &Authority, method: &Method, path: &str) -> Result<Bytes> {
    ask_with(address, method, path, Bytes::new())
}

/// The same to a request with a JSON `body`.
pub(super) fn ask_with(
    address: &Authority,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking = async { timeout(PATIENCE, send(address, method, path, body)).await };
    let asked = runtime.block_on(asking);
    asked
        .unwrap_or_else(|_| bail!("it does not answer"))
        .with_context(|| format!("the admin plane at {address}"))
}

async fn send(address: &Authority, method: &Method, path: &str, body: Bytes) -> Result<Bytes> {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    if let Ok(token) = std::env::var(TOKEN) {
        request = request.header(header::AUTHORIZATION, format!("{BEARER}{token}"));
    }
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body))?;
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let answer = client.request(request).await;
    let answer = answer.context("cannot be reached; `spinfer up` prints where it is: --admin")?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
    let body = body.to_bytes();
    if head.status.is_success() {
        return Ok(body);
    }
    let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    match said.as_ref().and_then(|said| said["error"].as_str()) {
        Some(said) => bail!("{said}"),
        None => bail!("it answers {}: this may be another server", head.status),
    }
}
