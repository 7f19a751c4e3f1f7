//! Test app: a handler of WASI 0.2 with key-value stores and a request to itself.

use std::sync::atomic::{AtomicU32, Ordering};

use spin_sdk::http::{IntoResponse, Method, Request, Response};
use spin_sdk::http_component;
use spin_sdk::key_value::Store;

/// The requests of this instance: with a fresh instance for each request it stays 1.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

#[http_component]
async fn handle(request: Request) -> anyhow::Result<impl IntoResponse> {
    let requests = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let path = request.path().to_owned();
    if let Some(key) = path.strip_prefix("/keys/") {
        let store = Store::open_default()?;
        if *request.method() == Method::Put {
            store.set(key, request.body())?;
            return Ok(Response::new(204, ()));
        }
        return Ok(match store.get(key)? {
            Some(value) => Response::new(200, value),
            None => Response::new(404, "no such key"),
        });
    }
    if path == "/self" {
        // Relative: to this application.
        let response: Response = spin_sdk::http::send(Request::get("/hello")).await?;
        let body = String::from_utf8_lossy(response.body()).into_owned();
        return Ok(Response::new(200, format!("{} {body}", response.status())));
    }
    if path == "/echo" {
        return Ok(Response::new(200, request.into_body()));
    }
    Ok(Response::new(200, format!("Hello from Rust! {requests}")))
}
