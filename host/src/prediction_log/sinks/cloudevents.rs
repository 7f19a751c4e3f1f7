//! The sink `cloudevents`: events in the shape of KServe's payload logger
//! (kserve/kserve, pkg/logger/worker.go), in the binary mode of CloudEvents 1.0 over HTTP. The rows of
//! a request are one request event and one response event with the same id.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::Client;
use reqwest::redirect::Policy;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::outbox::same_run;
use super::settings::CollectorSettings;
use super::{FeedbackEvent, OutboxEntry, Sink, SinkError, SinkEvent, v2_payload};
use crate::http::client_tls;
use crate::prediction_log::feedback::Truth;
use crate::prediction_log::reader::StoredRecord;
use crate::prediction_log::times;

const REQUEST: &str = "org.kubeflow.serving.inference.request";
const RESPONSE: &str = "org.kubeflow.serving.inference.response";
/// Not a type of KServe, which has no feedback.
const FEEDBACK: &str = "spinfer.prediction.feedback";
/// Value of the attribute `component`, as KServe names what predicts.
const PREDICTOR: &str = "predictor";
/// Value of the attribute `endpoint` without a variant.
const DEFAULT_ENDPOINT: &str = "default";
/// Maximum number of entries after which the position is stored: this many events are repeated after
/// a crash.
const MAX_PART: usize = 64;
/// Maximum size of the response to an event, in bytes. It is not used.
const MAX_RESPONSE: usize = 64 << 10;
/// Idle timeout of a connection to the collector.
const IDLE: Duration = Duration::from_secs(30);

/// An HTTP collector of CloudEvents.
pub(super) struct CollectorSink {
    settings: CollectorSettings,
    client: Client,
}

impl CollectorSink {
    pub(super) fn new(settings: CollectorSettings) -> Result<Self> {
        let tls = client_tls::client()?;
        let client = Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .user_agent(concat!("spinfer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.timeout)
            .timeout(settings.timeout)
            .pool_idle_timeout(IDLE)
            // A redirect would turn POST into GET, or send the credentials elsewhere.
            .redirect(Policy::none())
            .build()
            .context("a client for the collector")?;
        Ok(Self { settings, client })
    }

    /// Sends an event.
    async fn send(&self, event: CloudEvent<'_>) -> Result<(), SendError> {
        let CollectorSettings { url, authorization, .. } = &self.settings;
        let body = serde_json::to_vec(&event.body).unwrap_or_default();
        let mut headers = event.headers(&self.settings);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let request = self.client.post(url.clone()).headers(headers).body(body);
        // The URL may contain a password.
        let failed = |error: reqwest::Error| SendError::Retry(chain(&error.without_url()));
        let mut response = request.send().await.map_err(failed)?;
        // Read to its end, so that the connection is used again, unless it is long.
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > MAX_RESPONSE {
                break;
            }
        }
        verdict(response.status())
    }
}

/// The message of an error, with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("the collector cannot be reached: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Why an event was not accepted.
#[derive(Debug, PartialEq, Eq)]
enum SendError {
    Retry(String),
    Refused(String),
}

/// What a status means. A status about the event (its form, size or content) is a refusal, as the
/// same event would be refused for ever, and everything after it would wait. All others are about the
/// collector: credentials, path, load. With these it would refuse all events, so they wait.
fn verdict(status: StatusCode) -> Result<(), SendError> {
    if status.is_success() {
        return Ok(());
    }
    let reason = format!("the collector responds {status}");
    Err(match status {
        StatusCode::BAD_REQUEST
        | StatusCode::CONFLICT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => SendError::Refused(reason),
        _ => SendError::Retry(reason),
    })
}

/// An event. Its id, source and type are the same whenever it is sent.
#[derive(Debug)]
struct CloudEvent<'a> {
    id: String,
    kind: &'static str,
    /// Microseconds of Unix time.
    time: i64,
    /// Attribute `inferenceservicename`, unless it is configured; none for feedback.
    model: Option<&'a str>,
    /// Attribute `endpoint`.
    endpoint: &'a str,
    body: Value,
}

