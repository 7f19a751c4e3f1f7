//! The prediction log: one record for each prediction that was served.

pub mod record;

use record::Entry;

/// Sees every entry that the log's writer takes, on its thread: it has to be quick.
pub trait Observer: Send + Sync {
    fn observe(&self, entry: &Entry);
}
