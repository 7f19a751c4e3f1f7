//! Stores in a SQLite file, with Spin's schema: one table for all labels. Each file has a thread that
//! executes the operations one after the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    BatchSize, ENTRY_OVERHEAD, KeyAndValue, PAGE_SIZE, Page, Storage, StoreError, StoreResult,
    number, sum,
};
use crate::storage::sqlite::{CallerLiveness, WaitingCaller, open_file};

/// Capacity of the thread's queue; further callers wait.
const QUEUE: usize = 64;
/// Maximum number of queued operations of one component, so that those of others are next.
pub(super) const MAX_OPERATIONS: usize = 4;
/// Timeout for a file that another process has locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Capacity of the cache of prepared statements: more than there are.
const MAX_STATEMENTS: usize = 16;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS spin_key_value (
    store TEXT NOT NULL,
    key   TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (store, key)
)";
const GET: &str = "SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2";
const SET: &str = "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
    ON CONFLICT (store, key) DO UPDATE SET value = ?3";
const DELETE: &str = "DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2";
const EXISTS: &str = "SELECT 1 FROM spin_key_value WHERE store = ?1 AND key = ?2";
const KEYS: &str = "SELECT key FROM spin_key_value WHERE store = ?1 AND key > ?2 ORDER BY key";

/// An operation for the thread, which sends its result itself.
type SqliteJob = Box<dyn FnOnce(&mut Connection) + Send>;

/// Fails if the caller was dropped.
pub(super) fn check(caller: &CallerLiveness) -> StoreResult<()> {
    if caller.is_waiting() { Ok(()) } else { Err(StoreError("the caller was dropped".into())) }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Database {
    /// The thread stops when this is dropped.
    jobs: mpsc::Sender<SqliteJob>,
}

impl Database {
    /// Opens or creates the file at `path`, which will not grow beyond `max_size` bytes.
    pub(super) fn open(path: &Path, max_size: u64) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let connection = open_file(path, max_size, BUSY_TIMEOUT, true)?;
        connection.set_prepared_statement_cache_capacity(MAX_STATEMENTS);
        connection.execute(CREATE, [])?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("key-value".into())
            .spawn(move || work(connection, queue))
            .context("cannot start the store's thread")?;
        Ok(Self { jobs })
    }

    /// Runs `job` on the thread.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection, &CallerLiveness) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (_waiting, caller) = WaitingCaller::new();
        let (sender, result) = oneshot::channel();
        let job = move |connection: &mut Connection| {
            let result = check(&caller).and_then(|()| job(connection, &caller));
            // Fails if the caller was dropped.
            let _ = sender.send(result);
        };
        let stopped = || StoreError("the store's thread has stopped".into());
        self.jobs.send(Box::new(job)).await.map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }
}

fn work(mut connection: Connection, mut jobs: mpsc::Receiver<SqliteJob>) {
    while let Some(job) = jobs.blocking_recv() {
        job(&mut connection);
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                Self("the store is full: its file has reached max_size, or cannot grow".into())
            }
            Some(ErrorCode::DatabaseBusy) => Self("another process locks the store's file".into()),
            _ => Self(error.to_string()),
        }
    }
}

/// The entries of one label in a file, for one component.
#[derive(Debug)]
pub(super) struct SqliteStore {
    pub(super) database: Arc<Database>,
    pub(super) label: String,
    /// Permits of the component for operations in the thread's queue.
    pub(super) permits: Arc<Semaphore>,
}

