//! Runs the script in the body with spin-sdk: `.../key-value`, `.../redis`, `.../sqlite`, `.../postgres` or `.../mqtt`, one
//! command per line. The response has a line per command. Scripts start with `open`; a later `open` replaces the store.

mod mqtt;
mod postgres;
mod sqlite;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::Full;
use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{Request, Response};
use spin_sdk::http_service;
use spin_sdk::key_value::{Error as KeyValueError, Store};
use spin_sdk::redis::{Connection, Error as RedisError, RedisParameter, RedisResult};

#[http_service]
async fn handle(request: Request) -> Result<Response<Full<Bytes>>, spin_sdk::http::Error> {
    let path = request.uri().path();
    let interface = path.rsplit('/').next().unwrap_or_default().to_owned();
    let script = request.into_body().bytes().await?;
    let script = String::from_utf8_lossy(&script);
    let (mut stores, mut connections, mut databases) = (Vec::new(), Vec::new(), Vec::new());
    let (mut brokers, mut servers, mut output) = (Vec::new(), Vec::new(), String::new());
    for line in script.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let result = match &*interface {
            "redis" => shown(run_redis(&mut connections, &words).await),
            "sqlite" => shown(sqlite::run(&mut databases, &words).await),
            "mqtt" => shown(mqtt::run(&mut brokers, &words).await),
            "postgres" => shown(postgres::run(&mut servers, &words).await),
            _ => shown(run_key_value(&mut stores, &words).await),
        };
        output += &result;
        output.push('\n');
    }
    Ok(Response::new(Full::new(output.into())))
}

fn shown<E: std::fmt::Debug>(result: Result<String, E>) -> String {
    result.unwrap_or_else(|error| format!("{error:?}"))
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() < 100 => text.to_owned(),
        _ => format!("{} bytes", bytes.len()),
    }
}

fn value(value: Option<Vec<u8>>) -> String {
    value.map_or_else(|| "none".into(), |value| text(&value))
}

/// The number of successes, and the first error.
fn summary<E: std::fmt::Debug>(results: &[Result<(), E>]) -> String {
    let taken = results.iter().filter(|result| result.is_ok()).count();
    let refused = results.iter().find_map(|result| result.as_ref().err());
    format!("{taken} taken, {refused:?}")
}

async fn run_key_value(stores: &mut Vec<Store>, words: &[&str]) -> Result<String, KeyValueError> {
    let ok = || "ok".to_owned();
    if let ["open", label] = words {
        stores.insert(0, Store::open(label).await?);
        return Ok(ok());
    }
    if let ["close"] = words {
        stores.clear();
        return Ok(ok());
    }
    let Some(store) = stores.first() else { return Ok("nothing is open".into()) };
    Ok(match words {
        ["set", key, value] => store.set(key, value).await.map(|()| ok())?,
        // A value of this length.
        ["fill", key, bytes] => {
            let bytes = vec![b'x'; bytes.parse().unwrap_or(0)];
            store.set(key, bytes).await.map(|()| ok())?
        }
        // `count` values of this length, concurrently.
        ["crowd", count, bytes] => {
            let value = vec![b'x'; bytes.parse().unwrap_or(0)];
            let keys = 0..count.parse().unwrap_or(0);
            summary(&join_all(keys.map(|key: u32| store.set(key.to_string(), &value))).await)
        }
        ["get", key] => value(store.get(key).await?),
        ["delete", key] => store.delete(key).await.map(|()| ok())?,
        ["exists", key] => store.exists(key).await?.to_string(),
        ["keys"] => {
            let mut keys = store.get_keys().await.collect().await?;
            keys.sort_unstable();
            keys.join(",")
        }
        ["count"] => store.get_keys().await.collect().await?.len().to_string(),
        _ => format!("{words:?}?"),
    })
}

async fn run_redis(
    connections: &mut Vec<Connection>,
    words: &[&str],
) -> Result<String, RedisError> {
    let ok = || "ok".to_owned();
    if let ["open", address] = words {
        connections.insert(0, Connection::open(address).await?);
        return Ok(ok());
    }
    let Some(redis) = connections.first() else { return Ok("nothing is open".into()) };
    Ok(match words {
        ["crowd", count, bytes] => {
            let value = vec![b'x'; bytes.parse().unwrap_or(0)];
            let keys = 0..count.parse().unwrap_or(0);
            summary(&join_all(keys.map(|key: u32| redis.set(key.to_string(), &value))).await)
        }
        ["publish", channel, payload] => redis.publish(channel, payload).await.map(|()| ok())?,
        ["get", key] => value(redis.get(key).await?),
        ["set", key, value] => redis.set(key, value).await.map(|()| ok())?,
        ["incr", key] => redis.incr(key).await?.to_string(),
        ["del", keys @ ..] => redis.del(keys).await?.to_string(),
        ["sadd", key, values @ ..] => redis.sadd(key, values).await?.to_string(),
        ["smembers", key] => {
            let mut members = redis.smembers(key).await?;
            members.sort_unstable();
            members.join(",")
        }
        ["srem", key, values @ ..] => redis.srem(key, values).await?.to_string(),
        ["execute", command, arguments @ ..] => {
            let arguments = arguments.iter().map(|argument| parameter(argument));
            let results = redis.execute(command, arguments).await?;
            results.iter().map(result).collect::<Vec<_>>().join(",")
        }
        _ => format!("{words:?}?"),
    })
}

/// `#7` is a number, all else bytes.
fn parameter(word: &str) -> RedisParameter {
    match word.strip_prefix('#').and_then(|number| number.parse().ok()) {
        Some(number) => RedisParameter::Int64(number),
        None => RedisParameter::Binary(word.into()),
    }
}

fn result(result: &RedisResult) -> String {
    match result {
        RedisResult::Nil => "nil".into(),
        RedisResult::Status(status) => format!("+{status}"),
        RedisResult::Int64(number) => format!("#{number}"),
        RedisResult::Binary(bytes) => text(bytes),
    }
}
