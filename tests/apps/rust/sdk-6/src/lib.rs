//! Test app: a handler of a release candidate of WASI 0.3 with key-value stores and a request to itself.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{Method, Request, Response, StatusCode};
use spin_sdk::http_service;
use spin_sdk::key_value::Store;

/// The requests of this instance.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

#[http_service]
async fn handle(request: Request) -> anyhow::Result<Response<Full<Bytes>>> {
    let requests = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let path = request.uri().path().to_owned();
    if let Some(key) = path.strip_prefix("/keys/") {
        let store = Store::open_default().await?;
        if request.method() == Method::PUT {
            store.set(key, &request.into_body().bytes().await?).await?;
            return Ok(respond(StatusCode::NO_CONTENT, ""));
        }
        return Ok(match store.get(key).await? {
            Some(value) => respond(StatusCode::OK, value),
            None => respond(StatusCode::NOT_FOUND, "no such key"),
        });
    }
    if path == "/self" {
        // Relative: to this application.
        let response = spin_sdk::http::get("/hello").await?;
        let status = response.status().as_u16();
        let body = String::from_utf8_lossy(&response.into_body().bytes().await?).into_owned();
        return Ok(respond(StatusCode::OK, format!("{status} {body}")));
    }
    if path == "/echo" {
        let body = request.into_body().bytes().await?;
        return Ok(respond(StatusCode::OK, body));
    }
    Ok(respond(StatusCode::OK, format!("Hello from Rust! {requests}")))
}
