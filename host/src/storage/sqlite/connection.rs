//! Databases, and the connections that guests have to them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::file::{CallerLiveness, WaitingCaller};
use super::session::{Session, StatementJob};
use super::statement::QueryResult;
use super::{CONNECT_TIMEOUT, MAX_ACTIVE, MAX_CONNECTIONS, SqliteError};
use crate::process::memory_budget::MemoryBudget;
use crate::process::priority::lower_priority;

/// A file that exists and is a database.
#[derive(Debug)]
pub struct Database {
    pub(super) path: PathBuf,
    /// Maximum size of the file, in bytes.
    pub(super) max_size: u64,
    /// Maximum duration of a transaction, and of a statement outside of one.
    pub(super) max_transaction: Duration,
    /// Permits for connections of all components to all databases.
    pub(super) connections: Arc<Semaphore>,
}

/// The permits of one component.
#[derive(Clone, Debug)]
pub(super) struct ComponentPermits {
    connections: Arc<Semaphore>,
    /// For statements that are executed, and for open transactions.
    active: Arc<Semaphore>,
}

impl Default for ComponentPermits {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            active: Arc::new(Semaphore::new(MAX_ACTIVE)),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// A guest's connection. Dropping it interrupts its statement and rolls back its transaction.
#[derive(Debug)]
pub struct SqliteConnection {
    /// The thread stops when this is dropped.
    jobs: mpsc::Sender<Job>,
    /// One permit: the next statement waits for the one before.
    serial: Arc<Semaphore>,
    active: Arc<Semaphore>,
    state: Arc<ConnectionState>,
}

/// What the thread reports after each statement.
#[derive(Debug, Default)]
struct ConnectionState {
    in_transaction: AtomicBool,
    changes: AtomicU64,
    last_insert_rowid: AtomicI64,
}

fn stopped() -> SqliteError {
    SqliteError::failed("the connection has failed; open another one")
}

impl Database {
    /// Opens a connection, on a thread of its own.
    pub(super) async fn connect(
        &self,
        permits: &ComponentPermits,
    ) -> Result<SqliteConnection, SqliteError> {
        let acquire = async {
            let own = Arc::clone(&permits.connections).acquire_owned().await;
            let all = Arc::clone(&self.connections).acquire_owned().await;
            own.and_then(|own| all.map(|all| [own, all])).map_err(|_| stopped())
        };
        let held = timeout(CONNECT_TIMEOUT, acquire).await.map_err(|_| {
            SqliteError::Failed(format!(
                "too many connections are open, {MAX_CONNECTIONS} of this component or \
                 {} of all; drop some",
                super::MAX_ALL_CONNECTIONS
            ))
        })??;
        let (jobs, queue) = mpsc::channel();
        let (opened, result) = oneshot::channel();
        let state = Arc::<ConnectionState>::default();
        let thread = ConnectionThread { queue, state: Arc::clone(&state), _held: held };
        let (path, max_size, max_transaction) =
            (self.path.clone(), self.max_size, self.max_transaction);
        let run = move || {
            lower_priority();
            match Session::open(&path, max_size, max_transaction) {
                Ok(session) => {
                    // Fails if the caller was dropped; so is the queue's sender then.
                    let _ = opened.send(Ok(()));
                    thread.run(session);
                }
                Err(error) => {
                    let _ = opened.send(Err(SqliteError::from(error)));
                }
            }
        };
        let spawned = std::thread::Builder::new().name("sqlite".into()).spawn(run);
        spawned.map_err(|error| SqliteError::Failed(format!("cannot start a thread: {error}")))?;
        result.await.map_err(|_| stopped())??;
        let (serial, active) = (Arc::new(Semaphore::new(1)), Arc::clone(&permits.active));
        Ok(SqliteConnection { jobs, serial, active, state })
    }
}

impl SqliteConnection {
    /// Executes one statement. Its arguments and its result are charged to `memory`, and it is
    /// interrupted at `deadline`, or when the future is dropped.
    ///
    /// # Errors
    /// The statement fails, or exceeds a limit.
    pub async fn execute(
        &self,
        sql: String,
        parameters: Vec<Value>,
        deadline: Instant,
        memory: MemoryBudget,
    ) -> Result<QueryResult, SqliteError> {
        let bytes = parameters.iter().map(|value| match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        });
        let charge =
            memory.charge(sql.len() + bytes.sum::<usize>() + size_of::<Value>() * parameters.len());
        let charge = charge.map_err(|error| SqliteError::Failed(error.to_string()))?;
        let serial = Arc::clone(&self.serial).acquire_owned().await.map_err(|_| stopped())?;
        let permit = if self.state.in_transaction.load(Ordering::Acquire) {
            None
        } else {
            Some(Arc::clone(&self.active).acquire_owned().await.map_err(|_| stopped())?)
        };
        let (_waiting, caller) = WaitingCaller::new();
        let (sender, result) = oneshot::channel();
        let state = Arc::clone(&self.state);
        let job = move |session: &mut Session| {
            if !caller.is_waiting() {
                return;
            }
            let statement = StatementJob { sql, parameters, deadline, memory, permit };
            let result = execute(session, &state, statement, &caller);
            // Before the guest can use the result.
            drop((charge, serial));
            // Fails if the caller was dropped.
            let _ = sender.send(result);
        };
        self.jobs.send(Box::new(job)).map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }

    /// Number of rows that the last change over this connection changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state.changes.load(Ordering::Relaxed)
    }

    /// The rowid of the last insertion over this connection, or 0.
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        self.state.last_insert_rowid.load(Ordering::Relaxed)
    }
}

fn execute(
    session: &mut Session,
    state: &ConnectionState,
    statement: StatementJob,
    caller: &CallerLiveness,
) -> Result<QueryResult, SqliteError> {
    let result = session.execute(statement, caller);
    state.changes.store(session.changes(), Ordering::Relaxed);
    state.last_insert_rowid.store(session.last_insert_rowid(), Ordering::Relaxed);
    state.report(session);
    result
}

impl ConnectionState {
    fn report(&self, session: &Session) {
        self.in_transaction.store(session.transaction_end().is_some(), Ordering::Release);
    }
}

struct ConnectionThread {
    queue: mpsc::Receiver<Job>,
    state: Arc<ConnectionState>,
    _held: [OwnedSemaphorePermit; 2],
}

impl ConnectionThread {
    /// Executes statements until the connection is dropped, and ends transactions that take too long.
    fn run(self, mut session: Session) {
        loop {
            let job = match session.transaction_end() {
                None => self.queue.recv().map_err(RecvTimeoutError::from),
                Some(end) => self.queue.recv_timeout(end.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(job) => job(&mut session),
                Err(RecvTimeoutError::Timeout) => {
                    session.end_transaction();
                    self.state.report(&session);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
