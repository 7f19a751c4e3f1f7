//! Requests to the admin plane of a running host.

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

/// Maximum duration of a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response, in bytes: enough for the statistics of thousands of routes.
const MAX_RESPONSE: usize = 64 << 20;

/// Sends a request to the admin plane at `address`; the body of the response.
pub(super) fn send(address: &Authority, method: &Method, path: &str) -> Result<Bytes> {
    send_json(address, method, path, Bytes::new())
}

/// Sends a request with a JSON `body`; the body of the response.
pub(super) fn send_json(
    address: &Authority,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exchange = async { timeout(TIMEOUT, exchange(address, method, path, body)).await };
    runtime
        .block_on(exchange)
        .unwrap_or_else(|_| bail!("no response within {TIMEOUT:?}"))
        .with_context(|| format!("the admin plane at {address}"))
}

/// Why a request failed, without the names of the layers above the cause.
pub(super) fn last_cause(error: &anyhow::Error) -> String {
    let cause = error.root_cause().to_string();
    cause.split(" (os error").next().unwrap_or_default().to_owned()
}

async fn exchange(address: &Authority, method: &Method, path: &str, body: Bytes) -> Result<Bytes> {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    if let Ok(token) = std::env::var(TOKEN) {
        request = request.header(header::AUTHORIZATION, format!("{BEARER}{token}"));
    }
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body))?;
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let response = client.request(request).await;
    let response = response.map_err(|error| {
        let cause = last_cause(&anyhow::Error::from(error));
        anyhow!("cannot be reached: {cause}; pass the address that `spinfer up` prints: --admin")
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_RESPONSE).collect().await.map_err(|error| anyhow!(error))?;
    let body = body.to_bytes();
    if head.status.is_success() {
        return Ok(body);
    }
    let body: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    match body.as_ref().and_then(|body| body["error"].as_str()) {
        Some(error) => bail!("{error}"),
        None => bail!("status {}: this may be another server", head.status),
    }
}
