//! `spinfer health`: checks whether a host is ready, for health checks of containers without curl.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::Request;
use http::uri::Authority;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::admin_client::last_cause;
use crate::http::reserved::{LIVE, READY};

/// Maximum duration of the check: below the 5 s after which container engines kill it.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum size of a response, in bytes: it lists the models that are not loaded.
const MAX_RESPONSE: usize = 64 << 10;
/// Default address of `spinfer up`.
const ADDRESS: &str = "127.0.0.1:3000";

#[derive(Debug, Args)]
pub struct HealthOptions {
    /// Address of the host, as in --listen; plain HTTP only
    #[arg(long, value_name = "HOST:PORT", default_value_t = Authority::from_static(ADDRESS))]
    address: Authority,

    /// Check only that the host responds, not that its models are loaded
    #[arg(long)]
    live: bool,
}

/// Checks the host, and prints its state to `out`.
///
/// # Errors
/// If the host is not ready, with the reason.
pub fn run(health: &HealthOptions, out: &mut impl Write) -> Result<()> {
    let HealthOptions { address, live } = health;
    let (path, state) = if *live { (LIVE, "live") } else { (READY, "ready") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checked = runtime.block_on(async { timeout(TIMEOUT, check(address, path)).await });
    checked
        .unwrap_or_else(|_| bail!("no response within {TIMEOUT:?}"))
        .with_context(|| format!("{address} is not {state}"))?;
    writeln!(out, "{address} is {state}")?;
    Ok(())
}

async fn check(address: &Authority, path: &str) -> Result<()> {
    let request = Request::get(format!("http://{address}{path}")).body(Empty::<Bytes>::new())?;
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let response = client.request(request).await.map_err(|error| {
        let cause = last_cause(&anyhow::Error::from(error));
        anyhow!("cannot connect: {cause}; see --address")
    })?;
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(());
    }
    let body = Limited::new(body, MAX_RESPONSE).collect().await.map(|body| body.to_bytes());
    let reason: Option<serde_json::Value> =
        body.ok().and_then(|body| serde_json::from_slice(&body).ok());
    match reason.as_ref().and_then(|reason| reason["error"].as_str()) {
        Some(reason) => bail!("{reason}"),
        None => bail!("status {}: this may be another server", head.status),
    }
}
