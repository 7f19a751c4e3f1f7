//! Requests on a route whose component is a router: assigned to the component of a variant, which may
//! be another router. If that component cannot serve the request, control does, if the experiment is
//! set so.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use tokio::sync::oneshot;
use tracing::debug;

use super::exchange::{ComparedPredictions, Exchange};
use super::shadow::ShadowCopy;
use super::{ComponentTarget, MAX_HOPS, admission, count, serve_component};
use crate::cache::copied;
use crate::experiment::{Arm, ExperimentRouter, ServedAssignment};
use crate::guest::door::assign::{Assigned, Destination, Refusal};
use crate::guest::door::invalid_response;
use crate::host::{Host, RouteTarget, Served};
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::error::Failure;
use crate::http::error_response::error_response;
use crate::http::route::Pattern;
use crate::metrics::counters::Counter;
use crate::prediction_log::Appended;

/// Assigns the request, then serves it by the component it is assigned to.
pub(super) async fn serve<B>(
    host: &Host,
    mut found: &(Pattern, RouteTarget),
    exchange: &mut Exchange<B>,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    exchange.router_route = Some(Arc::from(found.1.metrics.route.as_str()));
    let mut routed = Routed::default();
    while let Served::Assigned(router) = &found.1.served {
        let assigned = match decide(host, router, exchange).await? {
            Ok(assigned) => assigned,
            Err(refusal) => return refused(router, &refusal),
        };
        let invalid = |problem| invalid_response(router.service().spec(), problem);
        let arm = follow(router, assigned, exchange, &mut routed).map_err(invalid)?;
        found = host.component_target(&arm.component).ok_or_else(|| {
            invalid(format!(
                "it assigned the request to `{}`, which is not a component",
                arm.component
            ))
        })?;
    }
    let target = target(found, exchange)?;
    let Routed { copies, served: compared, fallback } = routed;
    if !compared.is_empty() {
        exchange.predictions = ComparedPredictions::Compared(None);
    }
    let retry = match fallback {
        Some(fallback) => Retry::prepare(host, target, fallback, exchange).await?,
        None => None,
    };
    let outcome = PendingOutcome::of(exchange);
    let mut served = serve_component(host, target, exchange, copies).await;
    count(target.metrics, exchange.start, &served);
    outcome.observe(&served);
    if let Some((retry, problem)) = retry.zip(unavailable(&served)) {
        served = retry.serve(host, exchange, &problem).await;
    }
    if served.is_ok() {
        let predictions = exchange.predictions.take();
        // A copy that was skipped or has failed does not wait for them.
        compared.into_iter().for_each(|copy| drop(copy.send(predictions.clone())));
    }
    served
}

/// The outcome of a request for its variant. If the client disconnects before there is one, the
/// request counts as failed: otherwise a variant that never responds would have no errors.
struct PendingOutcome {
    arm: Option<Arc<Arm>>,
    start: Instant,
}

impl PendingOutcome {
    fn of<B>(exchange: &Exchange<B>) -> Self {
        let assignment = exchange.assignment.as_ref();
        Self { arm: assignment.and_then(ServedAssignment::drawn).cloned(), start: exchange.start }
    }

    fn observe(mut self, served: &Result<Response<Body>, Failure>) {
        let Some(arm) = self.arm.take() else { return };
        // The prediction log has failed, not the variant.
        if !matches!(served, Err(Failure::NotLogged(_))) {
            arm.outcomes.observe(status(served).is_server_error(), self.start.elapsed());
        }
    }
}

impl Drop for PendingOutcome {
    fn drop(&mut self) {
        if let Some(arm) = self.arm.take() {
            arm.outcomes.observe(true, self.start.elapsed());
        }
    }
}

/// The status of a response, or of the one that a failure becomes.
fn status(served: &Result<Response<Body>, Failure>) -> StatusCode {
    match served {
        Ok(response) => response.status(),
        Err(failure) => failure.status(),
    }
}

/// What the decisions of routers lead to, next to the component that serves the request.
#[derive(Default)]
struct Routed {
    copies: Vec<ShadowCopy>,
    /// The predictions that the client is served are sent to each copy.
    served: Vec<oneshot::Sender<Option<Appended>>>,
    fallback: Option<Fallback>,
}

