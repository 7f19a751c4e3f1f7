//! The models of the application, listed: `GET /v2/models` as KServe has it, `POST
//! /v2/repository/index` as Triton and MLServer have it. Both are the host's own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::content_encoding::{Admission, admit};
use crate::http::error::{Failure, said};
use crate::host::Host;

/// The names alone.
pub const MODELS: &str = "/v2/models";
/// With versions, and whether each can be used.
pub const REPOSITORY_INDEX: &str = "/v2/repository/index";

/// Bytes of a request's body.
const MAX_BODY: usize = 64 << 10;
/// How long the body may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What became of loading the models, by component.
#[derive(Debug, Default)]
pub struct ModelStates(Mutex<Loaded>);

#[derive(Debug, Default)]
struct Loaded {
    /// Components whose models were all tried.
    components: HashSet<String>,
    /// Why a model of a component cannot be used.
    failed: BTreeMap<(String, String), String>,
}

impl ModelStates {
    /// The models of `component` were loaded, but for those that `failed`.
    pub fn loaded(&self, component: &str, failed: impl IntoIterator<Item = (String, String)>) {
        let mut loaded = self.lock();
        loaded.components.insert(component.to_owned());
        let failed = failed.into_iter().map(|(model, why)| ((component.to_owned(), model), why));
        loaded.failed.extend(failed);
    }

    fn of(&self, component: &str, model: &str) -> (State, String) {
        let loaded = self.lock();
        let key = (component.to_owned(), model.to_owned());
        match loaded.failed.get(&key) {
            Some(why) => (State::Unavailable, why.clone()),
            None if loaded.components.contains(component) => (State::Ready, String::new()),
            None => (State::Loading, String::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Triton's words. Of two components with one version the better counts: it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    Ready,
    Loading,
    Unavailable,
}

/// A version of a model, as Triton's index has it.
#[derive(Debug, Serialize)]
struct Indexed<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    state: State,
    reason: String,
}

/// The names of all models, as JSON.
#[must_use]
pub fn names(host: &Host) -> String {
    let models = host.services().values().flat_map(|service| &service.spec().models);
    let names: BTreeSet<_> = models.map(|model| model.name.as_str()).collect();
    serde_json::json!({ "models": names }).to_string()
}

/// The response to a request whose path is [`REPOSITORY_INDEX`]. `unread`: whether its body was not
/// read to the end.
pub async fn repository<B>(
    host: &Host,
    request: Request<B>,
    unread: &mut bool,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    if request.method() != Method::POST {
        let mut response = said(StatusCode::METHOD_NOT_ALLOWED, "/v2/repository/index takes POST");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Ok(response);
    }
    let (mut head, body) = request.into_parts();
    let admission = Admission {
        budget: host.bodies(),
        whole: MAX_BODY,
        limit: MAX_BODY,
        deadline: Instant::now() + TIMEOUT,
        decode: true,
    };
    let (_held, body) = admit(&mut head, body, admission).await?;
    let Some(body) = body.whole() else { return Err(Failure::BodyTooLarge { limit: MAX_BODY }) };
    *unread = false;
    // Other members are another server's.
    let asked = match body.trim_ascii() {
        b"" => Ok(Map::new()),
        body => serde_json::from_slice::<Map<String, Value>>(body),
    };
    let only_ready = asked.map(|asked| asked.get("ready").map_or(Some(false), Value::as_bool));
    let Ok(Some(only_ready)) = only_ready else {
        let problem = "the body is an object, {} or {\"ready\": true}";
        return Ok(said(StatusCode::BAD_REQUEST, problem));
    };
    let text = serde_json::to_string(&index(host, only_ready)).unwrap_or_default();
    let mut response = Response::new(Body::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Every version, or only those that are ready.
fn index(host: &Host, only_ready: bool) -> Vec<Indexed<'_>> {
    let mut all: BTreeMap<_, (State, String)> = BTreeMap::new();
    for (id, service) in host.services() {
        for model in &service.spec().models {
            let found = host.model_states().of(id, &model.name);
            let key = (model.name.as_str(), model.version.as_deref());
            let known = all.entry(key).or_insert_with(|| found.clone());
            if found.0 < known.0 {
                *known = found;
            }
        }
    }
    all.into_iter()
        .filter(|(_, (state, _))| !only_ready || *state == State::Ready)
        .map(|((name, version), (state, reason))| Indexed { name, version, state, reason })
        .collect()
}
