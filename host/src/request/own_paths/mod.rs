//! Step 1: the host's own paths, which no route can take.

mod feedback;
mod listing;
mod model_index;
mod page;

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as HttpBody;

use super::exchange::Exchange;
use crate::host::Host;
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::error::Failure;
use crate::http::error_response::error_response;
use crate::http::reserved::{FEEDBACK, LIVE, MODELS, READY, REPOSITORY_INDEX, SERVER, WELL_KNOWN};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// The path of the list of models for people, unless a route of the application takes it.
const ROOT: &str = "/";

/// Time for the request of an own path that takes a body: for the body to arrive and, of feedback, to
/// be committed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The server metadata of the Open Inference Protocol. The extensions are those of `model-sdk`'s
/// components.
const METADATA: &str = concat!(
    r#"{"name":"spinfer","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#"","extensions":["binary_tensor_data"]}"#
);

/// The response, if the path is one of the host's own.
pub(super) async fn respond<B>(
    host: &Host,
    exchange: &mut Exchange<B>,
) -> Option<Result<Response<Body>, Failure>>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    // Those that read a body are rare: boxed, they do not enlarge the task of every connection.
    let path = exchange.head.uri.path();
    let posted = match path {
        FEEDBACK => feedback::respond(host, exchange).boxed(),
        REPOSITORY_INDEX => model_index::repository(host, exchange).boxed(),
        MODELS => return Some(listed(host, &exchange.head)),
        // A route of the application takes precedence, and an application without models has no list.
        ROOT if is_read(&exchange.head.method)
            && host.find(ROOT).is_none()
            && host.has_models() =>
        {
            return Some(listed(host, &exchange.head));
        }
        _ => return document(host, &exchange.head.method, path),
    };
    Some(posted.await)
}

/// The documents that `GET` returns.
fn document(host: &Host, method: &Method, path: &str) -> Option<Result<Response<Body>, Failure>> {
    let document = match path {
        SERVER => Ok((JSON, METADATA.to_owned())),
        LIVE => Ok((JSON, "{\"live\":true}".to_owned())),
        READY => host.ready().map(|()| (JSON, host.readiness())),
        _ => match path.strip_prefix(WELL_KNOWN)? {
            "health" => Ok((TEXT, "OK".to_owned())),
            "info" => Ok((JSON, host.info().to_owned())),
            _ => return Some(Err(Failure::NoRoute { path: path.to_owned(), nearest: Vec::new() })),
        },
    };
    let document = if is_read(method) {
        document
    } else {
        Err(Failure::MethodNotAllowed { path: path.to_owned() })
    };
    Some(document.map(|(content_type, text)| response(content_type, text)))
}

/// The list of models.
fn listed(host: &Host, head: &Parts) -> Result<Response<Body>, Failure> {
    match is_read(&head.method) {
        true => Ok(listing::respond(host, &head.headers)),
        false => Err(Failure::MethodNotAllowed { path: head.uri.path().to_owned() }),
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn response(content_type: HeaderValue, text: String) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The refusal of every other method than `POST`.
fn only_post(path: &str) -> Response<Body> {
    let mut response =
        error_response(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} supports only POST"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}
