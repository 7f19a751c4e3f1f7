//! Binds labels to stores, and opens the stores of the components.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::sync::Semaphore;

use super::memory::MemoryStore;
use super::redis::RedisStore;
use super::sqlite::{Database, MAX_OPERATIONS, SqliteStore};
use super::{DEFAULT, GrantedStore, Storage, StoreConfig};
use crate::storage::redis::RedisConnections;

/// Default file of a SQLite store.
pub(super) const SQLITE_FILE: &str = "sqlite_key_value.db";

/// The stores that the operator has bound, by label.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Base of relative paths.
    pub folder: PathBuf,
    pub stores: BTreeMap<String, StoreConfig>,
}

impl Bindings {
    /// The store to which `label` is bound. The default store needs no binding.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<StoreConfig> {
        let default = (label == DEFAULT).then(StoreConfig::default);
        self.stores.get(label).cloned().or(default)
    }

    /// Opens the stores of the components, given by the labels of each. A file or a memory store is
    /// created if it does not exist, and opened once for all; a Redis is connected on use, by each
    /// component separately.
    ///
    /// # Errors
    /// A label is not bound, or a file cannot be used.
    pub fn open<'a>(
        &self,
        components: impl Iterator<Item = &'a [String]>,
        connections: &RedisConnections,
    ) -> Result<Vec<HashMap<String, Arc<GrantedStore>>>> {
        let mut opened = Opened::default();
        let stores = components.map(|labels| {
            let redis = connections.for_component();
            let permits = Arc::new(Semaphore::new(MAX_OPERATIONS));
            let store = |label: &String| {
                let storage: Arc<dyn Storage> = match self
                    .get(label)
                    .with_context(|| unbound(label))?
                {
                    StoreConfig::Memory { max_size } => opened.memory(label, max_size),
                    StoreConfig::Redis { address } => Arc::new(RedisStore(redis.client(&address)?)),
                    StoreConfig::Sqlite { path, max_size } => {
                        let path = path.as_deref().unwrap_or(Path::new(SQLITE_FILE));
                        let database = opened.file(label, &self.folder.join(path), max_size)?;
                        let (label, permits) = (label.clone(), Arc::clone(&permits));
                        Arc::new(SqliteStore { database, label, permits })
                    }
                };
                Ok((label.clone(), Arc::new(GrantedStore { label: label.clone(), storage })))
            };
            labels.iter().map(store).collect()
        });
        stores.collect()
    }
}

/// Stores that components or labels share.
#[derive(Default)]
struct Opened {
    memories: HashMap<String, Arc<MemoryStore>>,
    /// By canonical path: the file, the label that opened it first, and its maximum size in bytes.
    files: HashMap<PathBuf, (Arc<Database>, String, u64)>,
}

impl Opened {
    fn memory(&mut self, label: &str, max_size: u64) -> Arc<MemoryStore> {
        let memory = self.memories.entry(label.to_owned());
        Arc::clone(memory.or_insert_with(|| Arc::new(MemoryStore::new(max_size))))
    }

    /// The file at `path`. Labels may share a file: each has its own entries there, as in Spin.
    fn file(&mut self, label: &str, path: &Path, max_size: u64) -> Result<Arc<Database>> {
        let known = path.canonicalize().ok().and_then(|real| self.files.get(&real));
        if let Some((database, first, size)) = known {
            if *size != max_size {
                bail!(
                    "[key_value_store.{label}]: max_size: {} is also the file of `{first}`, with a \
                     max_size of {size} bytes; write the same max_size for both, or another `path`",
                    path.display()
                );
            }
            return Ok(Arc::clone(database));
        }
        let opened = Database::open(path, max_size).and_then(|it| Ok((it, path.canonicalize()?)));
        let (database, real) = opened.with_context(|| {
            format!(
                "key-value store `{label}`: {}: cannot be used; write another `path` or `type` in \
                 [key_value_store.{label}] of a --runtime-config-file",
                path.display()
            )
        })?;
        let database = Arc::new(database);
        self.files.insert(real, (Arc::clone(&database), label.to_owned(), max_size));
        Ok(database)
    }
}

/// The message for a label that is not bound.
#[must_use]
pub fn unbound(label: &str) -> String {
    format!(
        "no store is bound to \"{label}\"; write [key_value_store.{label}] into a \
         --runtime-config-file, with type = \"spin\" (a file), \"redis\" (with `url`) or \"memory\""
    )
}