/// The variant that serves the request if its own cannot.
struct Fallback {
    arm: Arc<Arm>,
    uri: Uri,
}

/// Has the router decide about the request.
async fn decide<B>(
    host: &Host,
    router: &ExperimentRouter,
    exchange: &mut Exchange<B>,
) -> Result<Result<Assigned, Refusal>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let component = router.service();
    let limits = component.limits();
    let deadline = exchange.start + limits.deadline;
    exchange.client.hops += 1;
    let hops = exchange.client.hops;
    if hops > MAX_HOPS {
        return Err(Failure::Loop { hops });
    }
    let mut body = Bytes::new();
    if component.needs_body(deadline).await? {
        let whole = limits.buffered_body.min(limits.request_body);
        exchange.admit(admission(host, component, whole, deadline)).await?;
        body = exchange.whole_body().cloned().unwrap_or_default();
    }
    let head = exchange.take_head();
    let (head, decided) = component.assign(head, body, deadline, exchange.client).await?;
    exchange.head = head;
    Ok(decided)
}

/// The response to a request that a router refuses.
fn refused(router: &ExperimentRouter, refusal: &Refusal) -> Result<Response<Body>, Failure> {
    let status = StatusCode::from_u16(refusal.status).ok();
    let status = status.filter(|s| s.is_client_error() || s.is_server_error());
    let status = status.ok_or_else(|| {
        let problem = format!("expected the status of an error, got {}", refusal.status);
        invalid_response(router.service().spec(), problem)
    })?;
    Ok(error_response(status, &refusal.message))
}

/// Applies the decision of a router: sets the path its component is called with and the assignment
/// of the request, and adds the copies for shadows and the fallback to `routed`. Returns the arm of
/// the component that serves the request.
///
/// # Errors
/// The decision is invalid.
fn follow<B>(
    router: &ExperimentRouter,
    assigned: Assigned,
    exchange: &mut Exchange<B>,
    routed: &mut Routed,
) -> Result<Arc<Arm>, String> {
    let Assigned { experiment, destination, exclusion, exposure, shadows, fallback, set_cookie } =
        assigned;
    let uri = exchange.head.uri.clone();
    let resolve = |destination: &Destination| {
        let Destination { variant, component, path_with_query } = destination;
        let arm = router.arm(&experiment, variant, component).ok_or_else(|| {
            format!(
                "it assigned the request to `{component}`, which its allowed_outbound_hosts do not \
                 list, or the names of experiment and variant are not valid in headers"
            )
        })?;
        Ok::<_, String>((arm, with_path(&uri, path_with_query.as_deref())?))
    };
    let (arm, destination) = resolve(&destination)?;
    let unit = exposure.unit.as_deref().and_then(|unit| router.hashed(unit));
    let mut assignment = ServedAssignment::default();
    if let Some(before) = exchange.assignment.take() {
        assignment.cookies = before.cookies;
    }
    if let Some(cookie) = set_cookie {
        let cookie = HeaderValue::try_from(cookie);
        assignment.cookies.push(cookie.map_err(|error| format!("set-cookie: {error}"))?);
    }
    if let Some(exclusion) = exclusion {
        router.excluded(&experiment, exclusion.into()).into_iter().for_each(Counter::count);
    } else {
        for shadow in &shadows {
            let (arm, uri) = resolve(shadow)?;
            let (sender, primary) = oneshot::channel();
            routed.copies.push(ShadowCopy { arm, uri, unit: unit.clone(), primary });
            routed.served.push(sender);
        }
        let fallback = fallback.as_ref().map(resolve).transpose()?;
        routed.fallback = fallback.map(|(arm, uri)| Fallback { arm, uri });
        arm.assignments.count();
        assignment.arm = Some(Arc::clone(&arm));
        assignment.unit = unit;
        assignment.propensity = exposure.propensity;
    }
    exchange.assignment = Some(assignment);
    exchange.head.uri = destination;
    Ok(arm)
}

