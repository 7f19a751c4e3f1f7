//! The life of a request, a step a line.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::time::timeout_at;
use tracing::debug;
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use crate::body::{Body, RequestBody};
use crate::cache::counts::Outcome;
use crate::cache::{Found, Ticket, copied};
use crate::error::Failure;
use crate::host::{Host, Place, Served};
use crate::prediction_log::endpoint::{self, FEEDBACK};
use crate::prediction_log::record::CacheOutcome;
use crate::prediction_log::{Recorder, RequestPredictions};
use crate::route::Pattern;
use crate::service::Service;
use crate::spin_headers::{Client, Origin};

/// The host's own paths.
pub const SERVER: &str = "/v2";
pub const LIVE: &str = "/v2/health/live";
pub const READY: &str = "/v2/health/ready";
/// The beginning of those that are Spin's.
pub const WELL_KNOWN: &str = "/.well-known/spin/";

/// How a host ends that only components may ask for, in lower case.
pub const INTERNAL: &str = ".spin.internal";

/// Components a request may come through, one calling the next.
const HOPS_MOST: usize = 16;

/// How what serves a request is found.
#[derive(Debug)]
pub enum Via {
    /// By its path.
    Route,
    /// By the id of a component.
    Component(String),
}

/// What the server is, as the Open Inference Protocol asks at `/v2`. The extensions are those of
/// `model-sdk`'s components.
const METADATA: &str = concat!(
    r#"{"name":"spinfer","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#"","extensions":["binary_tensor_data"]}"#
);

/// Answers one request of `client`. Never fails: a failure is an answer too.
pub async fn handle<B>(host: &Host, client: Client, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin + Send + 'static,
{
    let start = Instant::now();
    let target = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().clone()));
    let version = request.version();
    let mut unread = !request.body().is_end_stream();
    let response = match own(host, &request) {
        Some(response) => response,
        None if request.uri().path() == FEEDBACK => {
            // Rare, and it must not make the task of every connection larger.
            Box::pin(endpoint::respond(host, request, &mut unread)).await
        }
        None => serve(host, client, Via::Route, request, start, &mut unread).await,
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

/// Answers one request of a component, which has come through `hops` of them.
pub async fn chain(
    host: &Host,
    via: Via,
    hops: usize,
    request: Request<WasiBody>,
) -> Response<Body> {
    let client = Client { hops, ..Origin::inside().client };
    // There is no connection to be closed.
    let mut unread = false;
    let response = serve(host, client, via, request, Instant::now(), &mut unread).await;
    response.unwrap_or_else(Failure::into_response)
}

/// Finds what serves a request, has it answered, and counts that. What of its body is left `unread`
/// is said even if it fails.
async fn serve<B>(
    host: &Host,
    client: Client,
    via: Via,
    request: Request<B>,
    start: Instant,
    unread: &mut bool,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<WasiHttpError> + Display> + Unpin + Send + 'static,
{
    let (metrics, answer) = match find(host, client, &via, &request) {
        Ok(found) => (&*found.1.metrics, answer(host, client, found, request, start, unread).await),
        Err(failure) => (&host.metrics().unrouted, Err(failure)),
    };
    let answer = answer.and_then(|answer| {
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, body.counted(host.answers())?))
    });
    metrics.answered(start.elapsed(), &answer);
    answer
}

