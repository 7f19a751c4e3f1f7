//! The life of a request, a step a line.

use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, EXPECT, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tokio::time::timeout_at;
use tracing::debug;

use crate::body::{Body, RequestBody};
use crate::error::Failure;
use crate::host::Host;

/// Answers one request. Never fails: a failure is an answer too.
pub async fn handle<B>(host: &Host, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin + Send + 'static,
{
    let start = Instant::now();
    let target = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().clone()));
    let response = match health(host, &request) {
        Some(response) => response,
        None => serve(host, request, start).await.unwrap_or_else(Failure::into_response),
    };
    if let Some((method, uri)) = target {
        debug!(%method, %uri, status = response.status().as_u16(), took = ?start.elapsed(), "served");
    }
    response
}

async fn serve<B>(
    host: &Host,
    request: Request<B>,
    start: Instant,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin + Send + 'static,
{
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let service = host.find(path).ok_or_else(|| Failure::NoRoute { path: path.to_owned() })?;
    let limits = service.limits();
    let deadline = start + limits.deadline;
    let waits = head.headers.contains_key(EXPECT);
    let admitting = RequestBody::admit(body, service.whole_body(), limits.request_body, waits);
    let body = timeout_at(deadline.into(), admitting).await.map_err(|_| Failure::BodyTimeout)??;
    service.invoke(head, body, deadline).await
}

/// `/v2/health/live` and `/v2/health/ready`, as the Open Inference Protocol has them: the host's
/// own paths, before any route.
fn health<B>(host: &Host, request: &Request<B>) -> Option<Response<Body>> {
    let (key, ok) = match request.uri().path() {
        "/v2/health/live" => ("live", true),
        "/v2/health/ready" => ("ready", host.is_ready()),
        _ => return None,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let json = format!("{{\"error\":\"{} takes GET\"}}", request.uri().path());
        let mut response = json_response(StatusCode::METHOD_NOT_ALLOWED, json);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Some(json_response(status, format!("{{\"{key}\":{ok}}}")))
}

fn json_response(status: StatusCode, json: String) -> Response<Body> {
    let mut response = Response::new(Body::whole(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
