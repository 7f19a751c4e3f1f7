//! Requests that wait for the log: for space in its queue, or until their records are on disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::PredictionLog;
use super::queue::{Guarantee, Message, QueueClosed};
use super::record::LogEntry;
use super::settings::LogMode;
use super::unlogged::Unlogged;

/// Counts of requests that wait for the log, or waited in vain.
#[derive(Debug, Default)]
pub struct AwaitedCounts {
    waiting: AtomicU64,
    /// In the order of [`Unlogged::REASONS`].
    refused: [AtomicU64; Unlogged::REASONS.len()],
}

impl AwaitedCounts {
    /// Number of requests that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn refuse(&self, reason: &Unlogged) {
        self.refused[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of refused requests since the start, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        Unlogged::REASONS.into_iter().zip(counts)
    }
}

/// A request that waits, also if it is dropped.
struct Waiting<'a>(&'a AwaitedCounts);

impl<'a> Waiting<'a> {
    fn of(counts: &'a AwaitedCounts) -> Self {
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PredictionLog {
    /// Refuses a request whose response would wait for the disk, before its component is called, while
    /// the file is known to be unwritable. The writer finds out when it is by a write of its own, so no
    /// request is needed for that.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn check_writable(&self) -> Result<(), Unlogged> {
        let Some(problem) = self.problem() else { return Ok(()) };
        let refused = Unlogged::Unwritable(problem);
        self.shared.awaited.refuse(&refused);
        Err(refused)
    }

    /// Queues the entries of one request, all of them or none, and waits for what `mode` asks: until
    /// they are queued, or until they are on disk. Entries of a request that stops waiting for
    /// space are withdrawn; those of one that stops waiting for the disk may still be written.
    ///
    /// # Errors
    /// The entries could not be stored before the `deadline`.
    pub async fn submit(
        &self,
        entries: impl Iterator<Item = LogEntry>,
        mode: LogMode,
        deadline: Instant,
    ) -> Result<(), Unlogged> {
        let counts = &self.shared.awaited;
        let _waiting = Waiting::of(counts);
        let mut commits = SmallVec::<[_; 1]>::new();
        let messages = entries.map(|entry| {
            let guarantee = match mode {
                LogMode::BestEffort => Guarantee::BestEffort,
                LogMode::Durable => Guarantee::Kept,
                LogMode::Synchronous => {
                    let (sender, commit) = oneshot::channel();
                    commits.push(commit);
                    Guarantee::Awaited(sender)
                }
            };
            Message::entry(entry, guarantee)
        });
        let messages = messages.collect();
        let stored = self.stored(messages, commits, deadline).await;
        if let Err(reason) = &stored {
            counts.refuse(reason);
        }
        stored
    }

    async fn stored(
        &self,
        messages: Vec<Message>,
        commits: SmallVec<[oneshot::Receiver<Result<(), String>>; 1]>,
        deadline: Instant,
    ) -> Result<(), Unlogged> {
        let closed = |QueueClosed| Unlogged::Shutdown;
        if let Some(room) = self.shared.queue.submit(messages).map_err(closed)? {
            let admitted = timeout_at(deadline.into(), room.admitted()).await;
            let full = |_| Unlogged::QueueFull { problem: self.problem() };
            admitted.map_err(full)?.map_err(closed)?;
        }
        for commit in commits {
            let written = timeout_at(deadline.into(), commit).await.map_err(|_| Unlogged::Late)?;
            let exited = |_| Unlogged::Storage(EXITED.into());
            written.map_err(exited)?.map_err(Unlogged::Storage)?;
        }
        Ok(())
    }
}

/// Why nothing more is written.
pub(super) const EXITED: &str = "the thread of the prediction log has exited";
