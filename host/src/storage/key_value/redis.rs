//! A store in a Redis, as Spin has it: keys are keys, values are strings. Whoever is bound to the
//! same address and database has the same entries.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use redis::{Cmd, cmd};

use super::{Answer, ENTRY, Error, Found, PAGE, Page, Storage};
use crate::storage::redis::{self, Link};

/// Sets `KEYS[1]` to `ARGV[1]` if it is still `ARGV[2]`, or still absent without one.
const SWAP: &str = "if redis.call('GET', KEYS[1]) ~= (ARGV[2] or false) then return 0 end \
                    redis.call('SET', KEYS[1], ARGV[1]) return 1";
/// Keys a server looks at for one part of a page: it does nothing else meanwhile.
const LOOKED_AT: usize = 1000;

#[derive(Debug)]
pub(super) struct Redis(pub(super) Arc<Link>);

impl From<redis_connections::Error> for Error {
    fn from(error: redis_connections::Error) -> Self {
        Self(error.to_string())
    }
}

impl Redis {
    fn answer<'a, T>(&'a self, command: Cmd) -> BoxFuture<'a, Answer<T>>
    where
        T: redis::FromRedisValue + Send + 'a,
    {
        async move { Ok(self.0.answer(&command).await?) }.boxed()
    }
}

impl Storage for Redis {
    fn get<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<Vec<Found>>> {
        async move {
            // Of one it says whether the value is no string; of many, that there is none.
            let values: Vec<_> = match keys.as_slice() {
                [key] => vec![self.0.answer(cmd("GET").arg(key)).await?],
                keys => self.0.answer(cmd("MGET").arg(keys)).await?,
            };
            if values.len() != keys.len() {
                let (values, keys) = (values.len(), keys.len());
                return Err(Error(format!("the Redis has {values} values for {keys} keys")));
            }
            Ok(keys.into_iter().zip(values).collect())
        }
        .boxed()
    }

    fn set<'a>(&'a self, entries: Vec<(String, Vec<u8>)>) -> BoxFuture<'a, Answer<()>> {
        self.answer(cmd("MSET").arg(entries).take())
    }

    fn delete<'a>(&'a self, keys: Vec<String>) -> BoxFuture<'a, Answer<()>> {
        async move {
            let _gone: u64 = self.0.answer(cmd("DEL").arg(keys)).await?;
            Ok(())
        }
        .boxed()
    }

    fn exists<'a>(&'a self, key: String) -> BoxFuture<'a, Answer<bool>> {
        self.answer(cmd("EXISTS").arg(key).take())
    }

    fn keys<'a>(&'a self, after: Option<String>) -> BoxFuture<'a, Answer<Page>> {
        async move {
            let mut cursor = after.unwrap_or_else(|| "0".into());
            let mut page = Page::default();
            let mut bytes = 0;
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(&cursor).arg("COUNT").arg(LOOKED_AT);
                let (next, keys): (String, Vec<Vec<u8>>) = self.0.answer(&scan).await?;
                // What is no text is not a key of ours: no component could say it.
                let keys = keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
                page.keys.extend(keys.inspect(|key| bytes += key.len() + ENTRY));
                cursor = next;
                if cursor == "0" || bytes > PAGE {
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

    fn increment<'a>(&'a self, key: String, delta: i64) -> BoxFuture<'a, Answer<i64>> {
        self.answer(cmd("INCRBY").arg(key).arg(delta).take())
    }

    fn swap<'a>(
        &'a self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Answer<bool>> {
        self.answer(cmd("EVAL").arg(SWAP).arg(1).arg(key).arg(value).arg(seen).take())
    }
}
