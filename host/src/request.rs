//! The life of a request, a step a line.

use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use http_body::Body as HttpBody;
use tokio::time::timeout_at;
use tracing::debug;

use crate::body::{Body, RequestBody};
use crate::error::Failure;
use crate::host::Host;

/// The host's own paths.
pub const LIVE: &str = "/v2/health/live";
pub const READY: &str = "/v2/health/ready";

/// Answers one request. Never fails: a failure is an answer too.
pub async fn handle<B>(host: &Host, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin + Send + 'static,
{
    let start = Instant::now();
    let target = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().clone()));
    let version = request.version();
    let mut unread = !request.body().is_end_stream();
    let response = match health(host, &request) {
        Some(response) => response,
        None => serve(host, request, start, &mut unread).await,
    };
    let response = response.unwrap_or_else(|failure| {
        let mut response = failure.into_response();
        // Nobody reads the rest of the body, so that the connection cannot go on: it says so.
        if unread && version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    if let Some((method, uri)) = target {
        debug!(%method, %uri, status = response.status().as_u16(), took = ?start.elapsed(), "served");
    }
    response
}

/// The steps of a request that a component serves. What of its body is left `unread` is said even
/// if it fails.
async fn serve<B>(
    host: &Host,
    request: Request<B>,
    start: Instant,
    unread: &mut bool,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin + Send + 'static,
{
    let (head, body) = request.into_parts();
    check_host(&head)?;
    let path = head.uri.path();
    let service = host.find(path).ok_or_else(|| Failure::NoRoute { path: path.to_owned() })?;
    let limits = service.limits();
    let deadline = start + limits.deadline;
    let waits = head.headers.contains_key(EXPECT);
    let _held = host.bodies().hold(&body.size_hint(), service.whole_body())?;
    let admitting = RequestBody::admit(body, service.whole_body(), limits.request_body, waits);
    let body = timeout_at(deadline.into(), admitting).await.map_err(|_| Failure::BodyTimeout)??;
    let arrival = body.arrival();
    let answer = service.invoke(head, body, deadline).await;
    *unread = arrival.is_some_and(|arrival| !arrival.is_complete());
    answer
}

/// HTTP/1.1 asks for exactly one `Host` (RFC 9112, 3.2), and `wasi:http` has no request without.
fn check_host(head: &Parts) -> Result<(), Failure> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let one = hosts.next().is_none_or(|host| host.to_str().is_ok()) && hosts.next().is_none();
    let named = head.headers.contains_key(HOST) || head.uri.host().is_some();
    if one && (named || head.version != Version::HTTP_11) { Ok(()) } else { Err(Failure::NoHost) }
}

/// `/v2/health/live` and `/v2/health/ready`, as the Open Inference Protocol has them: the host's
/// own paths, before any route.
fn health<B>(host: &Host, request: &Request<B>) -> Option<Result<Response<Body>, Failure>> {
    let health = match request.uri().path() {
        LIVE => Ok("{\"live\":true}"),
        READY => host.ready().map(|()| "{\"ready\":true}"),
        _ => return None,
    };
    let health = match *request.method() {
        Method::GET | Method::HEAD => health,
        _ => Err(Failure::OnlyGet { path: request.uri().path().to_owned() }),
    };
    Some(health.map(|json| {
        let mut response = Response::new(Body::whole(json));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }))
}
