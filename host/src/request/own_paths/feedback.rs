//! `POST /v2/feedback`: ground truth and rewards for logged predictions.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Method, Response, StatusCode};
use http_body::Body as HttpBody;
use serde_json::json;
use tokio::time::timeout_at;

use super::{JSON, TIMEOUT, only_post, response};
use crate::host::Host;
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::error::Failure;
use crate::http::error_response::error_response;
use crate::http::reserved::FEEDBACK;
use crate::prediction_log::feedback::{MAX_ITEMS, ParseError, Receipt, parse};
use crate::prediction_log::times::micros;
use crate::prediction_log::{FeedbackError, PredictionLog};
use crate::request::exchange::Exchange;

/// Maximum size of a request body, in bytes.
const MAX_BODY: usize = 1 << 20;

pub(super) async fn respond<B>(
    host: &Host,
    exchange: &mut Exchange<B>,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    if exchange.head.method != Method::POST {
        return Ok(only_post(FEEDBACK));
    }
    let Some(log) = host.prediction_log() else {
        let off = "there is no prediction log to join feedback with: [prediction_log] enabled = \
                   false in the runtime config, or no component is served";
        return Ok(error_response(StatusCode::SERVICE_UNAVAILABLE, off));
    };
    let deadline = Instant::now() + TIMEOUT;
    let body = exchange.admit_whole(host, MAX_BODY, deadline).await?;
    let stored = timeout_at(deadline.into(), store(log, &body)).await;
    Ok(stored.unwrap_or_else(|_| {
        unavailable("the prediction log was not written in time; send the feedback again")
    }))
}

/// Stores the feedback in `body`.
async fn store(log: &PredictionLog, body: &[u8]) -> Response<Body> {
    let mut parsed = match parse(body, micros(SystemTime::now())) {
        Ok(parsed) => parsed,
        Err(error) => {
            log.feedback_counts().rejected(1);
            let status = match error {
                ParseError::Invalid(_) => StatusCode::BAD_REQUEST,
                ParseError::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            };
            return error_response(status, &error.to_string());
        }
    };
    log.feedback_counts().rejected(parsed.rejected.len());
    let mut receipt = Receipt::default();
    if !parsed.items.is_empty() {
        receipt = match log.feedback(parsed.items).await {
            Ok(receipt) => receipt,
            Err(error @ (FeedbackError::Busy | FeedbackError::Storage(_))) => {
                return unavailable(&error.to_string());
            }
        };
    }
    receipt.rejected.append(&mut parsed.rejected);
    receipt.rejected.sort_by_key(|rejection| rejection.index);
    report(&receipt)
}

fn report(receipt: &Receipt) -> Response<Body> {
    if receipt.accepted == 0
        && let Some(first) = receipt.rejected.first()
    {
        let error = match receipt.rejected.len() {
            1 => format!("item {}: {}", first.index, first.error),
            count => format!(
                "all {count} items are rejected; the first, item {}: {}",
                first.index, first.error
            ),
        };
        let json = json!({ "error": error, "accepted": 0, "rejected": receipt.rejected });
        let mut refused = response(JSON, json.to_string());
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return refused;
    }
    debug_assert!(
        receipt.accepted + receipt.rejected.len() <= MAX_ITEMS,
        "accepted and rejected items are all items"
    );
    response(JSON, serde_json::to_string(receipt).unwrap_or_default())
}

fn unavailable(error: &str) -> Response<Body> {
    let mut response = error_response(StatusCode::SERVICE_UNAVAILABLE, error);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
