//! Turns the predictions of a response into records: samples the request, and adds the host's data.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use uuid::{Builder, Uuid};

use super::record::{CacheOutcome, Exposure, LogEntry, RequestContext};
use super::sampling::{Sample, Sampling};
use super::settings::LogMode;
use super::{Appended, RequestPredictions};

/// Header with the id of a request's predictions: of a response, to send feedback with; of a
/// request through the standard door, to append predictions with.
pub const PREDICTION_ID: HeaderName = HeaderName::from_static("spinfer-prediction-id");

/// Request header that asks for a record, with [`ALWAYS`] as its value.
const LOG: HeaderName = HeaderName::from_static("spinfer-log");
const ALWAYS: &str = "always";

/// Header of the W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Records the predictions of one route.
#[derive(Debug)]
pub struct Recorder {
    route: Arc<str>,
    component: Arc<str>,
    sampling: Sampling,
    mode: LogMode,
}

/// A request whose predictions are logged.
#[derive(Debug)]
pub struct Logged<'a> {
    recorder: &'a Recorder,
    id: Uuid,
    time: SystemTime,
    start: Instant,
    exposure: Option<Exposure>,
    /// The router's route, which replaces the recorder's.
    route: Option<Arc<str>>,
    trace_id: Option<String>,
    /// Whether the request asks for a record.
    requested: bool,
}

impl Recorder {
    /// A recorder of `component` under the pattern `route`.
    #[must_use]
    pub fn new(route: &str, component: &str, sampling: Sampling) -> Self {
        let (route, component) = (route.into(), component.into());
        Self { route, component, sampling, mode: LogMode::default() }
    }

    /// The same recorder in `mode`.
    #[must_use]
    pub fn with_mode(self, mode: LogMode) -> Self {
        Self { mode, ..self }
    }

    /// Collects what a request without a client appends: it is cached with the response, but not
    /// recorded.
    #[must_use]
    pub fn unrecorded(&self) -> Arc<RequestPredictions> {
        Arc::new(RequestPredictions::new(prediction_id(SystemTime::now())))
    }

    /// Starts the logging of a request that arrived at `start`. If a router assigned it, `exposure`
    /// is the variant, and `route` the router's.
    #[must_use]
    pub fn begin(
        &self,
        head: &Parts,
        start: Instant,
        exposure: Option<Exposure>,
        route: Option<Arc<str>>,
    ) -> Logged<'_> {
        let now = SystemTime::now();
        let time = now.checked_sub(start.elapsed()).unwrap_or(now);
        Logged {
            recorder: self,
            id: prediction_id(time),
            time,
            start,
            exposure,
            route,
            trace_id: trace_id(&head.headers).map(str::to_owned),
            requested: head.headers.get(LOG).is_some_and(|value| value == ALWAYS),
        }
    }
}

impl Logged<'_> {
    /// The id of the request.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What the response waits for.
    #[must_use]
    pub fn mode(&self) -> LogMode {
        self.recorder.mode
    }

    /// Whether a successful response is certain to wait until its predictions, if it has any, are on
    /// disk.
    #[must_use]
    pub fn awaits_disk(&self) -> bool {
        let Self { recorder, id, requested, .. } = self;
        let sample = recorder.sampling.probability(*requested, StatusCode::OK);
        recorder.mode == LogMode::Synchronous && Sample::new(sample).includes(*id)
    }

    /// Logs the predictions of `response`, if it has any and the request is in the sample, and sets
    /// the response header with their id. `append` returns whether the log accepted an entry.
    pub fn record<B>(
        self,
        response: &mut Response<B>,
        cache: CacheOutcome,
        append: impl Fn(LogEntry) -> bool,
    ) {
        let id = self.id;
        let Some(entries) = self.entries(response, cache) else { return };
        let mut accepted = false;
        for entry in entries {
            accepted |= append(entry);
        }
        if accepted {
            mark(response, id);
        }
    }

    /// Takes the predictions of `response` as entries of the log; `None` if it has none, or the
    /// request is not in the sample.
    pub fn entries<B>(
        self,
        response: &mut Response<B>,
        cache: CacheOutcome,
    ) -> Option<impl Iterator<Item = LogEntry> + use<B>> {
        let appended = response.extensions_mut().remove::<Appended>()?;
        self.entries_of(appended, response.status(), cache)
    }

    /// What a request `appended` as entries of the log; `None` if the request is not in the sample.
    pub fn entries_of(
        self,
        appended: Appended,
        status: StatusCode,
        cache: CacheOutcome,
    ) -> Option<impl Iterator<Item = LogEntry> + use<>> {
        let Self { recorder, id, time, start, exposure, route, trace_id, requested } = self;
        let sample = recorder.sampling.probability(requested, status);
        if !Sample::new(sample).includes(id) {
            return None;
        }
        let context = Arc::new(RequestContext {
            id,
            time,
            route: route.unwrap_or_else(|| Arc::clone(&recorder.route)),
            component: Arc::clone(&recorder.component),
            exposure,
            cache,
            status: status.as_u16(),
            sample,
            latency: start.elapsed(),
            trace_id,
        });
        let mut first_row = 0;
        Some(appended.into_iter().map(move |predictions| {
            let entry = LogEntry { context: Arc::clone(&context), first_row, predictions };
            first_row += entry.predictions.rows;
            entry
        }))
    }
}

