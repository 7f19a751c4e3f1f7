//! Key-value stores, to which the labels of an application are bound. [`GrantedStore`] enforces limits and
//! timeouts; a `Storage` holds the entries: a SQLite file in Spin's format, a Redis, or memory.

mod bindings;
mod config;
mod memory;
mod redis;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

pub use bindings::{Bindings, unbound};
pub use config::{StoreConfig, parse};

/// Label of the store that exists without a binding, in a file of its own.
pub const DEFAULT: &str = "default";
/// Maximum size of a key, in bytes.
pub const MAX_KEY: usize = 1 << 10;
/// Maximum size of a value, or of the keys and values of one batch, in bytes.
pub const MAX_VALUE: usize = 16 << 20;
/// Maximum number of keys of one batch: they take the thread of a file about as long as a value of the
/// maximum size, some 100 ms.
pub const MAX_KEYS: usize = 10_000;
/// Overhead of an entry, in bytes.
const ENTRY_OVERHEAD: usize = 64;
/// Size at which a page of keys ends, in bytes, each key counted as an entry.
const PAGE_SIZE: usize = 1 << 20;
/// Timeout of one operation. Longer than that of a Redis command, whose error is more specific.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

pub type StoreResult<T> = Result<T, StoreError>;

/// A key, and its value if there is one.
pub type KeyAndValue = (String, Option<Vec<u8>>);

/// Holds entries. Keys and values are within the limits.
trait Storage: Send + Sync {
    /// Returns `keys` with their values, in the same order.
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<Vec<KeyAndValue>>>;

    /// Sets all entries, or none.
    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, StoreResult<()>>;

    /// Removes all keys, or none.
    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<()>>;

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, StoreResult<bool>>;

    /// Returns a page of keys: the first, or the one after another.
    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, StoreResult<Page>>;

    /// Adds to the number at `key`. Returns the sum.
    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, StoreResult<i64>>;

    /// Sets the value if it is still `seen`. Returns whether it was.
    fn swap<'a>(
        &'a self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> BoxFuture<'a, StoreResult<bool>>;
}

/// A page of keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub keys: Vec<String>,
    /// Cursor of the next page; `None` for the last.
    pub next: Option<String>,
}

/// A store, as granted to one component.
pub struct GrantedStore {
    label: String,
    storage: Arc<dyn Storage>,
}

impl std::fmt::Debug for GrantedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("label", &self.label).finish_non_exhaustive()
    }
}

impl GrantedStore {
    /// An empty store in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self { label: DEFAULT.into(), storage: Arc::new(memory::MemoryStore::new(1 << 20)) }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// As for every operation: a key or value exceeds its limit, the storage fails, or
    /// `OPERATION_TIMEOUT` passes.
    pub async fn get(&self, key: String) -> StoreResult<Option<Vec<u8>>> {
        Ok(self.get_many(vec![key]).await?.pop().and_then(|(_, value)| value))
    }

    /// `keys` with their values, in the same order.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_many(&self, keys: Vec<String>) -> StoreResult<Vec<KeyAndValue>> {
        check_keys(keys.iter(), &mut BatchSize::default())?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.in_time(self.storage.get(keys)).await?;
        let mut size = BatchSize::default();
        found.iter().try_for_each(|(key, value)| size.add_entry(key, value.as_deref()))?;
        Ok(found)
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn set(&self, key: String, value: Vec<u8>) -> StoreResult<()> {
        self.set_many(vec![(key, value)]).await
    }

