//! The life of a request, a step a line.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tracing::debug;
use wasmtime_wasi_http::WasiBody;

use crate::http::body::{Body, RequestBody};
use crate::http::body::error::BodyError;
use crate::cache::counts::Outcome;
use crate::cache::generation::Scopes;
use crate::cache::{Found, Ticket, copied};
use crate::http::content_encoding::{AcceptEncoding, Admission, admit, compress};
use crate::guest::door::assign::Assigned;
use crate::guest::door::invalid_answer;
use crate::http::error::{Failure, said};
use crate::experiment::shadow::{self, ShadowCopy};
use crate::experiment::{Arm, ExperimentRouter};
use crate::host::{Host, Place, Served};
use crate::metrics::RouteMetrics;
use crate::http::model_index::{self, MODELS, REPOSITORY_INDEX};
use crate::prediction_log::endpoint::{self, FEEDBACK};
use crate::prediction_log::record::CacheOutcome;
use crate::prediction_log::{Recorder, RequestPredictions};
use crate::http::route::Pattern;
use crate::guest::component::Service;
use crate::http::spin_headers::{Client, Origin};

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
    let (version, method) = (request.version(), request.method().clone());
    let accepted = AcceptEncoding::of(request.headers());
    let cors = host.cors().map(|cors| (cors, request.headers().get(ORIGIN).cloned()));
    let preflight = cors.as_ref().and_then(|(cors, _)| cors.preflight(&method, request.headers()));
    let mut exchange = Exchange { unread: !request.body().is_end_stream(), arm: None };
    let response = match preflight.map(Ok).or_else(|| own(host, &request)) {
        Some(response) => response,
        // Rare, and they must not make the task of every connection larger.
        None if request.uri().path() == FEEDBACK => {
            Box::pin(endpoint::respond(host, request, &mut exchange.unread)).await
        }
        None if request.uri().path() == REPOSITORY_INDEX => {
            Box::pin(model_index::repository(host, request, &mut exchange.unread)).await
        }
        None => serve(host, client, Via::Route, request, start, &mut exchange).await,
    };
    let mut response = response.unwrap_or_else(|failure| {
        let mut response = failure.into_response();
        // Nobody reads the rest of the body, so that the connection cannot go on: it says so.
        if exchange.unread && version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    exchange.mark(&mut response);
    if let Some((cors, origin)) = cors {
        cors.mark(origin.as_ref(), response.headers_mut());
    }
    if host.compression().responses {
        response = compress(response, accepted, &method, host.answers()).await;
    }
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
    let mut exchange = Exchange::default();
    let response = serve(host, client, via, request, Instant::now(), &mut exchange).await;
    let mut response = response.unwrap_or_else(Failure::into_response);
    exchange.mark(&mut response);
    response
}

/// Has a shadow serve a copy of a request, and discards its response; the status of that.
pub async fn shadow(
    host: &Host,
    client: Client,
    arm: &Arm,
    head: Parts,
    body: Bytes,
) -> Option<StatusCode> {
    let target = Target::of(host.component(&arm.component)?)?;
    let (start, mut exchange) = (Instant::now(), Exchange::default());
    let arriving = Arriving::<WasiBody>::Admitted(RequestBody::Whole(body));
    let assigned = AssignedRequest { client, arm: Some(arm), copies: Vec::new(), route: None };
    let answer = answer(host, target, assigned, head, arriving, start, &mut exchange).await;
    target.metrics.answered(start.elapsed(), &answer);
    let (head, body) = answer.ok()?.into_parts();
    body.collect().await.ok().map(|_| head.status)
}

/// What becomes known of a request while it is served.
#[derive(Debug, Default)]
struct Exchange {
    /// Whether some of its body was left unread, which is known even if it fails.
    unread: bool,
    /// The variant it was assigned to.
    arm: Option<Arc<Arm>>,
}

impl Exchange {
    /// Says on the response whose it is, if a router assigned the request. The cache never sees that.
    fn mark(&self, response: &mut Response<Body>) {
        if let Some(arm) = &self.arm {
            arm.mark(response.headers_mut());
        }
    }
}

/// A request's body on its way in.
enum Arriving<B> {
    Raw(B),
    /// It had to be read to assign the request.
    Admitted(RequestBody),
}

/// Whose a request is.
struct AssignedRequest<'a> {
    client: Client,
    /// The variant, if a router assigned it.
    arm: Option<&'a Arm>,
    /// For shadows.
    copies: Vec<ShadowCopy>,
    /// The router's route, if a router assigned it: its predictions are logged under that.
    route: Option<Arc<str>>,
}

