//! Resolves `[[trigger.http]]`: the application's routes and what serves each of them.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::{Problems, listed};
use crate::config::manifest::{Executor, HttpTrigger, Manifest, Private, StaticResponse, TextOr};
use crate::guest::door::wagi;
use crate::http::body::Body;
use crate::http::reserved::{HOST_HEADERS, is_reserved};
use crate::http::route::{Pattern, Router};

/// Values of `executor.type`: names that Spin has, or had, for what is chosen here by the component's
/// exports.
const HTTP_EXECUTORS: [&str; 3] = ["http", "spin", "wasip3-unstable"];

/// The value of `executor.type` for a command.
const WAGI: &str = "wagi";

/// A public route.
#[derive(Clone, Debug)]
pub struct Route {
    pub pattern: Pattern,
    pub target: RouteAction,
}

/// What serves a route.
#[derive(Clone, Debug)]
pub enum RouteAction {
    /// A component, by its id.
    Component(String),
    /// The host, with a fixed response.
    Static(FixedResponse),
}

impl fmt::Display for RouteAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component(id) => f.write_str(id),
            Self::Static(response) => write!(f, "static response, {}", response.status),
        }
    }
}

/// A resolved `static_response`.
#[derive(Clone, Debug)]
pub struct FixedResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl FixedResponse {
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Creates the response to a request.
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::whole(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }

    fn resolve(response: &StaticResponse) -> Result<Self, String> {
        let StaticResponse { status_code, headers, body } = response;
        let status = status_code.unwrap_or(200);
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or(format!("status_code: {status} is not between 200 and 599"))?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let invalid = |problem| format!("headers: \"{name}\" {problem}");
            let header =
                HeaderName::try_from(name).map_err(|_| invalid("is not a valid header name"))?;
            if HOST_HEADERS.contains(&header) {
                return Err(invalid("is set by the host; remove it"));
            }
            let value = HeaderValue::from_str(value)
                .map_err(|_| invalid("has a value that is not visible ASCII"))?;
            map.append(header, value);
        }
        let body = body.clone().unwrap_or_default().into();
        Ok(Self { status, headers: map, body })
    }
}

/// The static routes, and those of the `chosen` components.
pub(super) fn resolve(manifest: &Manifest, chosen: &[&str], problems: &mut Problems) -> Vec<Route> {
    let mut routes = Vec::new();
    for (index, trigger) in manifest.trigger.http.iter().enumerate() {
        let key = format!("trigger.http[{index}]");
        let target = target(&key, trigger, manifest, problems);
        let pattern = pattern(&key, trigger, problems);
        let (Some(target), Some(pattern)) = (target, pattern) else { continue };
        let served = match &target {
            RouteAction::Component(id) => chosen.contains(&id.as_str()),
            RouteAction::Static(_) => true,
        };
        if served {
            routes.push(Route { pattern, target });
        }
    }
    if let Err(duplicate) = Router::new(routes.iter().map(|r| (r.pattern.clone(), ()))) {
        problems.add("trigger.http", format!("duplicate route \"{duplicate}\"; remove one"));
    }
    if manifest.trigger.http.is_empty() {
        let others: Vec<_> =
            manifest.trigger.other.keys().map(|kind| format!("`{kind}`")).collect();
        let problem = match others.as_slice() {
            [] => "no routes; add [[trigger.http]] with `route` and `component`".into(),
            kinds => format!(
                "no routes, but triggers of type {}, and this host serves HTTP only; add \
                 [[trigger.http]] with `route` and `component`, or use Spin",
                kinds.join(", ")
            ),
        };
        problems.add("trigger.http", problem);
    }
    routes
}

