//! What the host keeps in memory for an instance, beside its tensors: what handles remember, and what
//! calls that have not returned were given. An instance may have many calls under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// That an instance would have the host keep more than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("handles and calls of this instance hold as much as they may (limits.instance_memory)")]
pub(super) struct TooMuch;

/// Bytes that are kept for an instance, and how many may be.
#[derive(Clone, Debug)]
pub struct Held {
    bytes: Arc<AtomicUsize>,
    most: usize,
}

impl Held {
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { bytes: Arc::default(), most }
    }

    /// Charges the instance for `bytes` more.
    pub(super) fn hold(&self, bytes: usize) -> Result<Hold, TooMuch> {
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let hold = Hold { held: Arc::clone(&self.bytes), bytes };
        if held <= self.most { Ok(hold) } else { Err(TooMuch) }
    }
}

/// Bytes an instance is charged for, for as long as it lives.
#[derive(Debug)]
pub(super) struct Hold {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