/// The component that serves a request, and under which route.
#[derive(Clone, Copy)]
struct Target<'a> {
    route: &'a Pattern,
    service: &'a Arc<Service>,
    scopes: &'a Scopes,
    metrics: &'a RouteMetrics,
    recorder: Option<&'a Recorder>,
}

impl<'a> Target<'a> {
    /// `None` if something else is there than a component that serves.
    fn of((route, place): &'a (Pattern, Place)) -> Option<Self> {
        let Served::Component(service, scopes) = &place.served else { return None };
        let (metrics, recorder) = (&*place.metrics, place.recorder.as_ref());
        Some(Self { route, service, scopes, metrics, recorder })
    }
}

/// Finds what serves a request, has it answered, and counts that.
async fn serve<B>(
    host: &Host,
    client: Client,
    via: Via,
    request: Request<B>,
    start: Instant,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let (metrics, answer) = match find(host, client, &via, &request) {
        Ok(found) => {
            let (head, body) = request.into_parts();
            let answer = match (&found.1.served, Target::of(found)) {
                (Served::Static(answer), _) => Ok(answer.response()),
                (_, Some(target)) => {
                    let request =
                        AssignedRequest { client, arm: None, copies: Vec::new(), route: None };
                    let body = Arriving::Raw(body);
                    answer(host, target, request, head, body, start, exchange).await
                }
                (_, None) => assign(host, client, found, head, body, start, exchange).await,
            };
            (&*found.1.metrics, answer)
        }
        Err(failure) => (&host.metrics().unrouted, Err(failure)),
    };
    let answer = answer.and_then(|answer| {
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, body.counted(host.answers())?))
    });
    metrics.answered(start.elapsed(), &answer);
    answer
}

/// The steps of a request that a router assigns: to a component, which may be another router.
async fn assign<B>(
    host: &Host,
    mut client: Client,
    mut found: &(Pattern, Place),
    mut head: Parts,
    body: B,
    start: Instant,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let route = Some(Arc::from(found.1.metrics.route.as_str()));
    let mut body = Arriving::Raw(body);
    let mut _held = None;
    let mut copies = Vec::new();
    while let Served::Assigned(router) = &found.1.served {
        let service = router.service();
        let limits = service.limits();
        let deadline = start + limits.deadline;
        client.hops += 1;
        if client.hops > HOPS_MOST {
            return Err(Failure::Loop { hops: client.hops });
        }
        let mut decides = Bytes::new();
        if service.needs_body(deadline).await? {
            if let Arriving::Raw(raw) = body {
                let whole = limits.fast_body.min(limits.request_body);
                let admission = admission(host, service, whole, deadline);
                let (held, admitted) = admit(&mut head, raw, admission).await?;
                _held = Some(held);
                exchange.unread = admitted.arrival().is_some();
                body = Arriving::Admitted(admitted);
            }
            if let Arriving::Admitted(admitted) = &body {
                decides = admitted.whole().cloned().unwrap_or_default();
            }
        }
        let (given_back, decided) = service.assign(head, decides, deadline, client.hops).await?;
        head = given_back;
        let assigned = match decided {
            Ok(assigned) => assigned,
            Err(refusal) => {
                let status = StatusCode::from_u16(refusal.status).ok();
                let status = status.filter(|s| s.is_client_error() || s.is_server_error());
                return match status {
                    Some(status) => Ok(said(status, &refusal.message)),
                    None => {
                        let problem = format!("{} is not the status of an error", refusal.status);
                        Err(invalid_answer(service.spec(), problem))
                    }
                };
            }
        };
        let invalid = |problem| invalid_answer(service.spec(), problem);
        let arm = follow(router, &assigned, &mut head, &mut copies).map_err(invalid)?;
        found = host.component(&arm.component).ok_or_else(|| {
            invalid(format!("it assigns to `{}`, and there is no such component", arm.component))
        })?;
        arm.assignments.count();
        exchange.arm = Some(arm);
    }
    let target = Target::of(found);
    let target = target.ok_or_else(|| Failure::NoRoute { path: head.uri.path().to_owned() })?;
    let arm = exchange.arm.clone();
    let assigned = AssignedRequest { client, arm: arm.as_deref(), copies, route };
    let answer = answer(host, target, assigned, head, body, start, exchange).await;
    target.metrics.answered(start.elapsed(), &answer);
    answer
}

