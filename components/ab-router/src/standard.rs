//! The standard door, for hosts without the assignment door: forwards the request to
//! `http://<component>.spin.internal`, and adds the headers to the response that spinfer would add.

use std::cell::Cell;

use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::client;
use spin_sdk::wasip3::http::types::{
    ErrorCode, Fields, Method, Request, Response, Scheme, Trailers,
};
use spin_sdk::wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use spin_sdk::wasip3::{spawn, wit_future, wit_stream};
use spinfer_experiment::Refusal;

use crate::AbRouter;
use crate::experiments::{self, Decision, with};

/// Maximum size of a body that is buffered, to decide the assignment or to be copied, in bytes. Longer bodies
/// are streamed. The same as the default of `limits.buffered_body`.
const MAX_BODY: usize = 1 << 20;
/// Size of a read, in bytes.
const READ_BYTES: usize = 16 << 10;
/// Maximum number of copies in flight. Further copies are skipped.
const MAX_COPIES: usize = 16;

/// Headers that are not forwarded: they belong to a connection, or are derived.
const NOT_FORWARDED: [&str; 8] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Replaces the header of an assigned response: other units may get other responses from the same URL.
const CACHE_CONTROL: (&str, &[u8]) = ("cache-control", b"private, no-cache");

/// Status of a response at the deadline.
const GATEWAY_TIMEOUT: u16 = 504;

thread_local! {
    static COPIES: Cell<usize> = const { Cell::new(0) };
}

/// The trailers, or the error, at the end of a body.
type End = FutureReader<Result<Option<Trailers>, ErrorCode>>;
type Headers = Vec<(String, Vec<u8>)>;

/// The assignment of a request.
struct Decided {
    /// `None`: the request is not in the experiment.
    experiment: Option<String>,
    target: Target,
    /// Serves the request if the target cannot.
    fallback: Option<Target>,
    shadows: Vec<Target>,
    set_cookie: Option<String>,
}

/// The destination of a request.
struct Target {
    variant: String,
    component: String,
    path: String,
}

/// The method and headers of a forwarded request.
#[derive(Clone)]
struct Head {
    method: Method,
    headers: Headers,
}

/// A request body.
enum Body {
    Whole(Vec<u8>),
    /// What has been read, and the rest.
    Stream(Vec<u8>, StreamReader<u8>, End),
}

impl Guest for AbRouter {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_else(|| "/".to_owned());
        let mut headers = request.get_headers().copy_all();
        let method = request.get_method();
        let secure = matches!(request.get_scheme(), Some(Scheme::Https));
        let (_handled, handled) = wit_future::new(|| Ok(()));
        let (stream, end) = Request::consume_body(request, handled);
        let wants_body = match with(|experiments| experiments.uses_body(&path)) {
            Ok(wants_body) => wants_body,
            Err(refusal) => return refuse(&refusal),
        };
        let body = if wants_body {
            read(stream, end).await
        } else {
            Body::Stream(Vec::new(), stream, end)
        };
        let decided = match decide(&path, &headers, &body, secure) {
            Ok(decided) => decided,
            Err(refusal) => return refuse(&refusal),
        };
        let Decided { experiment, mut target, fallback, shadows, set_cookie } = decided;
        headers.retain(|(name, _)| {
            !NOT_FORWARDED.contains(&name.as_str()) && !name.starts_with("spin-")
        });
        let head = Head { method, headers };
        let copy = match &body {
            Body::Whole(bytes) if !shadows.is_empty() || fallback.is_some() => {
                Some((head.clone(), bytes.clone()))
            }
            Body::Whole(_) | Body::Stream(..) => None,
        };
        let mut response = forward(head, &target, body).await;
        if let (Some(fallback), Some((head, body)), true) =
            (fallback, &copy, is_unavailable(&response))
        {
            target = fallback;
            response = forward(head.clone(), &target, Body::Whole(body.clone())).await;
        }
        if let Some((head, body)) = copy {
            shadows.into_iter().for_each(|shadow| send_copy(head.clone(), shadow, body.clone()));
        }
        match response {
            Ok(response) => {
                let marks = experiment.map(|experiment| (experiment, target.variant));
                assigned(response, marks, set_cookie)
            }
            Err(error) => refuse(&unreachable(&target, &error)),
        }
    }
}

