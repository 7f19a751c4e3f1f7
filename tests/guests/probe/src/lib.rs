//! Runs the command of the path, behind both doors: `/echo`, `/trap`, `/loop` and so on. `/nn/...` calls `wasi:nn` with
//! the arguments of the query.

mod cache;
mod nn;
mod sockets;
mod time;
mod variables;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{Request, Response};
use spin_sdk::http_service;
use spin_sdk::wasip3::http::types::ErrorCode;

mod bindings {
    #![expect(unsafe_code, reason = "generated")]
    #![expect(clippy::mem_forget, reason = "generated")]

    wit_bindgen::generate!({
        path: [
            "../../../wit/wasi-nn",
            "../../../wit/spinfer-serve",
            "../../../wit/fermyon-spin",
            "../../../wit/wasi-config",
        ],
        inline: "
            package spinfer:probe;
            world probe {
                import wasi:nn/tensor@0.2.0-rc-2024-10-28;
                import wasi:nn/graph@0.2.0-rc-2024-10-28;
                import wasi:nn/inference@0.2.0-rc-2024-10-28;
                import wasi:nn/errors@0.2.0-rc-2024-10-28;
                import fermyon:spin/variables@2.0.0;
                import wasi:config/store@0.2.0-draft-2024-09-27;
                export spinfer:serve/buffered-handler@0.1.0;
            }
        ",
        world: "spinfer:probe/probe",
        generate_all,
    });

    export!(Probe);

    pub(crate) struct Probe;
}

use bindings::exports::spinfer::serve::buffered_handler as fast;

/// The client header that the probe reads.
const HEADER: &str = "x-probe";
/// The headers of Spin that it reads, and others that clients may forge.
const SPIN: [&str; 10] = [
    "spin-path-info",
    "spin-full-url",
    "spin-matched-route",
    "spin-component-route",
    "spin-raw-component-route",
    "spin-base-path",
    "spin-client-addr",
    "spin-path-match-name",
    "spin-path-match-other",
    "spin-other",
];

struct ProbeResponse {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl ProbeResponse {
    fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }
}

/// The name and value of a header.
type Header = (String, Vec<u8>);

