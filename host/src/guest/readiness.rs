//! Asks a component whether it can serve a model, as the Open Inference Protocol defines it: components can
//! need more than the host knows, such as a `model.toml` or a model of another name.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::time::timeout_at;

use crate::guest::component::Component;
use crate::guest::files::Files;
use crate::http::body::RequestBody;
use crate::http::percent;
use crate::http::reserved::MODELS;
use crate::http::spin_headers::RequestOrigin;
use crate::inference::{self, SIGNATURE};

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
        let refusal = refusal(status, &body)?;
        Some(missing_signature(&self.spec().files, model, &refusal).unwrap_or(refusal))
    }
}

/// Names the operator's file if `refusal` is about a missing `model.toml`: the component sees another path.
fn missing_signature(files: &Files, model: &str, refusal: &str) -> Option<String> {
    let path = files.folders.model_folder(model)?.join(SIGNATURE);
    if path.exists() || !refusal.contains(SIGNATURE) {
        return None;
    }
    // An operator does not recognise the path of a copy.
    let path = match files.has_copies() {
        true => format!("{}/{model}/{SIGNATURE}", inference::MODELS),
        false => path.display().to_string(),
    };
    Some(format!("{path} is missing: the component cannot serve a model without it"))
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
    use crate::inference::GRAPH;

    #[test]
    fn missing_model_toml_is_named_as_the_operator_names_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(GRAPH), "").unwrap();
        let mut files = Files::default();
        files.folders.add("/models/m".to_owned(), dir.path().to_owned());
        let refusal = "/models/m/model.toml: No such file or directory (os error 44)";
        let file = dir.path().join(SIGNATURE);
        let named = missing_signature(&files, "m", refusal).unwrap();
        assert!(named.starts_with(&format!("{} is missing", file.display())), "{named}");
        assert_eq!(missing_signature(&files, "m", "out of memory"), None);
        assert_eq!(missing_signature(&files, "another", refusal), None);
        std::fs::write(file, "").unwrap();
        assert_eq!(missing_signature(&files, "m", refusal), None);
    }

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