/// Whether another variant can serve the request: not at its deadline, when there is no time left.
fn is_unavailable(response: &Result<Response, ErrorCode>) -> bool {
    match response {
        Ok(response) => {
            let status = response.get_status_code();
            status >= 500 && status != GATEWAY_TIMEOUT
        }
        Err(error) => !matches!(error, ErrorCode::HttpRequestDenied),
    }
}

/// Assigns the request.
fn decide(path: &str, headers: &Headers, body: &Body, secure: bool) -> Result<Decided, Refusal> {
    let body = match body {
        Body::Whole(body) => body.as_slice(),
        Body::Stream(..) => &[],
    };
    with(|experiments| {
        let needed = experiments.needed_headers();
        let headers: Vec<_> = headers
            .iter()
            .filter_map(|(name, value)| {
                let index = needed.iter().position(|needed| needed == name)?;
                Some((u32::try_from(index).ok()?, value.clone()))
            })
            .collect();
        let request = experiments::Request { path, headers: &headers, body, secure };
        let Decision { assignment, set_cookie, .. } = experiments.assign(request)?;
        let experiment = assignment.experiment;
        let target = |variant: &spinfer_experiment::Variant| Target {
            variant: variant.name.clone(),
            component: variant.component.clone(),
            path: experiment.path_of(variant, path).unwrap_or_else(|| path.to_owned()),
        };
        Ok(Decided {
            experiment: assignment.exclusion().is_none().then(|| experiment.name.clone()),
            target: target(assignment.variant),
            fallback: assignment.fallback().map(target),
            shadows: assignment.shadows().map(target).collect(),
            set_cookie,
        })
    })
    .and_then(|decided| decided)
}

/// Buffers a body, up to [`MAX_BODY`].
async fn read(mut stream: StreamReader<u8>, end: End) -> Body {
    let mut body = Vec::new();
    while body.len() <= MAX_BODY {
        let (result, part) = stream.read(Vec::with_capacity(READ_BYTES)).await;
        body.extend(part);
        if let StreamResult::Dropped | StreamResult::Cancelled = result {
            return match end.await {
                Ok(_) => Body::Whole(body),
                // The body was cut off: so is the forwarded one.
                Err(_) => {
                    let (_, failed) = wit_future::new(|| Err(ErrorCode::ConnectionTerminated));
                    Body::Stream(body, stream, failed)
                }
            };
        }
    }
    Body::Stream(body, stream, end)
}

/// Sends a request to its target.
async fn forward(head: Head, target: &Target, body: Body) -> Result<Response, ErrorCode> {
    let headers = Fields::from_list(&head.headers).map_err(|error| {
        ErrorCode::InternalError(Some(format!("the request's headers: {error:?}")))
    })?;
    let (stream, end) = match body {
        Body::Stream(first, rest, end) if first.is_empty() => (rest, end),
        Body::Stream(first, rest, end) => (joined(first, rest), end),
        Body::Whole(bytes) => {
            let (_, end) = wit_future::new(|| Ok(None));
            (whole(bytes), end)
        }
    };
    let (request, _sent) = Request::new(headers, Some(stream), end, None);
    let set = request
        .set_method(&head.method)
        .and_then(|()| request.set_scheme(Some(&Scheme::Http)))
        .and_then(|()| request.set_authority(Some(&format!("{}.spin.internal", target.component))))
        .and_then(|()| request.set_path_with_query(Some(&target.path)));
    set.map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    client::send(request).await
}

/// A stream of these bytes.
fn whole(bytes: Vec<u8>) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    spawn(async move {
        // An incomplete write means that the receiver does not read the body.
        writer.write_all(bytes).await;
    });
    reader
}

