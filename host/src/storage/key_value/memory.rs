//! A store in memory, which is lost when the host stops.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};

use crate::process::memory_budget::{Charge, MemoryBudget, OverBudget};

use super::{
    BatchSize, ENTRY_OVERHEAD, KeyAndValue, PAGE_SIZE, Page, Storage, StoreError, StoreResult,
    number, sum,
};

#[derive(Debug)]
pub(super) struct MemoryStore(Mutex<Contents>);

#[derive(Debug)]
struct Contents {
    entries: BTreeMap<String, Bytes>,
    charge: Charge,
}

impl MemoryStore {
    pub(super) fn new(max_size: u64) -> Self {
        let limit = usize::try_from(max_size).unwrap_or(usize::MAX);
        let charge = MemoryBudget::new(limit, "max_size").empty_charge();
        Self(Mutex::new(Contents { entries: BTreeMap::new(), charge }))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock()
    }
}

impl Contents {
    /// Sets every entry, or none if they do not fit.
    fn insert(&mut self, entries: BTreeMap<String, Bytes>) -> StoreResult<()> {
        let added: usize = entries.iter().map(|(key, value)| size(key, value)).sum();
        let replaced = entries.keys().filter_map(|key| Some(size(key, self.entries.get(key)?)));
        let replaced: usize = replaced.sum();
        if added > replaced {
            self.charge.grow(added - replaced).map_err(|OverBudget { limit, .. }| {
                StoreError(format!("the store is full: it has reached max_size ({limit} bytes)"))
            })?;
        } else {
            self.charge.shrink(replaced - added);
        }
        self.entries.extend(entries);
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some(value) = self.entries.remove(key) {
            self.charge.shrink(size(key, &value));
        }
    }
}

fn size(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + ENTRY_OVERHEAD
}

/// The result of an operation that is executed by the call itself.
fn ready<'a, T: Send + 'a>(result: T) -> BoxFuture<'a, T> {
    std::future::ready(result).boxed()
}

impl Storage for MemoryStore {
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<Vec<KeyAndValue>>> {
        let contents = self.contents();
        let values: Vec<_> = keys.iter().map(|key| contents.entries.get(key).cloned()).collect();
        drop(contents);
        let mut size = BatchSize::default();
        let copied = |(key, value): (String, Option<Bytes>)| {
            size.add_entry(&key, value.as_deref())?;
            Ok((key, value.map(|value| value.to_vec())))
        };
        ready(keys.into_iter().zip(values).map(copied).collect())
    }

    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, StoreResult<()>> {
        let entries = entries.into_iter().map(|(key, value)| (key, value.into())).collect();
        ready(self.contents().insert(entries))
    }

    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<()>> {
        let mut contents = self.contents();
        keys.iter().for_each(|key| contents.remove(key));
        ready(Ok(()))
    }

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, StoreResult<bool>> {
        ready(Ok(self.contents().entries.contains_key(&key)))
    }

    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, StoreResult<Page>> {
        let contents = self.contents();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Page::default();
        let mut bytes = 0;
        for key in contents.entries.range((start, Bound::Unbounded)).map(|(key, _)| key) {
            if bytes > PAGE_SIZE {
                page.next = page.keys.last().cloned();
                break;
            }
            bytes += key.len() + ENTRY_OVERHEAD;
            page.keys.push(key.clone());
        }
        ready(Ok(page))
    }

    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, StoreResult<i64>> {
        let mut contents = self.contents();
        let known = number(contents.entries.get(&key).map(|value| &value[..]));
        let sum = known.and_then(|number| sum(number, delta)).and_then(|sum| {
            let value = Bytes::copy_from_slice(&sum.to_le_bytes());
            contents.insert(BTreeMap::from([(key, value)]))?;
            Ok(sum)
        });
        ready(sum)
    }

    fn swap<'a>(
        &'a self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> BoxFuture<'a, StoreResult<bool>> {
        let mut contents = self.contents();
        if contents.entries.get(&key).map(|value| &value[..]) != seen.as_deref() {
            return ready(Ok(false));
        }
        ready(contents.insert(BTreeMap::from([(key, value.into())])).map(|()| true))
    }
}
