//! A guest's connection: one statement at a time, cancelled on the server when its caller stops waiting.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Instant;

use parking_lot::Mutex as SyncMutex;
use tokio::sync::{Mutex, OwnedSemaphorePermit, oneshot};
use tokio::time::{timeout, timeout_at};
use tokio_postgres::{CancelToken, Client, Connection, Statement};
use tracing::debug;

use super::connect::{Dialer, EncryptedStream, Login, RawStream};
use super::error::describe;
use super::framing::Allowance;
use super::result::{OVERHEAD, ResultSet};
use super::value::PostgresValue;
use super::{CLOSE_TIMEOUT, MAX_STATEMENT, PostgresError};
use crate::process::memory_budget::{Charge, MemoryBudget};

/// A connection to a server, closed on drop.
pub struct PostgresConnection {
    client: Client,
    /// Held by the statement that is executed.
    serial: Mutex<()>,
    allowance: Allowance,
    /// Why it is closed, once it is.
    closed: Arc<OnceLock<String>>,
    /// Tells the driver to cancel the statement and to close the connection.
    cancel: SyncMutex<Option<oneshot::Sender<()>>>,
    memory: MemoryBudget,
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.closed.get();
        f.debug_struct("PostgresConnection").field("closed", &closed).finish_non_exhaustive()
    }
}

impl PostgresConnection {
    /// The connection of a `login`, of which a task reads the messages.
    pub(super) fn new(
        login: Login,
        dialer: Dialer,
        permits: [OwnedSemaphorePermit; 2],
        memory: &MemoryBudget,
    ) -> Self {
        let Login { client, connection, allowance, peer } = login;
        let (cancel, cancelled) = oneshot::channel();
        let closed = Arc::<OnceLock<String>>::default();
        let driver = Driver {
            connection,
            dialer,
            peer,
            token: client.cancel_token(),
            closed: Arc::clone(&closed),
            _permits: permits,
        };
        tokio::spawn(driver.run(cancelled));
        let (serial, cancel) = (Mutex::default(), SyncMutex::new(Some(cancel)));
        Self { client, serial, allowance, closed, cancel, memory: memory.clone() }
    }

    /// Executes one statement and returns its rows. It is cancelled at `deadline`, or when the future is
    /// dropped.
    ///
    /// # Errors
    /// The statement fails, or exceeds a limit.
    pub async fn query(
        &self,
        sql: String,
        parameters: Vec<PostgresValue>,
        deadline: Instant,
    ) -> Result<ResultSet, PostgresError> {
        let _charge = self.charge(&sql, &parameters)?;
        let query = async {
            let statement = self.prepare(&sql, &parameters).await?;
            let rows = self.client.query_raw(&statement, parameters).await?;
            ResultSet::read(statement.columns(), rows, &self.memory).await
        };
        self.run(deadline, query).await
    }

    /// Executes one statement and returns the number of rows that it changed or selected. It is cancelled
    /// as by [`Self::query`].
    ///
    /// # Errors
    /// The statement fails, or exceeds a limit.
    pub async fn execute(
        &self,
        sql: String,
        parameters: Vec<PostgresValue>,
        deadline: Instant,
    ) -> Result<u64, PostgresError> {
        let _charge = self.charge(&sql, &parameters)?;
        let execution = async {
            let statement = self.prepare(&sql, &parameters).await?;
            Ok(self.client.execute_raw(&statement, parameters).await?)
        };
        self.run(deadline, execution).await
    }

    /// Checks and charges a statement.
    fn charge(&self, sql: &str, parameters: &[PostgresValue]) -> Result<Charge, PostgresError> {
        if sql.contains('\0') {
            return Err(PostgresError::Parameter("the statement contains a NUL character".into()));
        }
        let bytes = parameters.iter().map(|value| OVERHEAD + value.heap_size());
        let bytes = sql.len() + bytes.sum::<usize>();
        if bytes > MAX_STATEMENT {
            return Err(PostgresError::Parameter(format!(
                "the statement with its parameters has {bytes} bytes, and the limit is {MAX_STATEMENT}"
            )));
        }
        for (index, value) in parameters.iter().enumerate() {
            value.check().map_err(|problem| {
                PostgresError::Parameter(format!("parameter {}: {problem}", index + 1))
            })?;
        }
        // The values, and the message that they become.
        let charge = self.memory.charge(2 * bytes);
        charge.map_err(|error| PostgresError::Parameter(error.to_string()))
    }