/// A stream of `first`, followed by `rest`.
fn joined(first: Vec<u8>, mut rest: StreamReader<u8>) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    spawn(async move {
        let mut part = first;
        loop {
            if !writer.write_all(part).await.is_empty() {
                return;
            }
            let (result, read) = rest.read(Vec::with_capacity(READ_BYTES)).await;
            part = read;
            if let StreamResult::Dropped | StreamResult::Cancelled = result {
                writer.write_all(part).await;
                return;
            }
        }
    });
    reader
}

/// Sends a copy and discards its response, unless too many are in flight.
fn send_copy(head: Head, shadow: Target, body: Vec<u8>) {
    if COPIES.get() >= MAX_COPIES {
        return;
    }
    COPIES.set(COPIES.get() + 1);
    spawn(async move {
        if let Ok(response) = forward(head, &shadow, Body::Whole(body)).await {
            let (_done, done) = wit_future::new(|| Ok(()));
            let (mut stream, _end) = Response::consume_body(response, done);
            loop {
                let (result, _) = stream.read(Vec::with_capacity(READ_BYTES)).await;
                if let StreamResult::Dropped | StreamResult::Cancelled = result {
                    break;
                }
            }
        }
        COPIES.set(COPIES.get().saturating_sub(1));
    });
}

/// The variant's response, with the headers of the assignment: `marks` are the names of experiment and
/// variant, if the request is in the experiment.
fn assigned(
    response: Response,
    marks: Option<(String, String)>,
    set_cookie: Option<String>,
) -> Result<Response, ErrorCode> {
    let status = response.get_status_code();
    let mut headers = response.get_headers().copy_all();
    let before = headers.len();
    headers.retain(|(name, _)| name != CACHE_CONTROL.0);
    if headers.len() < before {
        headers.push((CACHE_CONTROL.0.to_owned(), CACHE_CONTROL.1.to_vec()));
    }
    if let Some((experiment, variant)) = marks {
        headers.push(("spinfer-experiment".to_owned(), experiment.into_bytes()));
        headers.push(("spinfer-variant".to_owned(), variant.into_bytes()));
    }
    headers.extend(set_cookie.map(|cookie| ("set-cookie".to_owned(), cookie.into_bytes())));
    let (_done, done) = wit_future::new(|| Ok(()));
    let (stream, end) = Response::consume_body(response, done);
    respond(status, &headers, stream, end)
}

/// The error for a variant that did not respond.
fn unreachable(target: &Target, error: &ErrorCode) -> Refusal {
    let Target { variant, component, .. } = target;
    let message = match error {
        ErrorCode::HttpRequestDenied => format!(
            "variant `{variant}`: component `{component}` may not be called; write \
             allowed_outbound_hosts = [\"http://{component}.spin.internal\"]"
        ),
        error => format!("variant `{variant}`: component `{component}` did not respond: {error:?}"),
    };
    Refusal { status: 502, message }
}

/// The response for a request without assignment.
fn refuse(refusal: &Refusal) -> Result<Response, ErrorCode> {
    let body = serde_json::json!({ "error": refusal.message }).to_string().into_bytes();
    let headers = [
        ("content-type".to_owned(), b"application/json".to_vec()),
        ("content-length".to_owned(), body.len().to_string().into_bytes()),
    ];
    let (_, end) = wit_future::new(|| Ok(None));
    respond(refusal.status, &headers, whole(body), end)
}

fn respond(
    status: u16,
    headers: &[(String, Vec<u8>)],
    stream: StreamReader<u8>,
    end: End,
) -> Result<Response, ErrorCode> {
    let headers = Fields::from_list(headers).map_err(|error| {
        ErrorCode::InternalError(Some(format!("the response's headers: {error:?}")))
    })?;
    let (response, _sent) = Response::new(headers, Some(stream), end);
    response
        .set_status_code(status)
        .map_err(|()| ErrorCode::InternalError(Some(format!("{status} is not a status"))))?;
    Ok(response)
}
