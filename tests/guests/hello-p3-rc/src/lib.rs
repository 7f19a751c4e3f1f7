//! A handler of `wasi:http@0.3.0-rc-2026-03-15`, as in components of spin-sdk 6.0.0. It responds with the path, and the
//! environment variable `GREETING` read through the release candidate and through the release, which Python's SDK imports
//! both. `/count` responds with the number of requests to it that the instance has served, `/via/<host>` requests
//! `http://<host>/` and relays the response.

use std::sync::atomic::{AtomicUsize, Ordering};

use wasip3_rc::http::client;
use wasip3_rc::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3_rc::{wit_bindgen, wit_future, wit_stream};

wasip3_rc::http::service::export!(Hello);

struct Hello;

static COUNT: AtomicUsize = AtomicUsize::new(0);

impl wasip3_rc::exports::http::handler::Guest for Hello {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let text = match path.strip_prefix("/via/") {
            Some(host) => match fetch(host).await {
                Ok(text) => text,
                Err(error) => format!("{error:?}"),
            },
            None if path == "/count" => (COUNT.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
            None => {
                let candidate = greeting(wasip3_rc::cli::environment::get_environment());
                let release = greeting(wasip3::cli::environment::get_environment());
                format!("{path} {candidate} {release}")
            }
        };
        let (mut body, reader) = wit_stream::new();
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (response, _) = Response::new(Fields::new(), Some(reader), trailers);
        wit_bindgen::spawn(async move {
            body.write_all(text.into_bytes()).await;
        });
        Ok(response)
    }
}

fn greeting(environment: Vec<(String, String)>) -> String {
    let found = environment.into_iter().find(|(name, _)| name == "GREETING");
    found.map_or_else(|| "none".to_owned(), |(_, value)| value)
}

async fn fetch(host: &str) -> Result<String, ErrorCode> {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&Scheme::Http)).expect("it is HTTP");
    request.set_authority(Some(host)).expect("it is a host");
    request.set_path_with_query(Some("/")).expect("it is a path");
    let response = client::send(request).await?;
    let (_, result) = wit_future::new(|| Ok(()));
    let (body, _) = Response::consume_body(response, result);
    let bytes = body.collect().await;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
