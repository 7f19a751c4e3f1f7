//! `[[trigger.http]]`, resolved: which paths there are, and who answers on them.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::{Problems, listed};
use crate::http::body::Body;
use crate::config::manifest::{HttpTrigger, Manifest, Private, StaticResponse, TextOr};
use crate::http::reserved::{HOST_HEADERS, LIVE, MODELS, READY, REPOSITORY_INDEX, SERVER, WELL_KNOWN};
use crate::http::route::{Pattern, Router};

/// A path that clients may ask for.
#[derive(Clone, Debug)]
pub struct Route {
    pub pattern: Pattern,
    pub target: Target,
}

/// Who answers.
#[derive(Clone, Debug)]
pub enum Target {
    /// A component, by its id.
    Component(String),
    /// The host.
    Static(StaticAnswer),
}

/// For people.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component(id) => f.write_str(id),
            Self::Static(answer) => write!(f, "static response, {}", answer.status),
        }
    }
}

/// A `static_response`.
#[derive(Clone, Debug)]
pub struct StaticAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl StaticAnswer {
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::whole(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }

    fn resolve(answer: &StaticResponse) -> Result<Self, String> {
        let StaticResponse { status_code, headers, body } = answer;
        let status = status_code.unwrap_or(200);
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or(format!("status_code: {status} is not between 200 and 599"))?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let bad = |what| format!("headers: \"{name}\" {what}");
            let header =
                HeaderName::try_from(name).map_err(|_| bad("is not the name of a header"))?;
            if HOST_HEADERS.contains(&header) {
                return Err(bad("is the host's to set; remove it"));
            }
            let value = HeaderValue::from_str(value)
                .map_err(|_| bad("has a value that is not visible ASCII"))?;
            map.append(header, value);
        }
        let body = body.clone().unwrap_or_default().into();
        Ok(Self { status, headers: map, body })
    }
}

/// The routes whose component is among the `chosen`, and the static ones.
pub(super) fn resolve(manifest: &Manifest, chosen: &[&str], problems: &mut Problems) -> Vec<Route> {
    let mut routes = Vec::new();
    for (index, trigger) in manifest.trigger.http.iter().enumerate() {
        let key = format!("trigger.http[{index}]");
        let target = target(&key, trigger, manifest, problems);
        let pattern = pattern(&key, trigger, problems);
        let (Some(target), Some(pattern)) = (target, pattern) else { continue };
        let served = match &target {
            Target::Component(id) => chosen.contains(&id.as_str()),
            Target::Static(_) => true,
        };
        if served {
            routes.push(Route { pattern, target });
        }
    }
    if let Err(twice) = Router::new(routes.iter().map(|r| (r.pattern.clone(), ()))) {
        problems.add("trigger.http", format!("the route \"{twice}\" stands twice; remove one"));
    }
    if manifest.trigger.http.is_empty() {
        problems.add("trigger.http", "no route: add [[trigger.http]] with `route` and `component`");
    }
    routes
}

fn target(
    key: &str,
    trigger: &HttpTrigger,
    manifest: &Manifest,
    problems: &mut Problems,
) -> Option<Target> {
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
            "further components of a trigger are not supported yet; remove them, or call one \
             component from another",
        );
    }
    if let Some(kind) = executor.as_ref().map(|executor| executor.kind.as_str())
        && !["http", "spin"].contains(&kind)
    {
        problems.add(
            format!("{key}.executor"),
            format!("`{kind}` is not supported; remove it, and build the component for wasi:http"),
        );
    }
    match (component, static_response) {
        (Some(TextOr::Text(id)), None) if manifest.component.contains_key(id) => {
            Some(Target::Component(id.clone()))
        }
        (Some(TextOr::Text(id)), None) => {
            let there = listed(manifest.component.keys());
            let problem = format!("there is no [component.{id}]; the manifest has {there}");
            problems.add(format!("{key}.component"), problem);
            None
        }
        (None, Some(answer)) => StaticAnswer::resolve(answer)
            .map(Target::Static)
            .map_err(|problem| problems.add(format!("{key}.static_response"), problem))
            .ok(),
        _ => {
            problems.add(key, "give it either a `component` or a `static_response`");
            None
        }
    }
}

/// `None` if the route is private, or wrong.
fn pattern(key: &str, trigger: &HttpTrigger, problems: &mut Problems) -> Option<Pattern> {
    let key = format!("{key}.route");
    match &trigger.route {
        Some(TextOr::Text(route)) => match Pattern::parse(route) {
            Ok(pattern)
                if [SERVER, LIVE, READY, MODELS, REPOSITORY_INDEX]
                    .contains(&pattern.to_string().as_str())
                    || pattern.is_under(WELL_KNOWN) =>
            {
                problems.add(key, "this path is the host's own; choose another");
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
                problems.add(key, "a static response that is private answers nobody; remove it");
            }
            None
        }
        Some(TextOr::Table(Private { private: false })) | None => {
            problems.add(key, "write a path, \"/a/...\", or { private = true }");
            None
        }
    }
}
