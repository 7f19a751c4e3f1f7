//! A guest's connection on its thread: what its statements may do, and for how long.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Authorization;
use rusqlite::limits::Limit;
use rusqlite::types::Value;
use rusqlite::{Connection, Result};
use tokio::sync::OwnedSemaphorePermit;

use super::authorizer::authorize;
use super::file::{CallerLiveness, open_file};
use super::statement::{self, QueryResult};
use super::{BUSY_TIMEOUT, MAX_STATEMENT, MAX_VALUE, SqliteError};
use crate::process::memory_budget::MemoryBudget;

/// Number of SQLite's instructions between two checks of a statement's time: some ten microseconds.
const CHECK_INTERVAL: i32 = 1000;
/// Size of the page cache of a connection, in KiB, negative as SQLite has it.
const CACHE: i32 = -1000;
/// Size to which the write-ahead log is truncated, in bytes.
const MAX_LOG: i64 = 16 << 20;
/// Maximum length of a pattern of LIKE and GLOB, in bytes: the time of a comparison grows with it.
const MAX_PATTERN: i32 = 1000;

/// A statement for a session.
pub(super) struct StatementJob {
    pub(super) sql: String,
    pub(super) parameters: Vec<Value>,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    pub(super) memory: MemoryBudget,
    /// The component's permit for this statement, unless the open transaction has one.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// An open transaction.
struct OpenTransaction {
    /// When it is rolled back.
    end: Instant,
    _permit: Option<OwnedSemaphorePermit>,
}

pub(super) struct Session {
    connection: Connection,
    max_transaction: Duration,
    transaction: Option<OpenTransaction>,
    /// Whether a transaction was rolled back, and the guest has not received that error.
    lost: bool,
    /// Why the last statement was not permitted.
    denied: Arc<Mutex<Option<String>>>,
}

impl Session {
    /// Opens the file at `path`, which exists.
    pub(super) fn open(path: &Path, max_size: u64, max_transaction: Duration) -> Result<Self> {
        let mut connection = open_file(path, max_size, BUSY_TIMEOUT, false)?;
        connection.pragma_update(None, "cache_size", CACHE)?;
        connection.pragma_update_and_check(None, "journal_size_limit", MAX_LOG, |_| Ok(()))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE)?;
        connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        let denied: Arc<Mutex<Option<String>>> = Arc::default();
        let reason = Arc::clone(&denied);
        connection.authorizer(Some(move |context: rusqlite::hooks::AuthContext<'_>| {
            authorize(context).unwrap_or_else(|problem| {
                *reason.lock() = Some(problem);
                Authorization::Deny
            })
        }))?;
        Ok(Self { connection, max_transaction, transaction: None, lost: false, denied })
    }

    /// When the open transaction is rolled back.
    pub(super) fn transaction_end(&self) -> Option<Instant> {
        self.transaction.as_ref().map(|transaction| transaction.end)
    }

    /// Rolls back a transaction that was open for too long.
    pub(super) fn end_transaction(&mut self) {
        self.transaction = None;
        self.lost = true;
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::warn!(%error, "cannot roll back a transaction of SQLite");
        }
    }

    /// Executes a statement until the caller's deadline, the end of the transaction, or the caller is
    /// dropped.
    pub(super) fn execute(
        &mut self,
        job: StatementJob,
        caller: &CallerLiveness,
    ) -> Result<QueryResult, SqliteError> {
        if std::mem::take(&mut self.lost) {
            return Err(SqliteError::Failed(format!(
                "the transaction was rolled back: it was open for more than {:?}, or \
                 a statement in it was cancelled",
                self.max_transaction
            )));
        }
        let StatementJob { sql, parameters, deadline, memory, permit } = job;
        let now = Instant::now();
        let transaction_end = self.transaction_end().unwrap_or(now + self.max_transaction);
        let end = deadline.min(transaction_end);
        let result = self
            .limit_time(now, end, caller)
            .and_then(|()| statement::execute(&self.connection, &sql, &parameters, &memory));
        let result = result.map_err(|error| self.explain(error, end, caller));
        // SQLite rolls back when it interrupts a write. A caller that was dropped lacks that error.
        let lost = result.is_err() && !caller.is_waiting();
        self.settle(permit, transaction_end, lost);
        result
    }

    /// Interrupts statements at `end`, or if the caller was dropped.
    fn limit_time(
        &mut self,
        now: Instant,
        end: Instant,
        caller: &CallerLiveness,
    ) -> Result<(), SqliteError> {
        *self.denied.lock() = None;
        let timeout = end.saturating_duration_since(now).min(BUSY_TIMEOUT);
        // A timeout of zero would disable the handler, and with it the message of the deadline.
        self.connection.busy_timeout(timeout.max(Duration::from_millis(1)))?;
        let caller = caller.clone();
        let interrupted = move || Instant::now() >= end || !caller.is_waiting();
        self.connection.progress_handler(CHECK_INTERVAL, Some(interrupted))?;
        Ok(())
    }

    /// The error with the reason, if it was the host that stopped the statement.
    fn explain(&self, error: SqliteError, end: Instant, caller: &CallerLiveness) -> SqliteError {
        if let Some(reason) = self.denied.lock().take() {
            SqliteError::Failed(reason)
        } else if !caller.is_waiting() {
            SqliteError::failed("the caller was dropped")
        } else if Instant::now() >= end {
            SqliteError::Failed(format!(
                "timed out: a statement or transaction takes at most {:?}, and no longer than \
                 its request",
                self.max_transaction
            ))
        } else {
            error
        }
    }

    /// Records whether a transaction is open after a statement.
    fn settle(&mut self, _permit: Option<OwnedSemaphorePermit>, end: Instant, lost: bool) {
        match (&self.transaction, !self.connection.is_autocommit()) {
            (None, true) => self.transaction = Some(OpenTransaction { end, _permit }),
            (Some(_), false) => {
                self.transaction = None;
                self.lost = lost;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    pub(super) fn changes(&self) -> u64 {
        self.connection.changes()
    }

    pub(super) fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }
}
