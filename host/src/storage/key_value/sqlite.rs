//! Stores in a SQLite file, in the form of Spin's own: one table for all labels. A thread for each
//! file does what it is asked for, one after the other, while whoever asked waits for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Answer, ENTRY, Error, Found, PAGE, Page, Room, Storage, number, sum};

/// Operations that wait for the thread; who comes then waits too.
const QUEUE: usize = 64;
/// Operations of one component among those: the others come next.
pub(super) const TURNS: usize = 4;
/// How long another process may keep the file to itself.
const BUSY: Duration = Duration::from_secs(2);
/// Statements that are kept prepared: there are fewer.
const STATEMENTS: usize = 16;

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

/// What the thread is asked for: done with its connection, answered by itself.
type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Whoever asked: it may have stopped to wait.
pub(super) struct Asker<'a>(&'a dyn Fn() -> bool);

impl Asker<'_> {
    /// An error if nobody waits any more.
    pub(super) fn waits(&self) -> Answer<()> {
        if (self.0)() { Ok(()) } else { Err(Error("nobody waits for it any more".into())) }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Database {
    /// The thread ends with it.
    jobs: mpsc::Sender<Job>,
}

impl Database {
    /// Opens the file at `path`, or makes it; it will not be larger than `max_size` bytes.
    pub(super) fn open(path: &Path, max_size: u64) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // Others may read while one writes; what is written outlives this process at once, and the
        // machine some moments later.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = u32::try_from(max_size / u64::from(page)).unwrap_or(u32::MAX);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        connection.execute(CREATE, [])?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("key-value".into())
            .spawn(move || work(connection, queue))
            .context("no thread for it")?;
        Ok(Self { jobs })
    }

    /// What `job` comes to.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection, &Asker<'_>) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let (send, done) = oneshot::channel();
        let job = move |connection: &mut Connection| {
            let waits = || !send.is_closed();
            let asker = Asker(&waits);
            let answer = asker.waits().and_then(|()| job(connection, &asker));
            let _ = send.send(answer);
        };
        let gone = || Error("the store's thread has ended".into());
        self.jobs.send(Box::new(job)).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}

fn work(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        job(&mut connection);
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                Self("the store is full: its file may not grow (max_size), or cannot".into())
            }
            Some(ErrorCode::DatabaseBusy) => Self("another process keeps the store's file".into()),
            _ => Self(error.to_string()),
        }
    }
}

/// What a file has under one label, for one component.
#[derive(Debug)]
pub(super) struct Sqlite {
    pub(super) database: Arc<Database>,
    pub(super) label: String,
    /// The component's turns at the thread.
    pub(super) turns: Arc<Semaphore>,
}

impl Sqlite {
    /// What `job` comes to, with the label, in a turn of the component.
    fn run<'a, T: Send + 'static>(
        &'a self,
        job: impl FnOnce(&mut Connection, &str, &Asker<'_>) -> Answer<T> + Send + 'static,
    ) -> BoxFuture<'a, Answer<T>> {
        let label = self.label.clone();
        async move {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            // Until the thread is done with it, and who asked has the answer.
            let turn = Arc::new(turn.map_err(|e| Error(e.to_string()))?);
            let held = Arc::clone(&turn);
            let job = move |connection: &mut Connection, asker: &Asker<'_>| {
                let _held = held;
                job(connection, &label, asker)
            };
            self.database.run(job).await
        }
        .boxed()
    }

    /// What `job` comes to in a transaction, which is kept if it is no error.
    pub(super) fn change<'a, T: Send + 'static>(
        &'a self,
        job: impl FnOnce(&Transaction<'_>, &str, &Asker<'_>) -> Answer<T> + Send + 'static,
    ) -> BoxFuture<'a, Answer<T>> {
        self.run(move |connection, label, asker| {
            // One that reads first and writes then could come too late to write.
            let behaviour = TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(behaviour)?;
            let done = job(&transaction, label, asker)?;
            transaction.commit()?;
            Ok(done)
        })
    }
}

/// The value of `key`, if there is room for it.
fn get(
    connection: &Connection,
    label: &str,
    key: &str,
    room: &mut Room,
) -> Answer<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached(GET)?;
    let mut rows = statement.query([label, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let value = row.get_ref(0)?.as_blob().map_err(|e| Error(e.to_string()))?;
    room.take(value.len())?;
    Ok(Some(value.to_vec()))
}

pub(super) fn set(connection: &Connection, label: &str, key: &str, value: &[u8]) -> Answer<()> {
    connection.prepare_cached(SET)?.execute(params![label, key, value])?;
    Ok(())
}

impl Storage for Sqlite {
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<Vec<Found>>> {
        self.run(move |connection, label, asker| {
            let mut room = Room::default();
            let found = |key: String| {
                asker.waits()?;
                room.take_entry(&key, None)?;
                let value = get(connection, label, &key, &mut room)?;
                Ok((key, value))
            };
            keys.into_iter().map(found).collect()
        })
    }

    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, Answer<()>> {
        self.change(move |transaction, label, asker| {
            entries.iter().try_for_each(|(key, value)| {
                asker.waits()?;
                set(transaction, label, key, value)
            })
        })
    }

    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<()>> {
        self.change(move |transaction, label, asker| {
            let mut statement = transaction.prepare_cached(DELETE)?;
            for key in &keys {
                asker.waits()?;
                statement.execute([label, key])?;
            }
            Ok(())
        })
    }

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, Answer<bool>> {
        self.run(move |connection, label, _| {
            Ok(connection.prepare_cached(EXISTS)?.exists([label, &key])?)
        })
    }

    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, Answer<Page>> {
        self.run(move |connection, label, _| {
            let mut statement = connection.prepare_cached(KEYS)?;
            // No key is before the empty one, which is one too.
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
                if bytes > PAGE {
                    page.next = page.keys.last().cloned();
                    break;
                }
                bytes += key.len() + ENTRY;
                page.keys.push(key);
            }
            Ok(page)
        })
    }

    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, Answer<i64>> {
        self.change(move |transaction, label, _| {
            let value = get(transaction, label, &key, &mut Room::default())?;
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
    ) -> BoxFuture<'a, Answer<bool>> {
        self.change(move |transaction, label, _| {
            let same = get(transaction, label, &key, &mut Room::default())? == seen;
            if same {
                set(transaction, label, &key, &value)?;
            }
            Ok(same)
        })
    }
}