fn with_path(uri: &Uri, path: Option<&str>) -> Result<Uri, String> {
    let Some(path) = path else { return Ok(uri.clone()) };
    let mut parts = uri.clone().into_parts();
    let path = PathAndQuery::try_from(path);
    parts.path_and_query = Some(path.map_err(|error| error.to_string())?);
    Uri::from_parts(parts).map_err(|error| error.to_string())
}

fn target<'a, B>(
    found: &'a (Pattern, RouteTarget),
    exchange: &Exchange<B>,
) -> Result<ComponentTarget<'a>, Failure> {
    ComponentTarget::of(found).ok_or_else(|| Failure::NoRoute {
        path: exchange.head.uri.path().to_owned(),
        nearest: Vec::new(),
    })
}

/// Why another component may be able to serve the request: a failure of the component, or a status of
/// 500 or more that it returned. Not its deadline, when no time is left, and not a failure of the
/// prediction log, which all components share.
fn unavailable(served: &Result<Response<Body>, Failure>) -> Option<String> {
    let status = status(served);
    let is_final =
        status == StatusCode::GATEWAY_TIMEOUT || matches!(served, Err(Failure::NotLogged(_)));
    if !status.is_server_error() || is_final {
        return None;
    }
    Some(served.as_ref().map_or_else(Failure::to_string, |response| response.status().to_string()))
}

/// The request for the fallback.
struct Retry {
    arm: Arc<Arm>,
    head: Parts,
    body: Bytes,
}

impl Retry {
    /// Copies the request, if its body can be sent twice: it is whole.
    async fn prepare<B>(
        host: &Host,
        target: ComponentTarget<'_>,
        fallback: Fallback,
        exchange: &mut Exchange<B>,
    ) -> Result<Option<Self>, Failure>
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
    {
        let limits = target.component.limits();
        let whole = limits.buffered_body.min(limits.request_body);
        let deadline = exchange.start + limits.deadline;
        exchange.admit(admission(host, target.component, whole, deadline)).await?;
        let Some(body) = exchange.whole_body().cloned() else {
            debug!(component = target.component.spec().id, "a streamed body is not sent twice");
            return Ok(None);
        };
        let Fallback { arm, uri } = fallback;
        let mut head = copied(&exchange.head);
        head.uri = uri;
        Ok(Some(Self { arm, head, body }))
    }

    /// Has the fallback serve the request, which its variant could not because of `problem`.
    async fn serve<B>(
        self,
        host: &Host,
        exchange: &mut Exchange<B>,
        problem: &str,
    ) -> Result<Response<Body>, Failure>
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
    {
        let Self { arm, head, body } = self;
        exchange.restore(head, body);
        let found = host.component_target(&arm.component);
        let found =
            found.ok_or_else(|| Failure::NoComponent { component: arm.component.clone() })?;
        let target = target(found, exchange)?;
        if let Some(assignment) = &mut exchange.assignment {
            assignment.fail_over(Arc::clone(&arm));
            if let Some(failed) = &assignment.failed_over {
                failed.failed_over.count();
                let (experiment, variant) = (&*failed.experiment, &*failed.variant);
                debug!(experiment, variant, problem, "control serves for an unavailable variant");
            }
        }
        let served = serve_component(host, target, exchange, Vec::new()).await;
        count(target.metrics, exchange.start, &served);
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_log::unlogged::Unlogged;

    #[test]
    fn request_without_an_outcome_is_an_error_of_its_variant() {
        let arm = Arc::new(Arm::new("experiment", "treatment", "component").unwrap());
        let pending = || PendingOutcome { arm: Some(Arc::clone(&arm)), start: Instant::now() };
        let counted = || {
            let counts = arm.outcomes.counts();
            (counts.requests(), counts.errors)
        };
        pending().observe(&Ok(Response::new(Body::whole(""))));
        assert_eq!(counted(), (1, 0));
        drop(pending());
        assert_eq!(counted(), (2, 1), "its client has disconnected");
        pending().observe(&Err(Failure::InstancePoolFull));
        assert_eq!(counted(), (3, 2));
        pending().observe(&Err(Failure::NotLogged(Unlogged::Late)));
        assert_eq!(counted(), (3, 2), "the failure is that of the prediction log");
    }
}