fn target(
    key: &str,
    trigger: &HttpTrigger,
    manifest: &Manifest,
    problems: &mut Problems,
) -> Option<RouteAction> {
    let HttpTrigger {
        id: _,
        route: _,
        component,
        components,
        dependencies,
        static_response,
        executor,
    } = trigger;
    if !components.is_empty() || !dependencies.is_empty() {
        let which = if components.is_empty() { "dependencies" } else { "components" };
        problems.add(
            format!("{key}.{which}"),
            "additional components of a trigger are not supported yet; remove them, or call one \
             component from another",
        );
    }
    if let Some(Err(problem)) = executor.as_ref().map(check_executor) {
        problems.add(format!("{key}.executor"), problem);
    }
    match (component, static_response) {
        (Some(TextOr::Text(id)), None) if manifest.component.contains_key(id) => {
            Some(RouteAction::Component(id.clone()))
        }
        (Some(TextOr::Text(id)), None) => {
            let available = listed(manifest.component.keys());
            let problem =
                format!("[component.{id}] does not exist; available components: {available}");
            problems.add(format!("{key}.component"), problem);
            None
        }
        (None, Some(response)) => FixedResponse::resolve(response)
            .map(RouteAction::Static)
            .map_err(|problem| problems.add(format!("{key}.static_response"), problem))
            .ok(),
        _ => {
            problems.add(key, "set exactly one of `component` and `static_response`");
            None
        }
    }
}

fn check_executor(executor: &Executor) -> Result<(), String> {
    let Executor { kind, argv, entrypoint } = executor;
    let is_wagi = kind == WAGI;
    if !is_wagi && !HTTP_EXECUTORS.contains(&kind.as_str()) {
        return Err(format!("`{kind}` is not an executor; write \"http\" or \"{WAGI}\""));
    }
    if !is_wagi && (argv.is_some() || entrypoint.is_some()) {
        return Err(format!("`argv` and `entrypoint` are settings of the type \"{WAGI}\""));
    }
    if entrypoint.as_ref().is_some_and(|name| name != "_start") {
        return Err("entrypoint: commands start at `_start`; remove the key".into());
    }
    Ok(())
}

/// The arguments of the command that `[component.<id>]` is, if its triggers have the executor
/// `wagi`.
pub(super) fn command_arguments(
    id: &str,
    manifest: &Manifest,
    problems: &mut Problems,
) -> Option<String> {
    let mut found: Option<Option<String>> = None;
    for (index, trigger) in manifest.trigger.http.iter().enumerate() {
        if !trigger.refers_to(id) {
            continue;
        }
        let wagi = trigger.executor.as_ref().filter(|executor| executor.kind == WAGI);
        let argv = wagi
            .map(|executor| executor.argv.clone().unwrap_or_else(|| wagi::DEFAULT_ARGV.to_owned()));
        match &found {
            Some(other) if *other != argv => problems.add(
                format!("trigger.http[{index}].executor"),
                format!("another trigger of the component `{id}` has another executor; use one"),
            ),
            _ => found = Some(argv),
        }
    }
    found.flatten()
}

/// The trigger's path. `None` if it is private or invalid; a problem is added for the latter.
fn pattern(key: &str, trigger: &HttpTrigger, problems: &mut Problems) -> Option<Pattern> {
    let key = format!("{key}.route");
    match &trigger.route {
        Some(TextOr::Text(route)) => match Pattern::parse(route) {
            Ok(pattern) if is_reserved(&pattern) => {
                problems.add(key, "this path is reserved by the host; choose another");
                None
            }
            Ok(pattern) => Some(pattern),
            Err(problem) => {
                problems.add(key, problem);
                None
            }
        },
        Some(TextOr::Table(Private { private: true })) => {
            if trigger.static_response.is_some() {
                problems.add(key, "a private static response is unreachable; remove it");
            }
            None
        }
        Some(TextOr::Table(Private { private: false })) | None => {
            problems.add(key, "must be a path, such as \"/a/...\", or { private = true }");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(route: &str) -> Vec<String> {
        let trigger = toml::from_str(&format!("route = '{route}'\ncomponent = 'a'")).unwrap();
        let mut problems = Problems(Vec::new());
        let _ = pattern("trigger.http[0]", &trigger, &mut problems);
        problems.0
    }

    #[test]
    fn reserved_path_is_rejected_as_a_route() {
        for path in [
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models",
            "/v2/repository/index",
            "/v2/feedback",
            "/.well-known/spin/mine",
        ] {
            let expected =
                "trigger.http[0].route: this path is reserved by the host; choose another";
            assert_eq!(problems(path), [expected], "{path}");
        }
        for path in ["/v2/feedback/mine", "/v2/...", "/..."] {
            assert_eq!(problems(path), [""; 0], "{path}");
        }
    }
}
