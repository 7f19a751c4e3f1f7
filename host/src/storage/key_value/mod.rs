//! Key-value stores: what an application's labels are bound to. [`Store`] is what everybody uses, and
//! keeps to the limits and to time; where entries are kept is a [`Storage`]: a SQLite file as Spin
//! has it, a Redis, or memory.

mod config;
mod memory;
mod redis;
mod sqlite;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::storage::redis::Connections;
pub use config::{StoreConfig, parse};
use memory::Memory;
use redis::Redis;
use sqlite::{Database, Sqlite, TURNS};

/// The store that is there without being bound, in a file of its own.
pub const DEFAULT: &str = "default";
/// Bytes of a key.
pub const MAX_KEY: usize = 1 << 10;
/// Bytes of a value, or of the keys and values of one batch.
pub const MAX_VALUE: usize = 16 << 20;
/// Keys of one batch: a file's thread is busy with them for about as long as with a value of the
/// greatest length, some 100 ms.
pub const MAX_KEYS: usize = 10_000;
/// Bytes an entry takes beside its key and value.
const ENTRY: usize = 64;
/// For one operation. More than a Redis has, whose error says more.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Where a store of Spin's is, in its folder, unless its `path` says otherwise.
const SQLITE_FILE: &str = "sqlite_key_value.db";

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

pub type Answer<T> = Result<T, Error>;

/// A key, and its value if it has one.
pub type Found = (String, Option<Vec<u8>>);

/// What a store is asked for. Keys and values are within the limits.
trait Storage: Send + Sync {
    /// `keys` with their values, in their order.
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<Vec<Found>>>;

    /// Sets all, or none.
    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, Answer<()>>;

    /// Removes all, or none.
    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<()>>;

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, Answer<bool>>;

    /// Some keys: the first, or those after another page.
    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, Answer<Page>>;

    /// Adds to the number at `key`; the sum.
    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, Answer<i64>>;

    /// Sets the value if it is still `seen`; whether it was.
    fn swap<'a>(
        &'a self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Answer<bool>>;
}

/// Some of the keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub keys: Vec<String>,
    /// What to ask for the next with, if there is one.
    pub next: Option<String>,
}

/// A store, as one component has it.
pub struct Store {
    label: String,
    storage: Arc<dyn Storage>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Store {
    pub async fn get(&self, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(self.get_many(vec![key]).await?.pop().and_then(|(_, value)| value))
    }

    /// `keys` with their values, in their order.
    pub async fn get_many(&self, keys: Vec<String>) -> Answer<Vec<Found>> {
        check_keys(keys.iter(), &mut Room::default())?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.in_time(self.storage.get(keys)).await?;
        let mut room = Room::default();
        found.iter().try_for_each(|(key, value)| room.take_entry(key, value.as_deref()))?;
        Ok(found)
    }

    pub async fn set(&self, key: String, value: Vec<u8>) -> Answer<()> {
        self.set_many(vec![(key, value)]).await
    }

    /// Sets all, or none.
    pub async fn set_many(&self, entries: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let mut room = Room::default();
        check_keys(entries.iter().map(|(key, _)| key), &mut room)?;
        entries.iter().try_for_each(|(_, value)| room.take(value.len()))?;
        if entries.is_empty() {
            return Ok(());
        }
        self.in_time(self.storage.set(entries)).await
    }

    /// Removes all, or none.
    pub async fn delete_many(&self, keys: Vec<String>) -> Answer<()> {
        check_keys(keys.iter(), &mut Room::default())?;
        if keys.is_empty() {
            return Ok(());
        }
        self.in_time(self.storage.delete(keys)).await
    }

    pub async fn exists(&self, key: String) -> Answer<bool> {
        check_key(&key)?;
        self.in_time(self.storage.exists(key)).await
    }

    /// About a MiB of keys: the first, or those after another page.
    pub async fn keys(&self, after: Option<String>) -> Answer<Page> {
        self.in_time(self.storage.keys(after)).await
    }

    /// Every key, those too that another program has put there and that are too long for a
    /// component. An error if they take more than [`MAX_VALUE`].
    pub async fn all_keys(&self) -> Answer<Vec<String>> {
        let (mut all, mut room, mut next) = (Vec::new(), Room::default(), None);
        loop {
            let page = self.keys(next).await?;
            for key in &page.keys {
                room.take_entry(key, None).map_err(|Error(problem)| {
                    Error(format!(
                        "{problem}; `wasi:keyvalue` and `spin:key-value@3.0.0` list in parts"
                    ))
                })?;
            }
            all.extend(page.keys);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        // A Redis may say some twice.
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Adds to the number at `key`; the sum.
    pub async fn increment(&self, key: String, delta: i64) -> Answer<i64> {
        check_key(&key)?;
        self.in_time(self.storage.increment(key, delta)).await
    }

    /// Sets the value if it is still `seen`; whether it was.
    pub async fn swap(&self, key: String, seen: Option<Vec<u8>>, value: Vec<u8>) -> Answer<bool> {
        check_key(&key)?;
        Room::default().take_entry(&key, Some(&value))?;
        self.in_time(self.storage.swap(key, seen, value)).await
    }

    async fn in_time<T>(&self, operation: BoxFuture<'_, Answer<T>>) -> Answer<T> {
        let done = timeout(OPERATION_TIMEOUT, operation).await;
        done.unwrap_or_else(|_| Err(Error(format!("not done within {OPERATION_TIMEOUT:?}"))))
    }
}

fn check_key(key: &str) -> Answer<()> {
    if key.len() > MAX_KEY {
        return Err(Error(format!("a key of {} bytes, and one may have {MAX_KEY}", key.len())));
    }
    Ok(())
}

/// Checks how many there are, the length of each, and of all together.
fn check_keys<'a>(keys: impl ExactSizeIterator<Item = &'a String>, room: &mut Room) -> Answer<()> {
    if keys.len() > MAX_KEYS {
        return Err(Error(format!(
            "{} keys at a time, and there may be {MAX_KEYS}: ask for them in parts",
            keys.len()
        )));
    }
    for key in keys {
        check_key(key)?;
        room.take_entry(key, None)?;
    }
    Ok(())
}

/// What a batch may still take, in bytes.
struct Room(usize);

impl Default for Room {
    /// What is beside a value of the greatest length is not held against it.
    fn default() -> Self {
        Self(MAX_VALUE + MAX_KEY + ENTRY)
    }
}

impl Room {
    fn take(&mut self, bytes: usize) -> Answer<()> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| {
            Error(format!(
                "more than {MAX_VALUE} bytes of keys and values at a time, where each entry \
                 counts {ENTRY} more"
            ))
        })?;
        Ok(())
    }

