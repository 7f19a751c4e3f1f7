//! Requests on a route whose component is a router: assigned to the component of a variant, which may
//! be another router.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response, StatusCode, Uri};
use http_body::Body as HttpBody;

use super::exchange::Exchange;
use super::shadow::ShadowCopy;
use super::{ComponentTarget, MAX_HOPS, admission, count, serve_component};
use crate::experiment::{Arm, ExperimentRouter};
use crate::guest::door::assign::Assigned;
use crate::guest::door::invalid_response;
use crate::host::{Host, RouteTarget, Served};
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::error::Failure;
use crate::http::error_response::error_response;
use crate::http::route::Pattern;

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
    let mut copies = Vec::new();
    while let Served::Assigned(router) = &found.1.served {
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
        let (head, decided) = component.assign(head, body, deadline, hops).await?;
        exchange.head = head;
        let invalid = |problem| invalid_response(component.spec(), problem);
        let assigned = match decided {
            Ok(assigned) => assigned,
            Err(refusal) => {
                let status = StatusCode::from_u16(refusal.status).ok();
                let status = status.filter(|s| s.is_client_error() || s.is_server_error());
                let status = status.ok_or_else(|| {
                    invalid(format!("expected the status of an error, got {}", refusal.status))
                })?;
                return Ok(error_response(status, &refusal.message));
            }
        };
        let arm = follow(router, &assigned, &mut exchange.head, &mut copies).map_err(invalid)?;
        found = host.component_target(&arm.component).ok_or_else(|| {
            invalid(format!(
                "it assigned the request to `{}`, which is not a component",
                arm.component
            ))
        })?;
        arm.assignments.count();
        exchange.arm = Some(arm);
    }
    let target = ComponentTarget::of(found).ok_or_else(|| Failure::NoRoute {
        path: exchange.head.uri.path().to_owned(),
        nearest: Vec::new(),
    })?;
    let served = serve_component(host, target, exchange, copies).await;
    count(target.metrics, exchange.start, &served);
    served
}

/// Applies the decision of a router: sets the path its component is called with, and adds the copies
/// for shadows to `copies`.
///
/// # Errors
/// The decision is invalid.
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
                "it assigned the request to `{component}`, which its allowed_outbound_hosts do not list, \
                 or the names of experiment and variant are not valid in headers"
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
