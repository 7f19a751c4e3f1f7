//! The path of a request, from its head to its response. The numbers are those of ARCHITECTURE.md.

mod assignment;
mod exchange;
mod own_paths;
mod shadow;

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONNECTION, HOST, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Request, Response, Uri, Version};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tracing::debug;
use uuid::Uuid;
use wasmtime_wasi_http::WasiBody;

use crate::cache::counts::Outcome;
use crate::cache::generation::PurgeScopes;
use crate::cache::{CacheStatus, Lookup, Pending, copied};
use crate::capabilities::outbound_http::{Chain, Via};
use crate::experiment::ServedAssignment;
use crate::guest::component::Component;
use crate::host::{Host, Listening, RouteTarget, Served};
use crate::http::authority::{self, Authority};
use crate::http::body::delivery::DeliveredRoute;
use crate::http::body::error::BodyError;
use crate::http::body::response_memory::MIN_CHARGED;
use crate::http::body::{Body, LimitedParts, RequestBody};
use crate::http::content_encoding::{AcceptEncoding, Admission, compress};
use crate::http::cors::Cors;
use crate::http::error::Failure;
use crate::http::framing::framed;
use crate::http::request_log::{LoggedRequest, LoggedResponse};
use crate::http::reserved::INTERNAL;
use crate::http::route::Pattern;
use crate::http::spin_headers::{RequestOrigin, RequestSource};
use crate::metrics::RouteMetrics;
use crate::prediction_log::record::{CacheOutcome, LogEntry};
use crate::prediction_log::settings::LogMode;
use crate::prediction_log::{self, Appended, Recorder, RequestPredictions};
use exchange::{ComparedPredictions, Exchange};
use shadow::ShadowCopy;

/// Maximum number of components that a request may pass through, each calling the next.
const MAX_HOPS: usize = 16;