fn respond(path: &str, query: &str, headers: &[Header], body: Vec<u8>) -> ProbeResponse {
    match path {
        "/predict" => panic!("this is no model"),
        _ if query == "spin-headers" => {
            let ours = headers.iter().filter(|(name, _)| name != HEADER);
            let mut lines: Vec<_> =
                ours.map(|(name, value)| [name.as_bytes(), b": ", value, b"\n"].concat()).collect();
            lines.sort_unstable();
            ProbeResponse::text(200, lines.concat())
        }
        "/echo" => ProbeResponse::text(200, body),
        "/header" => {
            let values = headers.iter().filter(|(name, _)| name == HEADER);
            let values: Vec<_> = values.map(|(_, value)| value.as_slice()).collect();
            ProbeResponse::text(200, values.join(&b", "[..]))
        }
        "/status" => ProbeResponse {
            status: query.parse().unwrap_or(200),
            headers: vec![
                ("x-probe".into(), b"seen".to_vec()),
                ("transfer-encoding".into(), b"chunked".to_vec()),
            ],
            body,
        },
        // `<announced>&<sent>` bytes.
        "/length" => {
            let (announced, sent) = query.split_once('&').unwrap_or_default();
            ProbeResponse {
                headers: vec![("content-length".into(), announced.into())],
                ..ProbeResponse::text(200, vec![b'x'; sent.parse().unwrap_or(0)])
            }
        }
        "/bad-header" => ProbeResponse {
            headers: vec![("x probe".into(), Vec::new())],
            ..ProbeResponse::text(200, "")
        },
        "/environment" => {
            let value = std::env::var(query).unwrap_or_else(|_| "not set".into());
            ProbeResponse::text(200, value)
        }
        "/read" => match std::fs::read(query) {
            Ok(bytes) => ProbeResponse::text(200, bytes),
            Err(error) => ProbeResponse::text(403, error.to_string()),
        },
        "/write" => match std::fs::write(query, body) {
            Ok(()) => ProbeResponse::text(200, "written"),
            Err(error) => ProbeResponse::text(403, error.to_string()),
        },
        "/log" | "/other/log" => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{query}");
            ProbeResponse::text(200, "")
        }
        "/count" => {
            use std::sync::atomic::{AtomicU32, Ordering};
            static REQUESTS: AtomicU32 = AtomicU32::new(0);
            ProbeResponse::text(200, (REQUESTS.fetch_add(1, Ordering::Relaxed) + 1).to_string())
        }
        "/large" => ProbeResponse::text(200, vec![b'x'; query.parse().unwrap_or(0)]),
        "/once" => once(query),
        "/trap" => panic!("asked to"),
        // Depends on the component's environment.
        "/sick" => match std::env::var("SICK").as_deref() {
            Ok("trap") => panic!("set up to"),
            Ok("trap-fifth") if query.parse().is_ok_and(|number: u32| number.is_multiple_of(5)) => {
                panic!("set up to")
            }
            Ok("loop") => loop {
                std::hint::black_box(0);
            },
            _ => ProbeResponse::text(200, "well"),
        },
        "/loop" => loop {
            std::hint::black_box(0);
        },
        "/memory" => {
            let mut blocks = Vec::new();
            loop {
                blocks.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        _ if path.starts_with("/variable/") => {
            let (status, body) = variables::respond(path, query);
            ProbeResponse::text(status, body)
        }
        _ if path.starts_with("/cache/") => cache::respond(path, query),
        // An operation on a model: the path after the model's name.
        _ if path.starts_with("/v2/models/") => {
            let operation = path.match_indices('/').nth(3).map_or("", |(at, _)| &path[at..]);
            respond(operation, query, headers, body)
        }
        _ if path.starts_with("/nn/") => nn::respond(path, query, &body),
        _ => ProbeResponse::text(404, path),
    }
}

/// The first request of an instance is served, and every later one fails: with `status` 500 or 600, a `header` that is
/// not valid, or a `trap`; behind the standard door also with an `error` instead of a response, or a `broken` body.
fn once(how: &str) -> ProbeResponse {
    match how {
        _ if is_first() => ProbeResponse::text(200, "1"),
        "header" => ProbeResponse {
            headers: vec![("x probe".into(), Vec::new())],
            ..ProbeResponse::text(200, "")
        },
        "trap" => panic!("asked to"),
        status => ProbeResponse::text(status.parse().unwrap_or(500), ""),
    }
}

/// Whether it is called for the first time.
fn is_first() -> bool {
    use std::sync::atomic::{AtomicBool, Ordering};
    static SERVED: AtomicBool = AtomicBool::new(false);
    !SERVED.swap(true, Ordering::Relaxed)
}

impl fast::Guest for bindings::Probe {
    fn needed_headers() -> Vec<String> {
        // In the middle, so that the indices of both sides are tested.
        SPIN[..5].iter().chain([&HEADER]).chain(&SPIN[5..]).map(|name| (*name).into()).collect()
    }

    fn handle(request: fast::Request) -> fast::Response {
        let (path, query) = split(&request.path_with_query);
        let needed = Self::needed_headers();
        let header = |header: fast::RequestHeader| {
            let name = usize::try_from(header.index).ok().and_then(|index| needed.get(index));
            (name.cloned().unwrap_or_default(), header.value)
        };
        let headers: Vec<_> = request.headers.into_iter().map(header).collect();
        let ProbeResponse { status, headers, body } = respond(path, query, &headers, request.body);
        let headers =
            headers.into_iter().map(|(name, value)| fast::ResponseHeader { name, value }).collect();
        fast::Response { status, headers, body }
    }
}

#[http_service]
async fn handle(request: Request) -> Result<Response<Body>, spin_sdk::http::Error> {
    let (head, body) = request.into_parts();
    let (path, query) = split(head.uri.path_and_query().map_or("/", |path| path.as_str()));
    // Echoes the body as a stream, with trailers: the fast door has no streams.
    if path == "/stream" {
        let mut response = Response::new(body.boxed_unsync());
        if let Some(names) = head.headers.get("trailer") {
            response.headers_mut().insert("trailer", names.clone());
        }
        return Ok(response);
    }
    let body = body.bytes().await?.to_vec();
    match path {
        "/fetch" => return Ok(fetch(query, body).await),
        "/once" if query == "error" && !is_first() => {
            return Err(ErrorCode::InternalError(None).into());
        }
        "/once" if query == "broken" && !is_first() => {
            let error = async { Some(Err(ErrorCode::InternalError(None))) };
            return Ok(Response::new(whole(b"begun".to_vec()).with_trailers(error).boxed_unsync()));
        }
        "/once" if matches!(query, "error" | "broken") => {
            return Ok(Response::new(whole(Vec::new())));
        }
        "/fetch/head" => {
            let response = fetch(query, body).await;
            let headers = response.headers().iter();
            let lines = headers.map(|(name, value)| {
                [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat()
            });
            return Ok(Response::new(whole(lines.collect::<Vec<_>>().concat())));
        }
        "/url" => return Ok(Response::new(whole(head.uri.to_string().into_bytes()))),
        _ if path.starts_with("/sockets/") => {
            return Ok(Response::new(whole(sockets::respond(path, query).await.into_bytes())));
        }
        "/clocks" => return Ok(Response::new(whole(time::clocks().await.into_bytes()))),
        "/random" => return Ok(Response::new(whole(time::random().into_bytes()))),
        "/variable/spin" => {
            let (status, text) = variables::spin(query).await;
            return Ok(Response::builder().status(status).body(whole(text.into_bytes()))?);
        }
        _ => {}
    }
    let header = |name: &str| name == HEADER || name.starts_with("spin-");
    let headers = head.headers.iter().filter(|(name, _)| header(name.as_str()));
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let ProbeResponse { status, headers, body } = respond(path, query, &headers, body);
    let mut response = Response::builder().status(status);
    for (name, value) in headers.into_iter().filter(|(name, _)| name != "transfer-encoding") {
        response = response.header(name, value);
    }
    Ok(response.body(whole(body))?)
}

/// The response of `url` to `body`, or 502 with the error.
async fn fetch(url: &str, body: Vec<u8>) -> Response<Body> {
    let request = Request::post(url).body(Full::new(Bytes::from(body)));
    let response = match request {
        Ok(request) => {
            spin_sdk::http::send(request).await.map(|response| response.map(BodyExt::boxed_unsync))
        }
        Err(error) => Err(ErrorCode::InternalError(Some(error.to_string()))),
    };
    response.unwrap_or_else(|error| {
        let mut response = Response::new(whole(format!("{error:?}").into_bytes()));
        *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        response
    })
}

type Body = UnsyncBoxBody<Bytes, ErrorCode>;

fn whole(body: Vec<u8>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

fn split(path_with_query: &str) -> (&str, &str) {
    path_with_query.split_once('?').unwrap_or((path_with_query, ""))
}
