//! Asks a component whether it can serve a model, as the Open Inference Protocol defines it: components can
//! need more than the host knows, such as a `model.toml` or a model of another name.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::time::timeout_at;

use crate::guest::component::Component;
use crate::http::body::RequestBody;
use crate::http::percent;
use crate::http::reserved::MODELS;
use crate::http::spin_headers::RequestOrigin;

/// Maximum time for the response.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a response body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// The response to a readiness probe, or an error.
#[derive(Deserialize)]
struct Readiness {
    ready: Option<bool>,
    error: Option<String>,
}

impl Component {
    /// Why the component cannot serve the mounted `model`, if it reports that. A component that does not know
    /// the path reports nothing.
    pub async fn refusal_of(&self, model: &str) -> Option<String> {
        let path = format!("{MODELS}/{}/ready", percent::encode_segment(model));
        let head = Request::get(path).body(()).ok()?.into_parts().0;
        let (body, deadline) = (RequestBody::Whole(Bytes::new()), Instant::now() + TIMEOUT);
        // One that fails does not report anything either.
        let response = self.invoke(head, body, deadline, RequestOrigin::inside()).await.ok()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect();
        let body = timeout_at(deadline.into(), body).await.ok()?.ok()?.to_bytes();
        refusal(status, &body)
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Option<String> {
    let Readiness { ready, error } = serde_json::from_slice(body).ok()?;
    match status {
        StatusCode::SERVICE_UNAVAILABLE if ready == Some(false) => error,
        // As `model-sdk` refuses the name of another model.
        StatusCode::NOT_FOUND => error.filter(|error| error.contains("this component serves")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_of_the_model_count() {
        let unready = r#"{"name":"m","ready":false,"error":"no model.toml"}"#;
        let other = r#"{"error":"model \"m\" not found; this component serves \"n\""}"#;
        for (status, body, expected) in [
            (503, unready, Some("no model.toml")),
            (404, other, Some("model \"m\" not found; this component serves \"n\"")),
            (200, r#"{"name":"m","ready":true}"#, None),
            (404, r#"{"error":"no such path"}"#, None),
            (404, "not found", None),
            (503, r#"{"error":"busy"}"#, None),
            (200, "", None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(refusal(status, body.as_bytes()).as_deref(), expected, "{status} {body}");
        }
    }
}