impl SqliteStore {
    /// Runs `job` on the thread, with the label, once the component has a permit.
    fn run<'a, T: Send + 'static>(
        &'a self,
        job: impl FnOnce(&mut Connection, &str, &CallerLiveness) -> StoreResult<T> + Send + 'static,
    ) -> BoxFuture<'a, StoreResult<T>> {
        let label = self.label.clone();
        async move {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            // Held until the thread is done with the job, and the caller has the result.
            let permit = Arc::new(permit.map_err(|e| StoreError(e.to_string()))?);
            let job_permit = Arc::clone(&permit);
            let job = move |connection: &mut Connection, caller: &CallerLiveness| {
                let _permit = job_permit;
                job(connection, &label, caller)
            };
            self.database.run(job).await
        }
        .boxed()
    }

    /// Runs `job` in a transaction, which is committed unless it fails.
    pub(super) fn change<'a, T: Send + 'static>(
        &'a self,
        job: impl FnOnce(&Transaction<'_>, &str, &CallerLiveness) -> StoreResult<T> + Send + 'static,
    ) -> BoxFuture<'a, StoreResult<T>> {
        self.run(move |connection, label, caller| {
            // A deferred transaction that reads first may fail to upgrade to a write.
            let behaviour = TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(behaviour)?;
            let result = job(&transaction, label, caller)?;
            transaction.commit()?;
            Ok(result)
        })
    }
}

/// The value of `key`, which is added to `size`.
fn get(
    connection: &Connection,
    label: &str,
    key: &str,
    size: &mut BatchSize,
) -> StoreResult<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached(GET)?;
    let mut rows = statement.query([label, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let value = row.get_ref(0)?.as_blob().map_err(|e| StoreError(e.to_string()))?;
    size.add(value.len())?;
    Ok(Some(value.to_vec()))
}

pub(super) fn set(
    connection: &Connection,
    label: &str,
    key: &str,
    value: &[u8],
) -> StoreResult<()> {
    connection.prepare_cached(SET)?.execute(params![label, key, value])?;
    Ok(())
}

impl Storage for SqliteStore {
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<Vec<KeyAndValue>>> {
        self.run(move |connection, label, caller| {
            let mut size = BatchSize::default();
            let found = |key: String| {
                check(caller)?;
                size.add_entry(&key, None)?;
                let value = get(connection, label, &key, &mut size)?;
                Ok((key, value))
            };
            keys.into_iter().map(found).collect()
        })
    }

    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, StoreResult<()>> {
        self.change(move |transaction, label, caller| {
            entries.iter().try_for_each(|(key, value)| {
                check(caller)?;
                set(transaction, label, key, value)
            })
        })
    }

    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<()>> {
        self.change(move |transaction, label, caller| {
            let mut statement = transaction.prepare_cached(DELETE)?;
            for key in &keys {
                check(caller)?;
                statement.execute([label, key])?;
            }
            Ok(())
        })
    }

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, StoreResult<bool>> {
        self.run(move |connection, label, _| {
            Ok(connection.prepare_cached(EXISTS)?.exists([label, &key])?)
        })
    }

    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, StoreResult<Page>> {
        self.run(move |connection, label, _| {
            let mut statement = connection.prepare_cached(KEYS)?;
            // The empty key is a valid key, and no key is less than it.
            let empty = match &after {
                Some(_) => false,
                None => connection.prepare_cached(EXISTS)?.exists([label, ""])?,
            };
            let mut page = Page::default();
            page.keys.extend(empty.then(String::new));
            let mut bytes = 0;
            let mut rows = statement.query([label, after.as_deref().unwrap_or_default()])?;
            let mut next = || -> rusqlite::Result<_> {
                let row = rows.next()?;
                row.map(|row| row.get::<_, String>(0)).transpose()
            };
            while let Some(key) = next()? {
                if bytes > PAGE_SIZE {
                    page.next = page.keys.last().cloned();
                    break;
                }
                bytes += key.len() + ENTRY_OVERHEAD;
                page.keys.push(key);
            }
            Ok(page)
        })
    }

    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, StoreResult<i64>> {
        self.change(move |transaction, label, _| {
            let value = get(transaction, label, &key, &mut BatchSize::default())?;
            let sum = sum(number(value.as_deref())?, delta)?;
            set(transaction, label, &key, &sum.to_le_bytes())?;
            Ok(sum)
        })
    }

    fn swap<'a>(
        &'a self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> BoxFuture<'a, StoreResult<bool>> {
        self.change(move |transaction, label, _| {
            let same = get(transaction, label, &key, &mut BatchSize::default())? == seen;
            if same {
                set(transaction, label, &key, &value)?;
            }
            Ok(same)
        })
    }
}
