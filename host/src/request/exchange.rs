//! One request, from its head to its response.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body as HttpBody, SizeHint};
use uuid::Uuid;
use wasmtime_wasi_http::WasiBody;

use crate::cache::CacheStatus;
use crate::experiment::ServedAssignment;
use crate::host::Host;
use crate::http::body::error::BodyError;
use crate::http::body::{Arrival, RequestBody};
use crate::http::content_encoding::{Admission, admit};
use crate::http::error::Failure;
use crate::http::spin_headers::RequestSource;
use crate::prediction_log::Appended;
use crate::prediction_log::record::LogEntry;
use crate::process::memory_budget::Charge;

/// A request on its way through the steps, with what they have found out about it. A step takes what
/// it consumes; what is left tells how the connection can go on.
#[derive(Debug)]
pub(super) struct Exchange<B> {
    pub client: RequestSource,
    pub head: Parts,
    body: Option<Incoming<B>>,
    read: BodyRead,
    /// The charge of the body to the host's memory budget.
    charge: Option<Charge>,
    /// When the head had arrived: durations and deadlines count from here.
    pub start: Instant,
    /// The part of the response cache in the response.
    pub cache_status: Option<CacheStatus>,
    /// The assignment by a router, if the request was on the route of one.
    pub assignment: Option<ServedAssignment>,
    /// The pattern of that router's route, under which the predictions are logged.
    pub router_route: Option<Arc<str>>,
    /// The predictions of the response, if they are to be compared.
    pub predictions: ComparedPredictions,
    /// What a failed request had predicted, to be recorded unless another component serves it.
    pub failed: Vec<LogEntry>,
    /// The id of what a failed request had predicted, if that is recorded.
    pub failed_prediction: Option<Uuid>,
}

/// Whether the predictions of a response are compared with those of a copy, and what they are.
#[derive(Debug, Default)]
pub(super) enum ComparedPredictions {
    #[default]
    NotCompared,
    /// `None` before there is a response, and if it has none.
    Compared(Option<Appended>),
}

#[derive(Debug)]
enum Incoming<B> {
    Raw(B),
    Admitted(RequestBody),
}

/// How much of the request body has been read.
#[derive(Debug)]
enum BodyRead {
    Completely,
    NotYet,
    AsStreamed(Arc<Arrival>),
}

impl<B> Exchange<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    pub(super) fn new(client: RequestSource, request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            client,
            head,
            read: if body.is_end_stream() { BodyRead::Completely } else { BodyRead::NotYet },
            body: Some(Incoming::Raw(body)),
            charge: None,
            start: Instant::now(),
            cache_status: None,
            assignment: None,
            router_route: None,
            predictions: ComparedPredictions::NotCompared,
            failed: Vec::new(),
            failed_prediction: None,
        }
    }

    /// The size of the body if it is known.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.body {
            None => SizeHint::with_exact(0),
            Some(Incoming::Raw(body)) => body.size_hint(),
            Some(Incoming::Admitted(RequestBody::Whole(body))) => {
                SizeHint::with_exact(body.len() as u64)
            }
            Some(Incoming::Admitted(RequestBody::Streamed(body, _))) => body.size_hint(),
        }
    }

    /// Admits the body, unless an earlier step did: whole, or as a stream.
    ///
    /// # Errors
    /// The body is over a limit, does not arrive in time or does not match its headers.
    pub(super) async fn admit(&mut self, admission: Admission<'_>) -> Result<(), Failure> {
        match self.body.take() {
            Some(Incoming::Raw(body)) => {
                let (charge, admitted) = admit(&mut self.head, body, admission).await?;
                self.read = match admitted.arrival() {
                    None => BodyRead::Completely,
                    Some(arrival) => BodyRead::AsStreamed(arrival),
                };
                self.charge = Some(charge);
                self.body = Some(Incoming::Admitted(admitted));
            }
            admitted => self.body = admitted,
        }
        Ok(())
    }

    /// Admits a body of at most `limit` bytes to one of the host's own paths.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(super) async fn admit_whole(
        &mut self,
        host: &Host,
        limit: usize,
        deadline: Instant,
    ) -> Result<Bytes, Failure> {
        let budget = host.body_budget();
        self.admit(Admission { budget, whole: limit, limit, deadline, decode: true }).await?;
        self.whole_body().cloned().ok_or(Failure::BodyTooLarge { limit })
    }

    /// The whole body, if it was admitted as such and not taken yet.
    pub(super) fn whole_body(&self) -> Option<&Bytes> {
        match &self.body {
            Some(Incoming::Admitted(body)) => body.whole(),
            Some(Incoming::Raw(_)) | None => None,
        }
    }

    /// Takes the head out, for a call that returns it.
    pub(super) fn take_head(&mut self) -> Parts {
        std::mem::replace(&mut self.head, Request::new(()).into_parts().0)
    }

    /// Takes the request out, for its component.
    pub(super) fn take(&mut self) -> (Parts, RequestBody) {
        let head = self.take_head();
        match self.body.take() {
            Some(Incoming::Admitted(body)) => (head, body),
            Some(Incoming::Raw(_)) | None => (head, RequestBody::Whole(Bytes::new())),
        }
    }

    /// Puts a request back that was taken out, to be served by another component.
    pub(super) fn restore(&mut self, head: Parts, body: Bytes) {
        self.head = head;
        self.body = Some(Incoming::Admitted(RequestBody::Whole(body)));
        self.cache_status = None;
    }

    /// Whether another request can follow on an HTTP/1.1 connection: only after a request body that
    /// was read to its end.
    pub(super) fn connection_reusable(&self) -> bool {
        match &self.read {
            BodyRead::Completely => true,
            BodyRead::NotYet => false,
            BodyRead::AsStreamed(arrival) => arrival.is_complete(),
        }
    }
}

impl ComparedPredictions {
    /// The predictions, if they are compared and there are any.
    pub(super) fn take(&mut self) -> Option<Appended> {
        match self {
            Self::NotCompared => None,
            Self::Compared(predictions) => predictions.take(),
        }
    }
}

impl Exchange<WasiBody> {
    /// A request of the host itself, whose `body` is complete.
    pub(super) fn of_host(client: RequestSource, head: Parts, body: Bytes) -> Self {
        Self {
            client,
            head,
            body: Some(Incoming::Admitted(RequestBody::Whole(body))),
            read: BodyRead::Completely,
            charge: None,
            start: Instant::now(),
            cache_status: None,
            assignment: None,
            router_route: None,
            predictions: ComparedPredictions::NotCompared,
            failed: Vec::new(),
            failed_prediction: None,
        }
    }
}