/// Puts what a router decided into effect: the path its component is called with, and the `copies`
/// there are to be. Fails with what the router may not decide.
fn follow(
    router: &ExperimentRouter,
    assigned: &Assigned,
    head: &mut Parts,
    copies: &mut Vec<ShadowCopy>,
) -> Result<Arc<Arm>, String> {
    let Assigned { experiment, variant, component, path_with_query, shadows } = assigned;
    let find = |variant: &str, component: &str| {
        router.arm(experiment, variant, component).ok_or_else(|| {
            format!(
                "it assigns to `{component}`, which its allowed_outbound_hosts do not have, or its \
                 names of experiment and variant are no values of headers"
            )
        })
    };
    let with_path = |uri: &Uri, path: Option<&String>| {
        let Some(path) = path else { return Ok(uri.clone()) };
        let mut parts = uri.clone().into_parts();
        let path = PathAndQuery::try_from(path.as_str());
        parts.path_and_query = Some(path.map_err(|error| error.to_string())?);
        Uri::from_parts(parts).map_err(|error| error.to_string())
    };
    for shadow in shadows {
        let arm = find(&shadow.variant, &shadow.component)?;
        let uri = with_path(&head.uri, shadow.path_with_query.as_ref())?;
        copies.push(ShadowCopy { arm, uri });
    }
    if path_with_query.is_some() {
        head.uri = with_path(&head.uri, path_with_query.as_ref())?;
    }
    find(variant, component)
}

/// The steps of a request whose component is known.
async fn answer<B>(
    host: &Host,
    target: Target<'_>,
    AssignedRequest { client, arm, copies, route: routed }: AssignedRequest<'_>,
    mut head: Parts,
    body: Arriving<B>,
    start: Instant,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let Target { route, service, scopes, metrics, recorder } = target;
    let limits = service.limits();
    let deadline = start + limits.deadline;
    let mut _held = None;
    let body = match body {
        Arriving::Admitted(body) => body,
        Arriving::Raw(body) => {
            let mut whole = service.whole_body(&body.size_hint());
            if !copies.is_empty() {
                whole = limits.fast_body.min(limits.request_body);
            }
            let admission = admission(host, service, whole, deadline);
            let (held, admitted) = admit(&mut head, body, admission).await?;
            _held = Some(held);
            admitted
        }
    };
    let arrival = body.arrival();
    exchange.unread = arrival.is_some();
    for copy in copies {
        shadow::send(host, copy, client, &head, body.whole());
    }
    let (cache, source, counts) = (host.cache(), service.source(), &metrics.cache);
    let exposure = arm.map(|arm| &arm.exposure);
    let logged = recorder.map(|recorder| recorder.begin(&head, start, exposure, routed));
    let kept = cache.look_up(source, scopes, counts, &head, body.whole(), deadline);
    let (mut answer, outcome) = match kept.await? {
        Found::Answer(answer) => (answer, CacheOutcome::Hit),
        Found::Collapsed(answer) => (answer, CacheOutcome::Collapsed),
        Found::Ageing(answer, ticket) => {
            refresh(host, target, client, &head, body, ticket);
            (answer, CacheOutcome::Hit)
        }
        Found::Nothing(ticket) => {
            let outcome = ticket.outcome();
            outcome.into_iter().for_each(|outcome| counts.got(outcome));
            let predictions =
                logged.as_ref().map(|logged| Arc::new(RequestPredictions::new(logged.id())));
            let origin = Origin { route, client, predictions: predictions.as_ref() };
            let answer = service.invoke(head, body, deadline, origin).await;
            exchange.unread = arrival.is_some_and(|arrival| !arrival.is_complete());
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

/// What of a body of up to `whole` bytes may be in memory, for `service`.
fn admission<'a>(
    host: &'a Host,
    service: &Service,
    whole: usize,
    deadline: Instant,
) -> Admission<'a> {
    Admission {
        budget: host.bodies(),
        whole,
        limit: service.limits().request_body,
        deadline,
        decode: host.compression().requests,
    }
}

/// Has an answer made again, for those who come later, unless another node has done it. Nobody was
/// served by that: its predictions are not logged, but go into the cache with it.
fn refresh(
    host: &Host,
    Target { route, service, recorder, .. }: Target<'_>,
    client: Client,
    head: &Parts,
    body: RequestBody,
    ticket: Ticket,
) {
    let again = copied(head);
    let (cache, service, route) = (Arc::clone(host.cache()), Arc::clone(service), route.clone());
    let deadline = Instant::now() + service.limits().deadline;
    let predictions = recorder.map(Recorder::unrecorded);
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
/// Open Inference Protocol has them, `/v2/models`, as KServe has it, and `/.well-known/spin/health` and `/.well-known/spin/info`, as
/// Spin has them.
fn own<B>(host: &Host, request: &Request<B>) -> Option<Result<Response<Body>, Failure>> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
    let path = request.uri().path();
    let answer = match path {
        SERVER => Ok((JSON, METADATA.to_owned())),
        LIVE => Ok((JSON, "{\"live\":true}".to_owned())),
        MODELS => Ok((JSON, model_index::names(host))),
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
