//! Feedback through a running host.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use http::header::RETRY_AFTER;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use crate::http::client_tls;
use crate::http::reserved::FEEDBACK;
use crate::prediction_log::feedback::{FeedbackItem, MAX_ITEMS, Receipt, Rejection, Truth};
use crate::prediction_log::times::format;

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which a host that is busy, or cannot write its log, is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum size of a body, in bytes; the host's limit is 1 MiB.
const MAX_BODY: usize = 1_000_000;

/// A client of `/v2/feedback`.
pub(super) struct FeedbackClient {
    http: reqwest::Client,
    url: Url,
    runtime: Runtime,
}

/// The response to a request whose items are all rejected.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    rejected: Vec<Rejection>,
}

impl FeedbackClient {
    /// A client of the host at `url`.
    pub(super) fn new(url: &Url) -> Result<Self> {
        ensure!(
            matches!(url.scheme(), "http" | "https") && url.has_host(),
            "--url: not the address of a host; write http://127.0.0.1:3000"
        );
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*client_tls::client()?).clone())
            .user_agent(concat!("spinfer/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .build()
            .context("cannot create the HTTP client")?;
        let mut url = url.clone();
        url.set_path(FEEDBACK);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { http, url, runtime })
    }

    /// Sends `items`, in several requests if they are long. The indices in the receipt are positions
    /// in `items`.
    pub(super) fn send(&self, items: &[FeedbackItem]) -> Result<Receipt> {
        let mut total = Receipt::default();
        let mut first = 0;
        while first < items.len() {
            let (count, body) = body(&items[first..]);
            let sent = self.runtime.block_on(self.post(&body));
            let sent = sent.with_context(|| self.url.origin().ascii_serialization())?;
            let Receipt { accepted, unknown, replaced, unchanged, rejected } = sent;
            total.accepted += accepted;
            total.unknown += unknown;
            total.replaced += replaced;
            total.unchanged += unchanged;
            let shifted = |Rejection { index, error }| Rejection { index: first + index, error };
            total.rejected.extend(rejected.into_iter().map(shifted));
            first += count;
        }
        Ok(total)
    }

    async fn post(&self, body: &str) -> Result<Receipt> {
        let end = Instant::now() + PATIENCE;
        loop {
            let request = self.http.post(self.url.clone()).body(body.to_owned());
            let response = request.send().await.map_err(reqwest::Error::without_url)?;
            let status = response.status();
            // Without the header, a host that has no log.
            let is_busy = status == StatusCode::SERVICE_UNAVAILABLE
                && response.headers().contains_key(RETRY_AFTER);
            if is_busy && Instant::now() < end {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let body = response.bytes().await.map_err(reqwest::Error::without_url)?;
            if status.is_success() {
                return serde_json::from_slice(&body)
                    .context("not the response of spinfer; is another server there?");
            }
            return match serde_json::from_slice(&body) {
                Ok(Refusal { rejected, .. }) if !rejected.is_empty() => {
                    Ok(Receipt { rejected, ..Receipt::default() })
                }
                Ok(Refusal { error, .. }) if is_of_admin_plane(&error) => bail!("{ADMIN_PLANE}"),
                Ok(Refusal { error, .. }) => bail!("{error}"),
                Err(_) => bail!("status {status}: this may be another server"),
            };
        }
    }
}

const ADMIN_PLANE: &str = "--url: this is the admin plane of a host; write the address of its data plane, \
                           --listen of `spinfer up`: http://127.0.0.1:3000 by default";

/// Whether the admin plane, with or without a token, has refused a request of the data plane with `error`.
fn is_of_admin_plane(error: &str) -> bool {
    error.starts_with(&format!("there is no endpoint {FEEDBACK};"))
        || error.starts_with("missing or invalid token;")
}

/// The body with the first of `items`, and their number.
fn body(items: &[FeedbackItem]) -> (usize, String) {
    let mut body = String::from("[");
    let mut count = 0;
    for item in items.iter().take(MAX_ITEMS) {
        let item = json(item).to_string();
        if count > 0 {
            if body.len() + item.len() + 2 > MAX_BODY {
                break;
            }
            body.push(',');
        }
        body.push_str(&item);
        count += 1;
    }
    body.push(']');
    (count, body)
}

fn json(item: &FeedbackItem) -> Value {
    let FeedbackItem { index: _, prediction_id, row, truth, time } = item;
    let known = match truth {
        Truth::Label(label) => Value::from(label.as_str()),
        Truth::Value(number) | Truth::Reward(number) => Value::from(*number),
    };
    Value::Object(Map::from_iter([
        ("prediction_id".to_owned(), prediction_id.to_string().into()),
        ("row".to_owned(), (*row).into()),
        (truth.kind().to_owned(), known),
        ("time".to_owned(), format(*time).into()),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_log::feedback::parse;

    #[test]
    fn admin_plane_is_recognised_by_its_refusal() {
        let refusal = "there is no endpoint /v2/feedback; endpoints: GET /metrics, GET /stats";
        assert!(is_of_admin_plane(refusal));
        assert!(is_of_admin_plane(
            "missing or invalid token; send `Authorization: Bearer <token>`"
        ));
        assert!(!is_of_admin_plane("the prediction log is off"));
    }

    #[test]
    fn bodies_are_within_the_limits_of_the_host_and_have_every_item() {
        let now = 1_796_040_000_123_456;
        let item = |index: usize| FeedbackItem {
            index,
            prediction_id: uuid::Uuid::from_u128(index as u128),
            row: 3,
            truth: Truth::Label("\"é".repeat(300)),
            time: now,
        };
        let items: Vec<_> = (0..5_000).map(item).collect();
        let mut sent = Vec::new();
        while sent.len() < items.len() {
            let (count, body) = body(&items[sent.len()..]);
            assert!(count > 0 && body.len() <= 1 << 20, "{count} {}", body.len());
            let first = sent.len();
            let parsed = parse(body.as_bytes(), now).unwrap();
            let shifted = |item: FeedbackItem| FeedbackItem { index: first + item.index, ..item };
            sent.extend(parsed.items.into_iter().map(shifted));
        }
        assert_eq!(sent, items);
    }
}
