//! The experiments of a host: `GET /experiments`, `PUT /experiments/<name>`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use http_body::Body as HttpBody;

use super::parameters::parameters;
use super::refusal::Refusal;
use super::response::json;
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::content_encoding::{Admission, admit};
use crate::experiment::status::{self, Unchanged, Update};
use crate::host::Host;

pub const EXPERIMENTS: &str = "/experiments";
const ONE: &str = "/experiments/<name>";

/// Each, and the methods it answers.
pub(super) const ENDPOINTS: [(&str, &str); 2] = [(EXPERIMENTS, "GET, HEAD"), (ONE, "PUT")];

/// Bytes of an update.
const MAX_UPDATE: usize = 64 << 10;
/// How long an update may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The name of an experiment in a path; none in [`EXPERIMENTS`] itself.
fn name(path: &str) -> Option<Option<&str>> {
    let rest = path.strip_prefix(EXPERIMENTS)?;
    if rest.is_empty() { Some(None) } else { rest.strip_prefix('/').map(Some) }
}

/// Whether `path` is one of these.
pub(super) fn is_under(path: &str) -> bool {
    name(path).is_some()
}

pub(super) async fn answer<B>(
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
        (Some(name), &Method::PUT) => {
            let admission = Admission {
                budget: host.bodies(),
                whole: MAX_UPDATE,
                limit: MAX_UPDATE,
                deadline: Instant::now() + TIMEOUT,
                decode: true,
            };
            let admitted = admit(&mut head, body, admission).await;
            let (_held, body) = admitted.map_err(|e| Refusal::Parameter(e.to_string()))?;
            let Some(body) = body.whole() else {
                return Err(Refusal::Parameter(format!("the body: over {MAX_UPDATE} bytes")));
            };
            let update: Update = serde_json::from_slice(body).map_err(|error| {
                Refusal::Parameter(format!(
                    "the body: {error}; write {{\"allocations\": {{\"treatment\": 0.2}}}}, or \
                     {{\"stopped\": true, \"winner\": \"treatment\"}}"
                ))
            })?;
            json(&status::change(host.experiments(), name, &update).await.map_err(|error| refusal(&error))?)
        }
        (None, _) => Err(Refusal::Method { path: EXPERIMENTS, allow: "GET, HEAD" }),
        (Some(_), _) => Err(Refusal::Method { path: ONE, allow: "PUT" }),
    }
}

fn refusal(unchanged: &Unchanged) -> Refusal {
    let said = unchanged.to_string();
    match unchanged {
        Unchanged::Unknown { .. } => Refusal::Unknown(said),
        Unchanged::Invalid(_) => Refusal::Parameter(said),
        Unchanged::Conflict(_) => Refusal::Conflict(said),
        Unchanged::Store(_) => Refusal::Unavailable(said),
    }
}
