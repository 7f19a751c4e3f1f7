//! A store in memory: gone when the host ends.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Answer, ENTRY, Error, Found, PAGE, Page, Room, Storage, number, sum};

#[derive(Debug)]
pub(super) struct Memory {
    max_size: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    entries: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(max_size: u64) -> Self {
        Self { max_size, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets all, or none if there is no room.
    fn insert(&self, held: &mut Held, entries: BTreeMap<String, Bytes>) -> Answer<()> {
        let more: usize = entries.iter().map(|(key, value)| size(key, value)).sum();
        let known = entries.keys().filter_map(|key| Some(size(key, held.entries.get(key)?)));
        if (held.bytes - known.sum::<usize>() + more) as u64 > self.max_size {
            return Err(Error(format!(
                "the store is full: it may have {} bytes (max_size)",
                self.max_size
            )));
        }
        for (key, value) in entries {
            held.remove(&key);
            held.bytes += size(&key, &value);
            held.entries.insert(key, value);
        }
        Ok(())
    }
}

impl Held {
    fn remove(&mut self, key: &str) {
        if let Some(value) = self.entries.remove(key) {
            self.bytes -= size(key, &value);
        }
    }
}

fn size(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + ENTRY
}

/// What takes no time is done when it is asked for.
fn now<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    std::future::ready(answer).boxed()
}

impl Storage for Memory {
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<Vec<Found>>> {
        let held = self.held();
        let values: Vec<_> = keys.iter().map(|key| held.entries.get(key).cloned()).collect();
        drop(held);
        let mut room = Room::default();
        let copied = |(key, value): (String, Option<Bytes>)| {
            room.take_entry(&key, value.as_deref())?;
            Ok((key, value.map(|value| value.to_vec())))
        };
        now(keys.into_iter().zip(values).map(copied).collect())
    }

    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, Answer<()>> {
        let entries = entries.into_iter().map(|(key, value)| (key, value.into())).collect();
        now(self.insert(&mut self.held(), entries))
    }

    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<()>> {
        let mut held = self.held();
        keys.iter().for_each(|key| held.remove(key));
        now(Ok(()))
    }

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, Answer<bool>> {
        now(Ok(self.held().entries.contains_key(&key)))
    }

    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, Answer<Page>> {
        let held = self.held();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Page::default();
        let mut bytes = 0;
        for key in held.entries.range((start, Bound::Unbounded)).map(|(key, _)| key) {
            if bytes > PAGE {
                page.next = page.keys.last().cloned();
                break;
            }
            bytes += key.len() + ENTRY;
            page.keys.push(key.clone());
        }
        now(Ok(page))
    }

    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, Answer<i64>> {
        let mut held = self.held();
        let known = number(held.entries.get(&key).map(|value| &value[..]));
        let sum = known.and_then(|number| sum(number, delta)).and_then(|sum| {
            let value = Bytes::copy_from_slice(&sum.to_le_bytes());
            self.insert(&mut held, BTreeMap::from([(key, value)]))?;
            Ok(sum)
        });
        now(sum)
    }

    fn swap<'a>(
        &'a self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Answer<bool>> {
        let mut held = self.held();
        if held.entries.get(&key).map(|value| &value[..]) != seen.as_deref() {
            return now(Ok(false));
        }
        now(self.insert(&mut held, BTreeMap::from([(key, value.into())])).map(|()| true))
    }
}