/// The steps of a request that has a route.
async fn answer<B>(
    host: &Host,
    client: Client,
    found: &(Pattern, Place),
    request: Request<B>,
    start: Instant,
    unread: &mut bool,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<WasiHttpError> + Display> + Unpin + Send + 'static,
{
    let (route, place) = found;
    let (service, scopes) = match &place.served {
        Served::Component(service, scopes) => (service, scopes),
        Served::Static(answer) => return Ok(answer.response()),
    };
    let (head, body) = request.into_parts();
    let limits = service.limits();
    let deadline = start + limits.deadline;
    let waits = head.headers.contains_key(EXPECT);
    let whole = service.whole_body(&body.size_hint());
    let _held = host.bodies().hold(&body.size_hint(), whole)?;
    let admitting = RequestBody::admit(body, whole, limits.request_body, waits);
    let body = timeout_at(deadline.into(), admitting).await.map_err(|_| Failure::BodyTimeout)??;
    let arrival = body.arrival();
    *unread = arrival.is_some();
    let (cache, source, counts) = (host.cache(), service.source(), &place.metrics.cache);
    let logged = place.recorder.as_ref().map(|recorder| recorder.begin(&head, start));
    let kept = cache.look_up(source, scopes, counts, &head, body.whole(), deadline);
    let (mut answer, outcome) = match kept.await? {
        Found::Answer(answer) => (answer, CacheOutcome::Hit),
        Found::Collapsed(answer) => (answer, CacheOutcome::Collapsed),
        Found::Ageing(answer, ticket) => {
            refresh(host, service, found, client, &head, body, ticket);
            (answer, CacheOutcome::Hit)
        }
        Found::Nothing(ticket) => {
            let outcome = ticket.outcome();
            outcome.into_iter().for_each(|outcome| counts.got(outcome));
            let predictions =
                logged.as_ref().map(|logged| Arc::new(RequestPredictions::new(logged.id())));
            let origin = Origin { route, client, predictions: predictions.as_ref() };
            let answer = service.invoke(head, body, deadline, origin).await;
            *unread = arrival.is_some_and(|arrival| !arrival.is_complete());
            let outcome = match outcome {
                Some(Outcome::Miss) => CacheOutcome::Miss,
                _ => CacheOutcome::Bypass,
            };
            (cache.keep(source, ticket, answer)?, outcome)
        }
    };
    if let (Some(logged), Some(log)) = (logged, host.prediction_log()) {
        logged.record(&mut answer, outcome, |entry| log.append(entry));
    }
    Ok(answer)
}

/// Has an answer made again, for those who come later, unless another node has done it. Nobody was
/// served by that: its predictions are not logged, but go into the cache with it.
fn refresh(
    host: &Host,
    service: &Arc<Service>,
    (route, place): &(Pattern, Place),
    client: Client,
    head: &Parts,
    body: RequestBody,
    ticket: Ticket,
) {
    let again = copied(head);
    let (cache, service, route) = (Arc::clone(host.cache()), Arc::clone(service), route.clone());
    let deadline = Instant::now() + service.limits().deadline;
    let predictions = place.recorder.as_ref().map(Recorder::unrecorded);
    tokio::spawn(async move {
        let Some(ticket) = cache.renewed(ticket).await else { return };
        let origin = Origin { route: &route, client, predictions: predictions.as_ref() };
        let answer = service.invoke(again, body, deadline, origin).await;
        match cache.keep(service.source(), ticket, answer) {
            // It is kept once all of it was read.
            Ok(answer) => drop(answer.into_body().collect().await),
            Err(failure) => debug!(%failure, "an answer could not be made again"),
        }
    });
}

fn find<'a, B>(
    host: &'a Host,
    client: Client,
    via: &Via,
    request: &Request<B>,
) -> Result<&'a (Pattern, Place), Failure> {
    match client.hops {
        0 => check_host(request)?,
        hops if hops > HOPS_MOST => return Err(Failure::Loop { hops }),
        _ => {}
    }
    let path = request.uri().path();
    match via {
        Via::Route => host.find(path).ok_or_else(|| Failure::NoRoute { path: path.to_owned() }),
        Via::Component(id) => {
            host.component(id).ok_or_else(|| Failure::NoComponent { component: id.clone() })
        }
    }
}

/// HTTP/1.1 asks for exactly one `Host` (RFC 9112, 3.2), and `wasi:http` has no request without.
/// Hosts of components are for components.
fn check_host<B>(request: &Request<B>) -> Result<(), Failure> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next().map(|host| host.to_str().map_err(|_| Failure::NoHost)).transpose()?;
    if hosts.next().is_some() {
        return Err(Failure::NoHost);
    }
    let target = request.uri().host();
    if header.is_none() && target.is_none() && request.version() == Version::HTTP_11 {
        return Err(Failure::NoHost);
    }
    match header.into_iter().chain(target).find(|host| is_internal(host)) {
        Some(host) => Err(Failure::InternalHost { host: host.to_owned() }),
        None => Ok(()),
    }
}

/// Whether `host`, with a port or without, is that of a component.
fn is_internal(host: &str) -> bool {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let start = name.len().saturating_sub(INTERNAL.len());
    name[start..].eq_ignore_ascii_case(INTERNAL.as_bytes())
}

/// The host's own paths, before any route: `/v2`, `/v2/health/live` and `/v2/health/ready`, as the
/// Open Inference Protocol has them, and `/.well-known/spin/health` and `/.well-known/spin/info`, as
/// Spin has them.
fn own<B>(host: &Host, request: &Request<B>) -> Option<Result<Response<Body>, Failure>> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
    let path = request.uri().path();
    let answer = match path {
        SERVER => Ok((JSON, METADATA.to_owned())),
        LIVE => Ok((JSON, "{\"live\":true}".to_owned())),
        READY => host.ready().map(|()| (JSON, host.readiness())),
        _ => match path.strip_prefix(WELL_KNOWN)? {
            "health" => Ok((TEXT, "OK".to_owned())),
            "info" => Ok((JSON, host.info().to_owned())),
            _ => return Some(Err(Failure::NoRoute { path: path.to_owned() })),
        },
    };
    let answer = match *request.method() {
        Method::GET | Method::HEAD => answer,
        _ => Err(Failure::OnlyGet { path: path.to_owned() }),
    };
    Some(answer.map(|(kind, text)| {
        let mut response = Response::new(Body::whole(text));
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_components_are_known_however_they_are_written() {
        for host in
            ["a.spin.internal", "A.Spin.Internal", "a.spin.internal:80", "x.y.spin.internal."]
        {
            assert!(is_internal(host), "{host}");
        }
        for host in ["", "spin.internal", "a.spin.internal.org", "internal", "[::1]:80", "é"] {
            assert!(!is_internal(host), "{host}");
        }
    }
}
