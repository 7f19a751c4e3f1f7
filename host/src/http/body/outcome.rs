//! How the response of a guest ended, for the instance that produced it: one whose response failed
//! serves no other request.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use futures::task::AtomicWaker;

const PENDING: u8 = 0;
const ENDED: u8 = 1;
const FAILED: u8 = 2;

/// The outcome of one response, shared by what reads the response and the instance that produces it.
#[derive(Debug, Default)]
pub struct ResponseOutcome {
    state: AtomicU8,
    waiting: AtomicWaker,
    instance: OnceLock<FailedInstance>,
}

/// Whether a response of an instance has failed.
pub type FailedInstance = Arc<AtomicBool>;

impl ResponseOutcome {
    /// Names the instance that produces the response.
    pub fn produced_by(&self, instance: &FailedInstance) {
        // A request is given to one instance only.
        let _ = self.instance.set(Arc::clone(instance));
    }

    /// The guest has written all of the response.
    pub fn end(&self) {
        self.set(ENDED);
    }

    /// The response is an error of the guest, or broke off.
    pub fn fail(&self) {
        if let Some(instance) = self.instance.get() {
            instance.store(true, Ordering::Relaxed);
        }
        self.set(FAILED);
    }

    fn set(&self, state: u8) {
        // The first outcome stands.
        if self.state.compare_exchange(PENDING, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            self.waiting.wake();
        }
    }

    /// Waits until the response has ended or failed.
    pub async fn ended(&self) {
        poll_fn(|cx| {
            self.waiting.register(cx.waker());
            match self.state.load(Ordering::Acquire) {
                PENDING => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}

/// What reads a response. The response has ended once this is dropped.
#[derive(Debug)]
pub struct ResponseReader(pub Arc<ResponseOutcome>);

impl Drop for ResponseReader {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn failed_response_is_recorded_with_its_instance() {
        for fails in [false, true] {
            let instance = FailedInstance::default();
            let reader = ResponseReader(Arc::default());
            let outcome = Arc::clone(&reader.0);
            outcome.produced_by(&instance);
            assert!(outcome.ended().now_or_never().is_none());
            if fails {
                outcome.fail();
                assert!(outcome.ended().now_or_never().is_some());
            }
            drop(reader);
            assert!(outcome.ended().now_or_never().is_some());
            assert_eq!(instance.load(Ordering::Relaxed), fails);
        }
    }
}
