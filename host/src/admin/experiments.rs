//! The endpoints for experiments: `GET /experiments`, `PUT /experiments/<name>`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use http_body::Body as HttpBody;

use super::parameters::parameters;
use super::refusal::Refusal;
use super::response::json;
use crate::experiment::status;
use crate::experiment::update::{self, AllocationUpdate, ChangeError};
use crate::host::Host;
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::content_encoding::{Admission, admit};

pub const EXPERIMENTS: &str = "/experiments";
const EXPERIMENT: &str = "/experiments/<name>";
const JOURNAL: &str = "/experiments/<name>/journal";

/// Path and allowed methods of each endpoint.
pub(super) const ENDPOINTS: [(&str, &str); 3] =
    [(EXPERIMENTS, "GET, HEAD"), (EXPERIMENT, "GET, HEAD, PUT"), (JOURNAL, "GET, HEAD")];

/// Maximum size of an update's body, in bytes.
const MAX_UPDATE: usize = 64 << 10;
/// Time for an update's body to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The experiment's name in a path: `Some(None)` for [`EXPERIMENTS`] itself, `None` for other
/// paths.
fn name(path: &str) -> Option<Option<&str>> {
    let rest = path.strip_prefix(EXPERIMENTS)?;
    if rest.is_empty() { Some(None) } else { rest.strip_prefix('/').map(Some) }
}

/// Whether `path` is one of these endpoints.
pub(super) fn is_under(path: &str) -> bool {
    name(path).is_some()
}

pub(super) async fn respond<B>(
    host: &Host,
    mut head: Parts,
    body: B,
) -> Result<Response<Body>, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    parameters(&head, &[])?;
    let path = head.uri.path().to_owned();
    match (name(&path).flatten(), &head.method) {
        (None, &Method::GET | &Method::HEAD) => json(&status::all(host.experiments()).await),
        (Some(name), &Method::GET | &Method::HEAD) => {
            let (name, is_journal) = match name.strip_suffix("/journal") {
                Some(name) => (name, true),
                None => (name, false),
            };
            let found = status::detail(host.experiments(), name).await;
            let found = found.map_err(|error| refusal(&error))?;
            if is_journal { json(&found.journal) } else { json(&found) }
        }
        (Some(name), &Method::PUT) => {
            let admission = Admission {
                budget: host.body_budget(),
                whole: MAX_UPDATE,
                limit: MAX_UPDATE,
                deadline: Instant::now() + TIMEOUT,
                decode: true,
            };
            let admitted = admit(&mut head, body, admission).await;
            let (_charge, body) = admitted.map_err(|e| Refusal::Parameter(e.to_string()))?;
            let Some(body) = body.whole() else {
                return Err(Refusal::Parameter(format!("the body: exceeds {MAX_UPDATE} bytes")));
            };
            let update: AllocationUpdate = serde_json::from_slice(body).map_err(|error| {
                Refusal::Parameter(format!(
                    "the body: {error}; write {{\"allocations\": {{\"treatment\": 0.2}}}}, \
                     {{\"started\": true}}, or {{\"stopped\": true, \"winner\": \"treatment\"}}"
                ))
            })?;
            json(
                &update::change(host.experiments(), name, &update)
                    .await
                    .map_err(|error| refusal(&error))?,
            )
        }
        (None, _) => Err(Refusal::Method { path: EXPERIMENTS, allow: "GET, HEAD" }),
        (Some(_), _) => Err(Refusal::Method { path: EXPERIMENT, allow: "GET, HEAD, PUT" }),
    }
}

fn refusal(error: &ChangeError) -> Refusal {
    let message = error.to_string();
    match error {
        ChangeError::Unknown { .. } => Refusal::Unknown(message),
        ChangeError::Invalid(_) => Refusal::Parameter(message),
        ChangeError::Conflict(_) => Refusal::Conflict(message),
        ChangeError::Store(_) => Refusal::Unavailable(message),
    }
}