    /// An entry, or a key without a value: however short, it takes some.
    fn take_entry(&mut self, key: &str, value: Option<&[u8]>) -> Answer<()> {
        self.take(ENTRY + key.len() + value.map_or(0, <[u8]>::len))
    }
}

/// What the operator has bound, by label, and where files are whose path is relative.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    pub folder: PathBuf,
    pub stores: BTreeMap<String, StoreConfig>,
}

impl Bindings {
    /// What `label` is bound to. The default store is, without saying so.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<StoreConfig> {
        let default = (label == DEFAULT).then(StoreConfig::default);
        self.stores.get(label).cloned().or(default)
    }

    /// Opens the stores of components, of each those of its labels, which are bound. A file or a
    /// memory is opened once, and made if it is not there; a Redis is connected when it is used,
    /// for each component by itself.
    pub fn open<'a>(
        &self,
        components: impl Iterator<Item = &'a [String]>,
        connections: &Connections,
    ) -> Result<Vec<HashMap<String, Arc<Store>>>> {
        let mut opened = Opened::default();
        let stores = components.map(|labels| {
            let (share, turns) = (connections.share(), Arc::new(Semaphore::new(TURNS)));
            let store = |label: &String| {
                let storage: Arc<dyn Storage> =
                    match self.get(label).with_context(|| unbound(label))? {
                        StoreConfig::Memory { max_size } => opened.memory(label, max_size),
                        StoreConfig::Redis { address } => Arc::new(Redis(share.link(&address)?)),
                        StoreConfig::Sqlite { path, max_size } => {
                            let path = path.as_deref().unwrap_or(Path::new(SQLITE_FILE));
                            let database = opened.file(label, &self.folder.join(path), max_size)?;
                            let (label, turns) = (label.clone(), Arc::clone(&turns));
                            Arc::new(Sqlite { database, label, turns })
                        }
                    };
                Ok((label.clone(), Arc::new(Store { label: label.clone(), storage })))
            };
            labels.iter().map(store).collect()
        });
        stores.collect()
    }
}

/// What several components or labels have in common.
#[derive(Default)]
struct Opened {
    memories: HashMap<String, Arc<Memory>>,
    /// By their path without links, with the label that was first and its size.
    files: HashMap<PathBuf, (Arc<Database>, String, u64)>,
}

impl Opened {
    fn memory(&mut self, label: &str, max_size: u64) -> Arc<Memory> {
        let memory = self.memories.entry(label.to_owned());
        Arc::clone(memory.or_insert_with(|| Arc::new(Memory::new(max_size))))
    }

    /// The file at `path`. Labels may share it: each has entries of its own there, as in Spin.
    fn file(&mut self, label: &str, path: &Path, max_size: u64) -> Result<Arc<Database>> {
        let known = path.canonicalize().ok().and_then(|real| self.files.get(&real));
        if let Some((database, first, size)) = known {
            if *size != max_size {
                bail!(
                    "[key_value_store.{label}]: max_size: {} is the file of `{first}` too, of \
                     {size} bytes at most, and a file has one size: write the same for both, or \
                     another `path`",
                    path.display()
                );
            }
            return Ok(Arc::clone(database));
        }
        let opened = Database::open(path, max_size).and_then(|it| Ok((it, path.canonicalize()?)));
        let (database, real) = opened.with_context(|| {
            format!(
                "key-value store `{label}`: {}: cannot be used; [key_value_store.{label}] in a \
                 --runtime-config-file takes another `path`, or another `type`",
                path.display()
            )
        })?;
        let database = Arc::new(database);
        self.files.insert(real, (Arc::clone(&database), label.to_owned(), max_size));
        Ok(database)
    }
}

/// That `label` is bound to nothing, and what to write.
#[must_use]
pub fn unbound(label: &str) -> String {
    format!(
        "no store is bound to \"{label}\"; write [key_value_store.{label}] into a \
         --runtime-config-file, with type = \"spin\" (a file), \"redis\" (with `url`) or \"memory\""
    )
}

/// A number as Spin keeps it where the store has none: eight bytes, little-endian.
fn number(value: Option<&[u8]>) -> Answer<i64> {
    let Some(bytes) = value else { return Ok(0) };
    let number = bytes.try_into().map(i64::from_le_bytes);
    number.map_err(|_| {
        Error(format!("the value of {} bytes is not a number, which has eight", bytes.len()))
    })
}

fn sum(number: i64, delta: i64) -> Answer<i64> {
    let sum = number.checked_add(delta);
    sum.ok_or_else(|| Error(format!("{number} and {delta} are more than 64 bits hold")))
}

/// Bytes the keys of a page take, each as an entry, unless a single one takes more.
const PAGE: usize = 1 << 20;

#[cfg(test)]
mod tests;
