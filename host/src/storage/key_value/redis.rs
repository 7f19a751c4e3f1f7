//! A store in Redis, as in Spin: keys are Redis keys, values are strings. All labels that are bound to
//! the same address and database share their entries.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use redis::{Cmd, cmd};

use super::{ENTRY_OVERHEAD, KeyAndValue, PAGE_SIZE, Page, Storage, StoreError, StoreResult};
use crate::storage::redis::{RedisClient, RedisError};

/// Sets `KEYS[1]` to `ARGV[1]` if it is still `ARGV[2]`, or still absent if there is no `ARGV[2]`.
const SWAP: &str = "if redis.call('GET', KEYS[1]) ~= (ARGV[2] or false) then return 0 end \
                    redis.call('SET', KEYS[1], ARGV[1]) return 1";
/// Number of keys that the server scans at a time: it executes no other command meanwhile.
const SCAN_COUNT: usize = 1000;

#[derive(Debug)]
pub(super) struct RedisStore(pub(super) Arc<RedisClient>);

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

impl RedisStore {
    fn query<'a, T>(&'a self, command: Cmd) -> BoxFuture<'a, StoreResult<T>>
    where
        T: redis::FromRedisValue + Send + 'a,
    {
        async move { Ok(self.0.query(&command).await?) }.boxed()
    }
}

impl Storage for RedisStore {
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<Vec<KeyAndValue>>> {
        async move {
            // For a value of another type, GET fails, while MGET returns none.
            let values: Vec<_> = match keys.as_slice() {
                [key] => vec![self.0.query(cmd("GET").arg(key)).await?],
                keys => self.0.query(cmd("MGET").arg(keys)).await?,
            };
            if values.len() != keys.len() {
                let (values, keys) = (values.len(), keys.len());
                return Err(StoreError(format!("Redis returned {values} values for {keys} keys")));
            }
            Ok(keys.into_iter().zip(values).collect())
        }
        .boxed()
    }

    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, StoreResult<()>> {
        self.query(cmd("MSET").arg(entries).take())
    }

    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, StoreResult<()>> {
        async move {
            let _removed: u64 = self.0.query(cmd("DEL").arg(keys)).await?;
            Ok(())
        }
        .boxed()
    }

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, StoreResult<bool>> {
        self.query(cmd("EXISTS").arg(key).take())
    }

    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, StoreResult<Page>> {
        async move {
            let mut cursor = after.unwrap_or_else(|| "0".into());
            let mut page = Page::default();
            let mut bytes = 0;
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(&cursor).arg("COUNT").arg(SCAN_COUNT);
                let (next, keys): (String, Vec<Vec<u8>>) = self.0.query(&scan).await?;
                // Keys that are not UTF-8 are skipped: a component cannot name them.
                let keys = keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
                page.keys.extend(keys.inspect(|key| bytes += key.len() + ENTRY_OVERHEAD));
                cursor = next;
                if cursor == "0" || bytes > PAGE_SIZE {
                    break;
                }
            }
            page.next = (cursor != "0").then_some(cursor);
            page.keys.sort_unstable();
            page.keys.dedup();
            Ok(page)
        }
        .boxed()
    }

    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, StoreResult<i64>> {
        self.query(cmd("INCRBY").arg(key).arg(delta).take())
    }

    fn swap<'a>(
        &'a self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> BoxFuture<'a, StoreResult<bool>> {
        self.query(cmd("EVAL").arg(SWAP).arg(1).arg(key).arg(value).arg(seen).take())
    }
}