impl<'a> CloudEvent<'a> {
    /// The events of consecutive rows.
    fn of_rows(rows: &[&'a StoredRecord]) -> Option<[Self; 2]> {
        let StoredRecord { id, row, time, model, variant, .. } = *rows.first()?;
        // Rows from 0 on have the id of the request, as in KServe.
        let id = if *row == 0 { id.to_string() } else { format!("{id}.{row}") };
        let event = |kind, body| Self {
            id: id.clone(),
            kind,
            time: *time,
            model: Some(model),
            endpoint: variant.as_deref().unwrap_or(DEFAULT_ENDPOINT),
            body,
        };
        Some([
            event(REQUEST, v2_payload::request(rows)),
            event(RESPONSE, v2_payload::response(rows)),
        ])
    }

    fn of_feedback(feedback: &FeedbackEvent) -> Self {
        let FeedbackEvent { id, row, truth, time } = feedback;
        let mut body = Vec::new();
        feedback.write_json(&mut body);
        Self {
            // Later feedback of the same kind is another event, and so is a correction of the same time.
            id: format!("{id}.{row}.{}.{time}.{:016x}", truth.kind(), truth_hash(truth)),
            kind: FEEDBACK,
            time: *time,
            model: None,
            endpoint: DEFAULT_ENDPOINT,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }

    fn headers(&self, settings: &CollectorSettings) -> HeaderMap {
        let CollectorSettings { source, namespace, inference_service, .. } = settings;
        let Self { id, kind, time, model, endpoint, body: _ } = self;
        let time = times::format(*time);
        let service = inference_service.as_deref().or(*model);
        let attributes = [
            ("ce-specversion", Some("1.0")),
            ("ce-id", Some(id.as_str())),
            ("ce-type", Some(*kind)),
            ("ce-source", Some(source.as_str())),
            ("ce-time", Some(time.as_str())),
            ("ce-inferenceservicename", service),
            ("ce-namespace", Some(namespace.as_str())),
            ("ce-component", Some(PREDICTOR)),
            ("ce-endpoint", Some(*endpoint)),
        ];
        let headers = attributes.into_iter().filter_map(|(name, value)| {
            let value = HeaderValue::try_from(encoded(value?)).ok()?;
            Some((HeaderName::from_static(name), value))
        });
        headers.collect()
    }
}

/// A hash of the label or number: labels may be too long for a header.
fn truth_hash(truth: &Truth) -> u64 {
    let digest = match truth {
        Truth::Label(label) => Sha256::digest(label),
        Truth::Value(number) | Truth::Reward(number) => Sha256::digest(number.to_be_bytes()),
    };
    digest.iter().take(size_of::<u64>()).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

/// A value of an attribute as a header: CloudEvents' HTTP binding percent-encodes spaces, quotes,
/// percent signs and everything outside of printable ASCII.
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' | ..=b' ' | 0x7f.. => {
                // Writing to memory does not fail.
                let _ = write!(text, "%{byte:02X}");
            }
            _ => text.push(byte.into()),
        }
    }
    text
}

impl Sink for CollectorSink {
    fn deliver<'a>(
        &'a mut self,
        _producer: &'a str,
        entries: &'a [OutboxEntry],
        delivered: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            while *delivered < entries.len().min(MAX_PART) {
                let (events, length) = next_events(&entries[*delivered..]);
                for event in events {
                    self.send(event).await.map_err(|error| match error {
                        SendError::Retry(problem) => SinkError::Retry(problem),
                        SendError::Refused(reason) => {
                            SinkError::Refused { entries: length, reason }
                        }
                    })?;
                }
                *delivered += length;
            }
            Ok(())
        }
        .boxed()
    }
}