/// Serves one request of `client`. A failure becomes a response too.
pub async fn handle<B>(host: &Host, client: RequestSource, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin + Send + 'static,
{
    let logged = LoggedRequest::of(&request);
    let terms = ResponseTerms::of(host, client, &request);
    let mut exchange = Exchange::new(client, request.map(LimitedParts::new));
    let served = match check_host(&mut exchange.head, client) {
        Ok(()) => serve_client(host, &terms, &mut exchange).await,
        Err(failure) => {
            let refused = Err(failure);
            count(&host.metrics().unrouted, exchange.start, &refused);
            refused
        }
    };
    // 8. Respond.
    let failure = LoggedResponse::failure_of(&served);
    let mut response = served.unwrap_or_else(|failure| {
        let mut response = failure.into_response();
        if terms.version <= Version::HTTP_11 && !exchange.connection_reusable() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    mark(&exchange, &mut response);
    // Not on a response to another component, which is not the cache's client.
    if let Some(status) = exchange.cache_status.filter(|_| host.cache().status_header()) {
        status.put_into(response.headers_mut());
    }
    let method = terms.method.clone();
    let response = framed(terms.apply(host, response).await, &method);
    let (status, took) = (response.status(), exchange.start.elapsed());
    let route = |path: &str| host.find(path).map(|(pattern, _)| pattern.raw());
    host.request_log().served(&logged, LoggedResponse { status, took, failure }, route);
    response
}

/// Steps 1 to 7 of a request of a client.
async fn serve_client<B>(
    host: &Host,
    terms: &ResponseTerms<'_>,
    exchange: &mut Exchange<B>,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    if let Some(response) = terms.preflight(&exchange.head) {
        return Ok(response);
    }
    // 1. The host's own paths.
    match own_paths::respond(host, exchange).await {
        Some(response) => response,
        None => serve(host, Via::Route, exchange).await,
    }
}

/// The client's conditions for any response.
struct ResponseTerms<'h> {
    client: Option<IpAddr>,
    version: Version,
    method: Method,
    accepted: AcceptEncoding,
    /// If the application allows other origins: how, and the origin of the request.
    cors: Option<(&'h Cors, Option<HeaderValue>)>,
}

impl<'h> ResponseTerms<'h> {
    fn of<B>(host: &'h Host, client: RequestSource, request: &Request<B>) -> Self {
        Self {
            client: client.client(),
            version: request.version(),
            method: request.method().clone(),
            accepted: AcceptEncoding::of(request.headers()),
            cors: host.cors().map(|cors| (cors, request.headers().get(ORIGIN).cloned())),
        }
    }

    /// The response to a CORS preflight request, if this is one.
    fn preflight(&self, head: &Parts) -> Option<Response<Body>> {
        self.cors.as_ref().and_then(|(cors, _)| cors.preflight(&self.method, &head.headers))
    }

    /// `response` with its CORS headers, compressed if the client accepts that.
    async fn apply(self, host: &Host, mut response: Response<Body>) -> Response<Body> {
        if let Some((cors, origin)) = self.cors {
            cors.mark(origin.as_ref(), response.headers_mut());
        }
        if !host.compression().responses {
            return response;
        }
        compress(response, self.accepted, &self.method, host.response_memory(), self.client).await
    }
}

/// Names the experiment and the variant in the response to a request that a router assigned, and the
/// id of what a failed request predicted. The response cache never sees these headers.
fn mark<B>(exchange: &Exchange<B>, response: &mut Response<Body>) {
    if let Some(assignment) = &exchange.assignment {
        assignment.mark(response.headers_mut());
    }
    if let Some(id) = exchange.failed_prediction {
        prediction_log::mark(response, id);
    }
}

impl Chain for Host {
    fn chain(
        self: Arc<Self>,
        via: Via,
        hops: usize,
        request: Request<WasiBody>,
    ) -> BoxFuture<'static, Response<Body>> {
        async move {
            let mut client = RequestSource { hops, ..RequestOrigin::inside().client };
            if let Some(Listening { scheme, address }) = self.listening() {
                client = RequestSource { local: address, scheme, ..client };
            }
            let mut exchange = Exchange::new(client, request);
            address(&via, client, &mut exchange.head);
            let served = serve(&self, via, &mut exchange).await;
            let mut response = served.unwrap_or_else(Failure::into_response);
            mark(&exchange, &mut response);
            response
        }
        .boxed()
    }
}

/// Replaces the host of a chained request: for the application's own routes by the address that clients
/// reach it at, as in Spin, and for a component by its host name.
fn address(via: &Via, client: RequestSource, head: &mut Parts) {
    let host = match via {
        Via::Route => authority::of_address(client.local),
        Via::Component(id) => format!("{id}{INTERNAL}"),
    };
    head.headers.remove(HOST);
    head.headers.extend(HeaderValue::try_from(host).ok().map(|host| (HOST, host)));
    let target = head.uri.path_and_query().cloned();
    head.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// The component that serves a request, and what belongs to the route.
#[derive(Clone, Copy)]
struct ComponentTarget<'a> {
    route: &'a Pattern,
    component: &'a Arc<Component>,
    scopes: &'a PurgeScopes,
    metrics: &'a Arc<RouteMetrics>,
    recorder: Option<&'a Recorder>,
}

impl<'a> ComponentTarget<'a> {
    /// `None` for a static response and for a router.
    fn of((route, target): &'a (Pattern, RouteTarget)) -> Option<Self> {
        let Served::Component(component, scopes) = &target.served else { return None };
        let (metrics, recorder) = (&target.metrics, target.recorder.as_ref());
        Some(Self { route, component, scopes, metrics, recorder })
    }
}

/// Steps 2 to 7, counted by route.
async fn serve<B>(
    host: &Host,
    via: Via,
    exchange: &mut Exchange<B>,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    // 2. Route.
    let mut delivered = None;
    let (metrics, served) = match find(host, &via, exchange.client, &exchange.head) {
        Err(failure) => (&host.metrics().unrouted, Err(failure)),
        Ok(found @ (_, target)) => {
            delivered = Some(&target.metrics);
            let served = match (&target.served, ComponentTarget::of(found)) {
                (Served::Static(response), _) => Ok(response.response()),
                (_, Some(target)) => serve_component(host, target, exchange, Vec::new()).await,
                (_, None) => assignment::serve(host, found, exchange).await,
            };
            (&*target.metrics, served)
        }
    };
    let served = match served {
        Ok(response) => {
            let held = hold(host, response, exchange.client, delivered).await;
            if held.is_err() {
                exchange.cache_status = None;
            }
            held
        }
        Err(failure) => {
            // 7. Record what it predicted before it failed.
            exchange.failed_prediction = record_failed(host, mem::take(&mut exchange.failed));
            Err(failure)
        }
    };
    count(metrics, exchange.start, &served);
    served
}

/// Records what a failed request had predicted; its response does not wait for the log. Returns the
/// id if the log accepts it.
fn record_failed(host: &Host, entries: Vec<LogEntry>) -> Option<Uuid> {
    let (log, id) = (host.prediction_log()?, entries.first()?.context.id);
    let mut accepted = false;
    // Every entry, even after one that the log accepts.
    for entry in entries {
        accepted |= log.append(entry);
    }
    accepted.then_some(id)
}

/// Holds the response in memory until its client has read it, under the route that it is given up as if
/// the client does not.
async fn hold(
    host: &Host,
    response: Response<Body>,
    client: RequestSource,
    route: Option<&Arc<RouteMetrics>>,
) -> Result<Response<Body>, Failure> {
    let (mut head, body) = response.into_parts();
    let body = body.held(host.response_memory(), client.client()).await;
    let body = body.map_err(|_| Failure::MemoryBudgetExhausted)?;
    if body.whole_size().is_none_or(|size| size >= MIN_CHARGED)
        && let Some(route) = route
    {
        head.extensions.insert(DeliveredRoute(Arc::clone(route)));
    }
    Ok(Response::from_parts(head, body))
}

/// Steps 3 to 7 of a request whose component is known; `copies` are for shadows.
async fn serve_component<B>(
    host: &Host,
    target: ComponentTarget<'_>,
    exchange: &mut Exchange<B>,
    copies: Vec<ShadowCopy>,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let ComponentTarget { route, component, scopes, metrics, recorder } = target;
    // Those of another component, if this one is its fallback.
    exchange.failed.clear();
    let limits = component.limits();
    let deadline = exchange.start + limits.deadline;
    let logged = recorder.map(|recorder| {
        let exposure = exchange.assignment.as_ref().and_then(ServedAssignment::exposure);
        recorder.begin(&exchange.head, exchange.start, exposure, exchange.router_route.clone())
    });
    // A response that cannot be recorded is not computed. Metadata, which GET reads, has no records.
    if let (Some(logged), Some(log)) = (&logged, host.prediction_log())
        && logged.awaits_disk()
        && !exchange.head.method.is_safe()
    {
        log.check_writable()?;
    }
    // 3. Admit the body.
    let whole = match copies.is_empty() {
        true => component.buffered_body_limit(&exchange.size_hint()),
        false => limits.buffered_body.min(limits.request_body),
    };
    exchange.admit(admission(host, component, whole, deadline)).await?;
    for copy in copies {
        shadow::send(host, copy, exchange.client, &exchange.head, exchange.whole_body());
    }
    // 4. Look up a cached response.
    let (cache, state, counts) = (host.cache(), component.cache_state(), &metrics.cache);
    let (head, body) = exchange.take();
    let found = cache.look_up(state, scopes, counts, &head, body.whole(), deadline).await;
    if let Err(Failure::NotCached) = found {
        exchange.cache_status = Some(CacheStatus::NotCached);
    }
    let (mut response, status, outcome) = match found? {
        Lookup::Hit(response, status) => (response, Some(status), CacheOutcome::Hit),
        Lookup::Collapsed(response, status) => (response, Some(status), CacheOutcome::Collapsed),
        Lookup::RefreshAhead(response, status, pending) => {
            refresh(host, target, exchange.client, &head, body, pending);
            (response, Some(status), CacheOutcome::Hit)
        }
        Lookup::Miss(pending) => {
            let outcome = pending.outcome();
            outcome.into_iter().for_each(|outcome| counts.served(outcome));
            // 5. Invoke the component.
            let predictions =
                logged.as_ref().map(|logged| Arc::new(RequestPredictions::new(logged.id())));
            let origin =
                RequestOrigin { route, client: exchange.client, predictions: predictions.as_ref() };
            let response = component.invoke(head, body, deadline, origin).await;
            // 6. Cache the response.
            let outcome = match outcome {
                Some(Outcome::Miss) => CacheOutcome::Miss,
                _ => CacheOutcome::Bypass,
            };
            match cache.store(state, pending, response) {
                Ok((response, status)) => (response, status, outcome),
                Err(failure) => {
                    let appended = predictions.map(|of| of.take()).unwrap_or_default();
                    if let Some(logged) = logged.filter(|_| !appended.is_empty()) {
                        let entries = logged.entries_of(appended, failure.status(), outcome);
                        exchange.failed = entries.into_iter().flatten().collect();
                    }
                    return Err(failure);
                }
            }
        }
    };
    // 7. Record the predictions.
    if let ComparedPredictions::Compared(predictions) = &mut exchange.predictions {
        *predictions = response.extensions().get::<Appended>().cloned();
    }
    if let (Some(logged), Some(log)) = (logged, host.prediction_log()) {
        match logged.mode() {
            LogMode::BestEffort => {
                logged.record(&mut response, outcome, |entry| log.append(entry));
            }
            mode @ (LogMode::Durable | LogMode::Synchronous) => {
                let id = logged.id();
                if let Some(entries) = logged.entries(&mut response, outcome) {
                    // Boxed, it does not enlarge the task of every connection.
                    log.submit(entries, mode, deadline).boxed().await?;
                    prediction_log::mark(&mut response, id);
                }
            }
        }
    }
    exchange.cache_status = status;
    response.body_mut().report_to(metrics);
    Ok(response)
}

/// Counts the response to a request that arrived at `start`.
fn count(metrics: &RouteMetrics, start: Instant, served: &Result<Response<Body>, Failure>) {
    let (status, reason) = match served {
        Ok(response) => (response.status(), None),
        Err(failure) => (failure.status(), Some(failure.reason())),
    };
    metrics.responded(start.elapsed(), status, reason);
}

/// How a body for `component` is admitted: of at most `whole` bytes as a whole.
fn admission<'a>(
    host: &'a Host,
    component: &Component,
    whole: usize,
    deadline: Instant,
) -> Admission<'a> {
    Admission {
        budget: host.body_budget(),
        whole,
        limit: component.limits().request_body,
        deadline,
        decode: host.compression().requests,
    }
}

