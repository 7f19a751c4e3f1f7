//! Responses on the way from a guest to their callers.
//!
//! A guest returns the head of a response, and writes the body afterwards, mostly without waiting in
//! between. So a response is sent once its body is complete, and otherwise when the guest waits or an
//! epoch ends: a caller is woken once for a short response, and gets it whole.

use std::sync::Arc;

use bytes::Bytes;
use futures::channel::oneshot;
use parking_lot::Mutex;
use wasmtime::Result;
use wasmtime_wasi_http::WasiBody;

use super::is_failure;
use crate::http::body::instance_body::{InstanceBodies, InstanceBody, UnsentBody};
use crate::http::body::outcome::ResponseOutcome;
use crate::http::framing::announced_length;

/// The response of a guest.
pub(super) type GuestResponse = http::Response<ResponseBody>;

/// The body of a guest's response.
pub(super) enum ResponseBody {
    /// It is complete, and as long as announced.
    Whole(Bytes),
    Open(InstanceBody),
}

/// The responses that the guest of a worker has returned, and that are not sent yet.
pub(super) struct UnsentResponses {
    bodies: Arc<InstanceBodies>,
    responses: Mutex<Vec<UnsentResponse>>,
}

struct UnsentResponse {
    response: http::Response<UnsentBody>,
    responder: Responder,
}

/// The caller of a request.
pub(super) struct Responder {
    pub(super) sender: oneshot::Sender<Result<GuestResponse>>,
    pub(super) outcome: Arc<ResponseOutcome>,
}

impl UnsentResponses {
    pub(super) fn new(bodies: Arc<InstanceBodies>) -> Arc<Self> {
        Arc::new(Self { bodies, responses: Mutex::default() })
    }

    /// Adds what the guest has returned. An error is sent at once. `passed_on`: the instance does not
    /// write the body itself.
    pub(super) fn add(
        &self,
        responder: Responder,
        returned: Result<http::Response<WasiBody>>,
        passed_on: bool,
    ) {
        if is_failure(&returned) {
            responder.outcome.fail();
        }
        match returned {
            Ok(response) => {
                let announced = announced_length(response.headers());
                let response = response.map(|body| UnsentBody::new(body, announced, passed_on));
                self.responses.lock().push(UnsentResponse { response, responder });
            }
            Err(error) => responder.send(Err(error)),
        }
    }

    /// Sends the responses whose bodies can be sent without waiting for the guest. Returns whether no
    /// others are left.
    pub(super) fn send_ready(&self) -> bool {
        let mut responses = self.responses.lock();
        for unsent in responses.extract_if(.., |unsent| unsent.response.body_mut().read_written()) {
            unsent.send(&self.bodies);
        }
        responses.is_empty()
    }

    /// Sends all responses, as far as their bodies are written. Returns whether there were any.
    pub(super) fn send_all(&self) -> bool {
        let mut responses = self.responses.lock();
        let any = !responses.is_empty();
        for mut unsent in responses.drain(..) {
            unsent.response.body_mut().read_written();
            unsent.send(&self.bodies);
        }
        any
    }
}

impl UnsentResponse {
    fn send(self, bodies: &Arc<InstanceBodies>) {
        let Self { response, responder } = self;
        let response = response.map(|mut body| match body.take_whole() {
            Some(bytes) => {
                responder.outcome.end();
                ResponseBody::Whole(bytes)
            }
            None => ResponseBody::Open(bodies.response(body)),
        });
        responder.send(Ok(response));
    }
}

impl Responder {
    fn send(self, response: Result<GuestResponse>) {
        // Fails if the caller was dropped.
        let _ = self.sender.send(response);
    }
}