/// The events of the first entries, and the number of these entries.
fn next_events(entries: &[OutboxEntry]) -> (Vec<CloudEvent<'_>>, usize) {
    let mut rows: Vec<&StoredRecord> = Vec::new();
    let mut last: Option<&SinkEvent> = None;
    for OutboxEntry { event, .. } in entries {
        match event {
            SinkEvent::Feedback(feedback) if rows.is_empty() => {
                return (vec![CloudEvent::of_feedback(feedback)], 1);
            }
            SinkEvent::Record(record) if last.is_none_or(|last| same_run(last, event)) => {
                rows.push(record);
                last = Some(event);
            }
            _ => break,
        }
    }
    (CloudEvent::of_rows(&rows).into_iter().flatten().collect(), rows.len())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{feedback_entries, record_entries};
    use super::*;

    fn settings() -> CollectorSettings {
        CollectorSettings {
            url: "http://localhost".parse().unwrap(),
            authorization: None,
            source: "/a b".into(),
            namespace: "default".into(),
            inference_service: None,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn rows_of_a_request_are_two_events_with_one_id() {
        // Two requests of three rows each.
        let entries = record_entries(2, 3);
        let (events, length) = next_events(&entries);
        assert_eq!(length, 3);
        let [request, response] = &events[..] else { panic!("{events:?}") };
        let (id, _) = entries[0].event.key();
        assert_eq!((&request.id, &response.id), (&id.to_string(), &id.to_string()));
        assert_eq!((request.kind, response.kind), (REQUEST, RESPONSE));
        assert_eq!(request.body["inputs"][0]["shape"], serde_json::json!([3]));
        assert_eq!(request.body["id"], id.to_string());
        assert_eq!(response.body["model_name"], "iris");
        assert_eq!(response.body["outputs"][0]["name"], "prediction");
        // The rest of a request has an id of its own.
        let (events, length) = next_events(&entries[1..]);
        assert_eq!((length, &events[0].id), (2, &format!("{id}.1")));
        let headers = request.headers(&settings());
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-type", REQUEST),
            ("ce-source", "/a%20b"),
            ("ce-inferenceservicename", "iris"),
            ("ce-namespace", "default"),
            ("ce-component", "predictor"),
            ("ce-endpoint", "default"),
        ] {
            assert_eq!(headers[name], value);
        }
        let named = CollectorSettings { inference_service: Some("é".into()), ..settings() };
        assert_eq!(request.headers(&named)["ce-inferenceservicename"], "%C3%A9");
    }

    #[test]
    fn feedback_is_an_item_of_the_feedback_endpoint() {
        let entries = feedback_entries(2);
        let (events, length) = next_events(&entries);
        assert_eq!((events.len(), length, events[0].kind), (1, 1, FEEDBACK));
        let body = serde_json::to_vec(&events[0].body).unwrap();
        let parsed = crate::prediction_log::feedback::parse(&body, 0).unwrap();
        let SinkEvent::Feedback(feedback) = &entries[0].event else { panic!() };
        assert_eq!(
            (&parsed.items[0].truth, parsed.items[0].time),
            (&feedback.truth, feedback.time)
        );
    }

    #[test]
    fn id_of_feedback_identifies_its_value() {
        let feedback = |truth| FeedbackEvent { id: uuid::Uuid::nil(), row: 2, truth, time: 5 };
        let id = |truth| CloudEvent::of_feedback(&feedback(truth)).id;
        let label = |label: &str| id(Truth::Label(label.into()));
        assert_eq!(
            label("abc"),
            "00000000-0000-0000-0000-000000000000.2.label.5.ba7816bf8f01cfea",
            "the same whenever it is sent"
        );
        assert_ne!(label("abc"), label("abd"), "a correction of the same time");
        assert_ne!(id(Truth::Value(1.0)), id(Truth::Value(2.0)));
        assert_ne!(id(Truth::Value(1.0)), id(Truth::Reward(1.0)));
    }

    #[test]
    fn statuses_about_the_event_are_refusals() {
        for (status, expected) in [
            (200, "ok"),
            (202, "ok"),
            (400, "refused"),
            (413, "refused"),
            (422, "refused"),
            (301, "retry"),
            (401, "retry"),
            (403, "retry"),
            (404, "retry"),
            (408, "retry"),
            (429, "retry"),
            (500, "retry"),
            (503, "retry"),
        ] {
            let found = match verdict(StatusCode::from_u16(status).unwrap()) {
                Ok(()) => "ok",
                Err(SendError::Retry(_)) => "retry",
                Err(SendError::Refused(_)) => "refused",
            };
            assert_eq!(found, expected, "{status}");
        }
    }
}
