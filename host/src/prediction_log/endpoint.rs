//! `POST /v2/feedback`: the host's own path, whatever routes the application has.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tokio::time::timeout_at;

use super::feedback::{MAX_ITEMS, ParseError, Receipt, parse};
use super::times::micros;
use super::{FeedbackError, PredictionLog};
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::http::content_encoding::{Admission, admit};
use crate::http::error::{Failure, said};
use crate::host::Host;

pub const FEEDBACK: &str = "/v2/feedback";

/// Bytes of a request's body.
const MAX_BODY: usize = 1 << 20;
/// How long a request may take: the body has to arrive, and the feedback to be committed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The response to a request whose path is [`FEEDBACK`]. `unread`: whether its body was not read to
/// the end.
pub async fn respond<B>(
    host: &Host,
    request: Request<B>,
    unread: &mut bool,
) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    if request.method() != Method::POST {
        let mut response = said(StatusCode::METHOD_NOT_ALLOWED, "/v2/feedback takes POST");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Ok(response);
    }
    let Some(log) = host.prediction_log() else {
        let off = "there is no prediction log to join feedback with: [prediction_log] enabled = \
                   false in the runtime config, or no component is served";
        return Ok(said(StatusCode::SERVICE_UNAVAILABLE, off));
    };
    let deadline = Instant::now() + TIMEOUT;
    let (mut head, body) = request.into_parts();
    let admission = Admission {
        budget: host.bodies(),
        whole: MAX_BODY,
        limit: MAX_BODY,
        deadline,
        decode: true,
    };
    let (_held, body) = admit(&mut head, body, admission).await?;
    let Some(body) = body.whole() else { return Err(Failure::BodyTooLarge { limit: MAX_BODY }) };
    *unread = false;
    let storing = store(log, body);
    Ok(timeout_at(deadline.into(), storing).await.unwrap_or_else(|_| {
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
            return said(status, &error.to_string());
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
        return said(StatusCode::BAD_REQUEST, &error);
    }
    debug_assert!(receipt.accepted + receipt.rejected.len() <= MAX_ITEMS, "as many as were sent");
    let text = serde_json::to_string(receipt).unwrap_or_default();
    let mut response = Response::new(Body::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unavailable(error: &str) -> Response<Body> {
    let mut response = said(StatusCode::SERVICE_UNAVAILABLE, error);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