/// Refreshes a cached response in the background, unless another node has done so. Its predictions
/// are cached with it, and not logged, since no client was served by it.
fn refresh(
    host: &Host,
    ComponentTarget { route, component, recorder, .. }: ComponentTarget<'_>,
    client: RequestSource,
    head: &Parts,
    body: RequestBody,
    pending: Pending,
) {
    let head = copied(head);
    let (cache, component, route) =
        (Arc::clone(host.cache()), Arc::clone(component), route.clone());
    let deadline = Instant::now() + component.limits().deadline;
    let predictions = recorder.map(Recorder::unrecorded);
    tokio::spawn(async move {
        let Some(pending) = cache.refreshed_elsewhere(pending).await else { return };
        let origin = RequestOrigin { route: &route, client, predictions: predictions.as_ref() };
        let response = component.invoke(head, body, deadline, origin).await;
        match cache.store(component.cache_state(), pending, response) {
            // A response is cached once it was read to its end.
            Ok((response, _)) => drop(response.into_body().collect().await),
            Err(failure) => debug!(%failure, "a cached response could not be refreshed"),
        }
    });
}

/// What serves the request.
fn find<'a>(
    host: &'a Host,
    via: &Via,
    client: RequestSource,
    head: &Parts,
) -> Result<&'a (Pattern, RouteTarget), Failure> {
    if client.hops > MAX_HOPS {
        return Err(Failure::Loop { hops: client.hops });
    }
    let path = head.uri.path();
    // The target of CONNECT, which no component can serve, is only a host.
    if path.is_empty() {
        return Err(Failure::NoRoute { path: head.uri.to_string(), nearest: Vec::new() });
    }
    match via {
        Via::Route => host
            .find(path)
            .ok_or_else(|| Failure::NoRoute { path: path.to_owned(), nearest: host.nearest(path) }),
        Via::Component(id) => {
            host.component_target(id).ok_or_else(|| Failure::NoComponent { component: id.clone() })
        }
    }
}

/// Checks that the request is for a valid host, and not for a component: those hosts are for components.
/// A request of HTTP/1.0 without a host is for the address that the client is connected to.
fn check_host(head: &mut Parts, client: RequestSource) -> Result<(), Failure> {
    match Authority::of(head, client.scheme)? {
        Some(authority) if authority.is_internal() => {
            Err(Failure::InternalHost { host: authority.host.to_owned() })
        }
        Some(_) => Ok(()),
        None => {
            let local = HeaderValue::try_from(authority::of_address(client.local));
            head.headers.extend(local.ok().map(|local| (HOST, local)));
            Ok(())
        }
    }
}