    async fn prepare(
        &self,
        sql: &str,
        parameters: &[PostgresValue],
    ) -> Result<Statement, PostgresError> {
        self.allowance.bound();
        let prepared = self.client.prepare(sql).await;
        self.allowance.unbound();
        let statement = prepared?;
        let needed = statement.params().len();
        if parameters.len() != needed {
            return Err(PostgresError::Parameter(format!(
                "the statement has {needed} parameters, and {} were passed",
                parameters.len()
            )));
        }
        Ok(statement)
    }

    /// Runs a statement after those before it.
    async fn run<T>(
        &self,
        deadline: Instant,
        statement: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        let turn = async {
            let _serial = self.serial.lock().await;
            if let Some(reason) = self.closed.get() {
                return Err(PostgresError::Query(format!(
                    "the connection is closed ({reason}); open another one"
                )));
            }
            let mut running = RunningStatement { connection: self, finished: false };
            let result = statement.await;
            running.finished = match &result {
                Ok(_) => true,
                Err(error) => error.leaves_open(),
            };
            result.map_err(|error| self.explain(error))
        };
        timeout_at(deadline.into(), turn).await.unwrap_or_else(|_| {
            Err(PostgresError::Query(
                "the statement was not finished at the deadline of its request, and is cancelled"
                    .into(),
            ))
        })
    }

    /// The error with the reason, if it is the loss of the connection.
    fn explain(&self, error: PostgresError) -> PostgresError {
        match (error, self.closed.get()) {
            (PostgresError::Query(problem), Some(reason)) if !problem.contains(reason) => {
                PostgresError::Query(format!("{problem}: {reason}"))
            }
            (error, _) => error,
        }
    }

    /// Closes the connection, and cancels its statement.
    fn cancel(&self) {
        // Fails if it is closed already.
        let _ = self.closed.set("a statement on it was cancelled or failed".into());
        if let Some(cancel) = self.cancel.lock().take() {
            // Fails if the driver has ended.
            let _ = cancel.send(());
        }
    }
}

/// A statement that is executed: it is cancelled on drop, unless it has finished.
struct RunningStatement<'a> {
    connection: &'a PostgresConnection,
    finished: bool,
}

impl Drop for RunningStatement<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.connection.cancel();
        }
    }
}

/// Reads the messages of a connection until it is closed.
struct Driver {
    connection: Connection<RawStream, EncryptedStream>,
    dialer: Dialer,
    peer: SocketAddr,
    token: CancelToken,
    closed: Arc<OnceLock<String>>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Driver {
    async fn run(mut self, cancelled: oneshot::Receiver<()>) {
        tokio::select! {
            reason = read_messages(&mut self.connection) => {
                // Fails if it was cancelled before.
                let _ = self.closed.set(reason);
            }
            cancelled = cancelled => match cancelled {
                Ok(()) => {
                    // The server would execute the statement to its end, as it does not look at its socket.
                    let cancelled = timeout(CLOSE_TIMEOUT, self.dialer.cancel(&self.token, self.peer)).await;
                    if !matches!(cancelled, Ok(Ok(()))) {
                        debug!(peer = %self.peer, "a statement of PostgreSQL was not cancelled");
                    }
                }
                // The guest dropped its handle. The server may not read what is left to send.
                Err(_) => drop(timeout(CLOSE_TIMEOUT, read_messages(&mut self.connection)).await),
            },
        }
    }
}

/// Reads messages until the connection is closed. Returns the reason. Notices are ignored.
pub(super) async fn read_messages(
    connection: &mut Connection<RawStream, EncryptedStream>,
) -> String {
    poll_fn(|cx| {
        loop {
            match connection.poll_message(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(describe(&error)),
                Poll::Ready(None) => return Poll::Ready("closed".into()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
