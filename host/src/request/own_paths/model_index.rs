//! The versions of the models with their states: `POST /v2/repository/index`, as Triton and MLServer have
//! it.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::Body as HttpBody;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{JSON, TIMEOUT, only_post, response};
use crate::host::Host;
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::error::Failure;
use crate::http::error_response::error_response;
use crate::http::reserved::REPOSITORY_INDEX;
use crate::inference::model_states::VersionState;
use crate::request::exchange::Exchange;

/// Maximum size of a request body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// A version of a model, as Triton's index has it.
#[derive(Debug, Serialize)]
struct Indexed<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    state: VersionState,
    reason: String,
}

/// The response to `POST /v2/repository/index`.
pub(super) async fn repository<B>(
    host: &Host,
    exchange: &mut Exchange<B>,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    if exchange.head.method != Method::POST {
        return Ok(only_post(REPOSITORY_INDEX));
    }
    let body = exchange.admit_whole(host, MAX_BODY, Instant::now() + TIMEOUT).await?;
    // Other members, which other servers define, are ignored.
    let query = match body.trim_ascii() {
        b"" => Ok(Map::new()),
        body => serde_json::from_slice::<Map<String, Value>>(body),
    };
    let only_ready = query.map(|query| query.get("ready").map_or(Some(false), Value::as_bool));
    let Ok(Some(only_ready)) = only_ready else {
        let problem = "invalid body: expected {} or {\"ready\": true}";
        return Ok(error_response(StatusCode::BAD_REQUEST, problem));
    };
    Ok(response(JSON, serde_json::to_string(&index(host, only_ready)).unwrap_or_default()))
}

/// Every version, or only those that are ready.
fn index(host: &Host, only_ready: bool) -> Vec<Indexed<'_>> {
    let mut all: BTreeMap<_, (VersionState, String)> = BTreeMap::new();
    for service in host.components().values() {
        for model in &service.spec().models {
            let found = service.model_state(&model.name);
            let key = (model.name.as_str(), model.version.as_deref());
            let known = all.entry(key).or_insert_with(|| found.clone());
            if found.0 < known.0 {
                *known = found;
            }
        }
    }
    all.into_iter()
        .filter(|(_, (state, _))| !only_ready || *state == VersionState::Ready)
        .map(|((name, version), (state, reason))| Indexed { name, version, state, reason })
        .collect()
}