    /// Sets all entries, or none.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn set_many(&self, entries: Vec<(String, Vec<u8>)>) -> StoreResult<()> {
        let mut size = BatchSize::default();
        check_keys(entries.iter().map(|(key, _)| key), &mut size)?;
        entries.iter().try_for_each(|(_, value)| size.add(value.len()))?;
        if entries.is_empty() {
            return Ok(());
        }
        self.in_time(self.storage.set(entries)).await
    }

    /// Removes all keys, or none.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete_many(&self, keys: Vec<String>) -> StoreResult<()> {
        check_keys(keys.iter(), &mut BatchSize::default())?;
        if keys.is_empty() {
            return Ok(());
        }
        self.in_time(self.storage.delete(keys)).await
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn exists(&self, key: String) -> StoreResult<bool> {
        check_key(&key)?;
        self.in_time(self.storage.exists(key)).await
    }

    /// A page of keys, about 1 MiB: the first, or the one after another.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn keys(&self, after: Option<String>) -> StoreResult<Page> {
        self.in_time(self.storage.keys(after)).await
    }

    /// All keys, or if they take more than about [`MAX_VALUE`], the first of them: from the start, or
    /// after those of another list. They include keys that another program has set and that exceed
    /// [`MAX_KEY`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn key_list(&self, after: Option<String>) -> StoreResult<Page> {
        let (mut list, mut bytes) = (Page { keys: Vec::new(), next: after }, 0);
        loop {
            let page = self.keys(list.next).await?;
            bytes += page.keys.iter().map(|key| key.len() + ENTRY_OVERHEAD).sum::<usize>();
            list.keys.extend(page.keys);
            list.next = page.next;
            if list.next.is_none() || bytes + PAGE_SIZE > MAX_VALUE {
                break;
            }
        }
        // Redis may return a key twice.
        list.keys.sort_unstable();
        list.keys.dedup();
        Ok(list)
    }

    /// Every key.
    ///
    /// # Errors
    /// As [`Self::get`], or the keys take more than [`MAX_VALUE`].
    pub async fn all_keys(&self) -> StoreResult<Vec<String>> {
        match self.key_list(None).await? {
            Page { keys, next: None } => Ok(keys),
            Page { .. } => Err(StoreError(format!(
                "the keys take more than {MAX_VALUE} bytes (each counts {ENTRY_OVERHEAD} bytes more); \
                 `wasi:keyvalue` and `spin:key-value@3.0.0` list them in parts"
            ))),
        }
    }

    /// Adds to the number at `key`. Returns the sum.
    ///
    /// # Errors
    /// As [`Self::get`], or the value is not a number, or the sum overflows.
    pub async fn increment(&self, key: String, delta: i64) -> StoreResult<i64> {
        check_key(&key)?;
        self.in_time(self.storage.increment(key, delta)).await
    }

    /// Sets the value if it is still `seen`. Returns whether it was.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn swap(
        &self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> StoreResult<bool> {
        check_key(&key)?;
        BatchSize::default().add_entry(&key, Some(&value))?;
        self.in_time(self.storage.swap(key, seen, value)).await
    }

    async fn in_time<T>(&self, operation: BoxFuture<'_, StoreResult<T>>) -> StoreResult<T> {
        let result = timeout(OPERATION_TIMEOUT, operation).await;
        result.unwrap_or_else(|_| Err(StoreError(format!("timed out after {OPERATION_TIMEOUT:?}"))))
    }
}

fn check_key(key: &str) -> StoreResult<()> {
    if key.len() > MAX_KEY {
        return Err(StoreError(format!(
            "a key of {} bytes exceeds the limit of {MAX_KEY}",
            key.len()
        )));
    }
    Ok(())
}

/// Checks the number of keys, the size of each, and their total, which is added to `size`.
fn check_keys<'a>(
    keys: impl ExactSizeIterator<Item = &'a String>,
    size: &mut BatchSize,
) -> StoreResult<()> {
    if keys.len() > MAX_KEYS {
        return Err(StoreError(format!(
            "{} keys in a batch exceed the limit of {MAX_KEYS}: use several batches",
            keys.len()
        )));
    }
    for key in keys {
        check_key(key)?;
        size.add_entry(key, None)?;
    }
    Ok(())
}

/// Number of bytes that may still be added to a batch.
struct BatchSize(usize);

impl Default for BatchSize {
    /// One entry with a value of the maximum size fits.
    fn default() -> Self {
        Self(MAX_VALUE + MAX_KEY + ENTRY_OVERHEAD)
    }
}

impl BatchSize {
    fn add(&mut self, bytes: usize) -> StoreResult<()> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| {
            StoreError(format!(
                "more than {MAX_VALUE} bytes of keys and values in a batch (each entry counts \
                 {ENTRY_OVERHEAD} bytes more): use several batches"
            ))
        })?;
        Ok(())
    }

    /// Adds an entry, or a key without a value. Even an empty one counts [`ENTRY_OVERHEAD`].
    fn add_entry(&mut self, key: &str, value: Option<&[u8]>) -> StoreResult<()> {
        self.add(ENTRY_OVERHEAD + key.len() + value.map_or(0, <[u8]>::len))
    }
}

/// A number as Spin stores it where the storage has no numbers: eight bytes, little-endian.
fn number(value: Option<&[u8]>) -> StoreResult<i64> {
    let Some(bytes) = value else { return Ok(0) };
    let number = bytes.try_into().map(i64::from_le_bytes);
    number.map_err(|_| {
        StoreError(format!("the value of {} bytes is not a number, which has 8 bytes", bytes.len()))
    })
}

fn sum(number: i64, delta: i64) -> StoreResult<i64> {
    let sum = number.checked_add(delta);
    sum.ok_or_else(|| StoreError(format!("the sum of {number} and {delta} exceeds 64 bits")))
}

#[cfg(test)]
mod tests;
