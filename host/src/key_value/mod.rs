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

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::redis_connections::Connections;
pub use config::{StoreConfig, parse};
use memory::Memory;
use redis::Redis;
use sqlite::{Database, Sqlite};

/// The store that is there without being bound, in a file of its own.
pub const DEFAULT: &str = "default";
/// Bytes of a key.
pub const KEY_MOST: usize = 1 << 10;
/// Bytes of a value, or of the keys and values of one batch.
pub const VALUE_MOST: usize = 16 << 20;
/// For one operation. More than a Redis has, whose error says more.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Where a store of Spin's is, in its folder, unless its `path` says otherwise.
const SQLITE_FILE: &str = "sqlite_key_value.db";

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

pub type Answer<T> = Result<T, Error>;

/// What a store is asked for. Keys and values are within the limits.
trait Storage: Send + Sync {
    /// The values of `keys`, in their order.
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<Vec<Option<Vec<u8>>>>>;

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

/// A store.
pub struct Store {
    label: String,
    storage: Box<dyn Storage>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Store {
    pub async fn get(&self, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(self.get_many(vec![key]).await?.pop().flatten())
    }

    /// The values of `keys`, in their order.
    pub async fn get_many(&self, keys: Vec<String>) -> Answer<Vec<Option<Vec<u8>>>> {
        check(&keys, [])?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let values = self.in_time(self.storage.get(keys)).await?;
        check(&[], values.iter().flatten())?;
        Ok(values)
    }

    pub async fn set(&self, key: String, value: Vec<u8>) -> Answer<()> {
        self.set_many(vec![(key, value)]).await
    }

    /// Sets all, or none.
    pub async fn set_many(&self, entries: Vec<(String, Vec<u8>)>) -> Answer<()> {
        check(entries.iter().map(|(key, _)| key), entries.iter().map(|(_, value)| value))?;
        if entries.is_empty() {
            return Ok(());
        }
        self.in_time(self.storage.set(entries)).await
    }

    /// Removes all, or none.
    pub async fn delete_many(&self, keys: Vec<String>) -> Answer<()> {
        check(&keys, [])?;
        if keys.is_empty() {
            return Ok(());
        }
        self.in_time(self.storage.delete(keys)).await
    }

    pub async fn exists(&self, key: String) -> Answer<bool> {
        check([&key], [])?;
        self.in_time(self.storage.exists(key)).await
    }

    /// About a MiB of keys: the first, or those after another page.
    pub async fn keys(&self, after: Option<String>) -> Answer<Page> {
        self.in_time(self.storage.keys(after)).await
    }

    /// Every key. An error if they take more than [`VALUE_MOST`].
    pub async fn all_keys(&self) -> Answer<Vec<String>> {
        let mut page = self.keys(None).await?;
        let mut all = page.keys;
        while let Some(next) = page.next {
            page = self.keys(Some(next)).await?;
            all.append(&mut page.keys);
            check(&all, []).map_err(|Error(problem)| {
                Error(format!(
                    "{problem}; `wasi:keyvalue` and `spin:key-value@3.0.0` list in parts"
                ))
            })?;
        }
        // A Redis may say some twice.
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Adds to the number at `key`; the sum.
    pub async fn increment(&self, key: String, delta: i64) -> Answer<i64> {
        check([&key], [])?;
        self.in_time(self.storage.increment(key, delta)).await
    }

    /// Sets the value if it is still `seen`; whether it was.
    pub async fn swap(&self, key: String, seen: Option<Vec<u8>>, value: Vec<u8>) -> Answer<bool> {
        check([&key], [&value])?;
        self.in_time(self.storage.swap(key, seen, value)).await
    }

    async fn in_time<T>(&self, operation: BoxFuture<'_, Answer<T>>) -> Answer<T> {
        let done = timeout(OPERATION_TIMEOUT, operation).await;
        done.unwrap_or_else(|_| Err(Error(format!("not done within {OPERATION_TIMEOUT:?}"))))
    }
}

/// Checks the length of each, and of all together.
fn check<'a>(
    keys: impl IntoIterator<Item = &'a String>,
    values: impl IntoIterator<Item = &'a Vec<u8>>,
) -> Answer<()> {
    let mut room = Room::default();
    for key in keys {
        if key.len() > KEY_MOST {
            let problem = format!("a key of {} bytes, and one may have {KEY_MOST}", key.len());
            return Err(Error(problem));
        }
        room.take(key.len())?;
    }
    values.into_iter().try_for_each(|value| room.take(value.len()))
}

/// What a batch may still take, in bytes.
struct Room(usize);

impl Default for Room {
    /// The key beside a value of the greatest length is not held against it.
    fn default() -> Self {
        Self(VALUE_MOST + KEY_MOST)
    }
}

impl Room {
    fn take(&mut self, bytes: usize) -> Answer<()> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| {
            Error(format!("more than {VALUE_MOST} bytes of keys and values at a time"))
        })?;
        Ok(())
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

    /// Opens the stores of `labels`, each of which is bound. Files are made that are not there; a
    /// Redis is connected when it is used.
    pub fn open<'a>(
        &self,
        labels: impl Iterator<Item = &'a String>,
        connections: &Connections,
    ) -> Result<HashMap<String, Arc<Store>>> {
        let mut files = HashMap::new();
        let mut stores = HashMap::new();
        for label in labels {
            if stores.contains_key(label) {
                continue;
            }
            let config = self.get(label).with_context(|| unbound(label))?;
            let storage: Box<dyn Storage> = match config {
                StoreConfig::Memory { max_size } => Box::new(Memory::new(max_size)),
                StoreConfig::Redis { address } => Box::new(Redis(connections.link(&address)?)),
                StoreConfig::Sqlite { path, max_size } => {
                    let path = path.as_deref().unwrap_or(Path::new(SQLITE_FILE));
                    let path = self.folder.join(path);
                    let database = match files.get(&path) {
                        Some(database) => Arc::clone(database),
                        None => {
                            let opened = Database::open(&path, max_size).with_context(|| {
                                format!(
                                    "key-value store `{label}`: {}: cannot be used; \
                                     [key_value_store.{label}] in a --runtime-config-file takes \
                                     another `path`, or another `type`",
                                    path.display()
                                )
                            })?;
                            Arc::clone(files.entry(path).or_insert_with(|| Arc::new(opened)))
                        }
                    };
                    Box::new(Sqlite { database, label: label.clone() })
                }
            };
            stores.insert(label.clone(), Arc::new(Store { label: label.clone(), storage }));
        }
        Ok(stores)
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

/// Bytes of keys a page has, unless a single one is longer.
const PAGE: usize = 1 << 20;

#[cfg(test)]
mod tests;