/// Sets the header of a response whose records have this id.
pub fn mark<B>(response: &mut Response<B>, id: Uuid) {
    response.headers_mut().insert(PREDICTION_ID, header_value(id));
}

/// A UUIDv7 of `time`.
fn prediction_id(time: SystemTime) -> Uuid {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// An id as the value of [`PREDICTION_ID`].
#[must_use]
pub fn header_value(id: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are valid in a header.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// The trace id of a W3C `traceparent`: 32 hexadecimal digits in lower case, not all of them 0.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    // A later version may have more parts.
    let complete = version != "00" || parts.next().is_none();
    let valid = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && is_hex(flags, 2)
        && complete;
    valid.then_some(trace)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use http::Request;

    use super::*;
    use crate::prediction_log::validate::tests::iris;

    #[test]
    fn ids_contain_their_time_and_are_unique() {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let id = prediction_id(time);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.as_u64_pair().0 >> 16, 1_700_000_000_123);
        assert_ne!(prediction_id(time), id);
        let text = header_value(id).to_str().unwrap().to_owned();
        assert_eq!(Uuid::parse_str(&text).unwrap(), id);
        assert_eq!(text.len(), 36);
    }

    #[test]
    fn trace_id_is_read_from_a_valid_traceparent_only() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let trace_id = |value: &str| {
            let headers = HeaderMap::from_iter([(TRACEPARENT, value.parse().unwrap())]);
            super::trace_id(&headers).map(str::to_owned)
        };
        let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(&valid).as_deref(), Some(TRACE));
        assert_eq!(trace_id(&valid.replacen("00", "cc", 1)).as_deref(), Some(TRACE));
        assert_eq!(trace_id(&format!("cc{}-more", &valid[2..])).as_deref(), Some(TRACE));
        for invalid in [
            "",
            "00",
            TRACE,
            &format!("{valid}-more"),
            &valid.replacen("00", "ff", 1),
            &valid.to_uppercase(),
            &valid.replace(TRACE, &"0".repeat(32)),
            &valid.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &valid.replace("4bf", "4b"),
        ] {
            assert_eq!(trace_id(invalid), None, "{invalid}");
        }
    }

    /// The entries that a log, which accepts up to `limit` of them, gets of `response`.
    fn recorded(share: f64, limit: usize, response: &mut Response<()>) -> Vec<LogEntry> {
        recorded_by(Sampling { share, on_request: true }, &Request::new(()), limit, response)
    }

    fn recorded_by(
        sampling: Sampling,
        request: &Request<()>,
        limit: usize,
        response: &mut Response<()>,
    ) -> Vec<LogEntry> {
        let log = RefCell::new(Vec::new());
        let append = |entry| {
            let accepted = log.borrow().len() < limit;
            if accepted {
                log.borrow_mut().push(entry);
            }
            accepted
        };
        let recorder = Recorder::new("/iris/...", "iris", sampling);
        let exposure = Exposure::new("e", "b");
        let head = request.clone().into_parts().0;
        let logged = recorder.begin(&head, Instant::now(), Some(exposure), None);
        logged.record(response, CacheOutcome::Miss, append);
        log.into_inner()
    }

    #[test]
    fn synchronous_request_in_the_sample_awaits_the_disk() {
        let request =
            |value: &str| Request::builder().header("spinfer-log", value).body(()).unwrap();
        let awaits = |mode, share, request: Request<()>| {
            let sampling = Sampling { share, on_request: true };
            let recorder = Recorder::new("/...", "iris", sampling).with_mode(mode);
            recorder.begin(&request.into_parts().0, Instant::now(), None, None).awaits_disk()
        };
        for (mode, share, value, expected) in [
            (LogMode::Synchronous, 1.0, "", true),
            (LogMode::Synchronous, 0.0, "", false),
            (LogMode::Synchronous, 0.0, "always", true),
            (LogMode::Durable, 1.0, "always", false),
            (LogMode::BestEffort, 1.0, "", false),
        ] {
            assert_eq!(awaits(mode, share, request(value)), expected, "{mode:?} {share} {value}");
        }
    }

    #[test]
    fn all_predictions_of_a_response_are_recorded_under_one_id() {
        let mut response = Response::new(());
        response.extensions_mut().insert([iris(2), iris(3)].into_iter().collect::<Appended>());
        let entries = recorded(1.0, 9, &mut response);
        let rows: Vec<_> = entries.iter().map(|e| (e.first_row, e.predictions.rows)).collect();
        assert_eq!(rows, [(0, 2), (2, 3)]);
        let context = &entries[0].context;
        assert!(Arc::ptr_eq(context, &entries[1].context));
        assert_eq!(response.headers()[PREDICTION_ID], context.id.to_string());
        assert_eq!((&*context.route, &*context.component), ("/iris/...", "iris"));
        assert_eq!(&*context.exposure.as_ref().unwrap().variant, "b");
        assert_eq!((context.cache, context.status), (CacheOutcome::Miss, 200));
        assert!(response.extensions().get::<Appended>().is_none());
    }

    #[test]
    fn response_without_predictions_or_outside_the_sample_is_not_recorded() {
        let mut response = Response::new(());
        assert!(recorded(1.0, 9, &mut response).is_empty());
        response.extensions_mut().insert([iris(2)].into_iter().collect::<Appended>());
        assert!(recorded(0.0, 9, &mut response).is_empty());
        assert!(response.headers().is_empty());
    }

    #[test]
    fn errors_and_requests_that_ask_for_it_are_recorded_with_certainty() {
        let request =
            |value: &str| Request::builder().header("spinfer-log", value).body(()).unwrap();
        let asks = request("always");
        for (share, on_request, request, status, sample) in [
            (0.0, true, &asks, 200, Some(1.0)),
            (0.0, false, &asks, 200, None),
            (0.0, true, &request("Always"), 200, None),
            (0.0, true, &request("never"), 200, None),
            (0.0, true, &Request::new(()), 200, None),
            (0.0, false, &Request::new(()), 400, Some(1.0)),
            (0.0, false, &Request::new(()), 503, Some(1.0)),
            (0.0, true, &Request::new(()), 302, None),
            (1.0, true, &Request::new(()), 200, Some(1.0)),
        ] {
            let mut response = Response::builder().status(status).body(()).unwrap();
            response.extensions_mut().insert([iris(1)].into_iter().collect::<Appended>());
            let sampling = Sampling { share, on_request };
            let entries = recorded_by(sampling, request, 9, &mut response);
            let found = entries.first().map(|entry| entry.context.sample);
            assert_eq!(found, sample, "{share} {on_request} {request:?} {status}");
            assert_eq!(response.headers().contains_key(PREDICTION_ID), sample.is_some());
        }
        // Those in the sample stand for the others.
        let of_sample = (0..100).flat_map(|_| {
            let mut response = Response::new(());
            response.extensions_mut().insert([iris(1)].into_iter().collect::<Appended>());
            recorded(0.5, 9, &mut response)
        });
        let samples: Vec<_> = of_sample.map(|entry| entry.context.sample).collect();
        assert!(!samples.is_empty() && samples.iter().all(|sample| *sample == 0.5), "{samples:?}");
    }

    #[test]
    fn response_has_no_id_if_the_log_accepts_no_entry() {
        let mut response = Response::new(());
        response.extensions_mut().insert([iris(1), iris(2)].into_iter().collect::<Appended>());
        assert!(recorded(1.0, 0, &mut response).is_empty());
        assert!(response.headers().is_empty());
        response.extensions_mut().insert([iris(1), iris(2)].into_iter().collect::<Appended>());
        assert_eq!(recorded(1.0, 1, &mut response).len(), 1);
        assert!(response.headers().contains_key(PREDICTION_ID));
    }
}
