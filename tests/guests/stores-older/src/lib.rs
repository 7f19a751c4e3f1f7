//! Runs the script in the body with the synchronous interfaces, behind the fast door: `.../key-value`, `.../redis`,
//! `.../mqtt`, `.../postgres` and `.../sqlite` of `fermyon:spin`, `.../postgres-3` of `spin:postgres`, `.../sqlite-3` of
//! `spin:sqlite`, `.../wasi` of `wasi:keyvalue`, one command per line. The response has a line per command. Scripts start with `open`; a later `open` replaces the store.

mod mqtt;
mod postgres;
mod sqlite;

mod bindings {
    #![expect(unsafe_code, reason = "generated")]
    #![expect(clippy::mem_forget, reason = "generated")]

    wit_bindgen::generate!({
        path: [
            "../../../wit/spinfer-serve",
            "../../../wit/fermyon-spin",
            "../../../wit/spin-postgres-3",
            "../../../wit/wasi-keyvalue",
            "wit",
        ],
        inline: "
            package spinfer:stores;
            world stores {
                import fermyon:spin/key-value@2.0.0;
                import fermyon:spin/mqtt@2.0.0;
                import fermyon:spin/postgres@2.0.0;
                import fermyon:spin/redis@2.0.0;
                import fermyon:spin/sqlite@2.0.0;
                import spin:postgres/postgres@3.0.0;
                import spin:sqlite/sqlite@3.0.0;
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                export spinfer:serve/buffered-handler@0.1.0;
            }
        ",
        world: "spinfer:stores/stores",
        generate_all,
    });

    export!(Stores);

    pub(crate) struct Stores;
}

use bindings::exports::spinfer::serve::buffered_handler as fast;
use bindings::fermyon::spin::{key_value, redis};
use bindings::wasi::keyvalue::{atomics, batch, store};

impl fast::Guest for bindings::Stores {
    fn needed_headers() -> Vec<String> {
        Vec::new()
    }

    fn handle(request: fast::Request) -> fast::Response {
        let script = String::from_utf8_lossy(&request.body);
        let lines = script.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let interface = request.path_with_query.rsplit('/').next();
        let lines: Vec<String> = match interface {
            Some("redis") => {
                let mut open = Vec::new();
                lines.map(|words| shown(run_redis(&mut open, &words))).collect()
            }
            Some("mqtt") => {
                let mut open = Vec::new();
                lines.map(|words| shown(mqtt::run(&mut open, &words))).collect()
            }
            Some("postgres") => {
                let mut open = Vec::new();
                lines.map(|words| shown(postgres::run_fermyon(&mut open, &words))).collect()
            }
            Some("postgres-3") => {
                let mut open = Vec::new();
                lines.map(|words| shown(postgres::run_spin(&mut open, &words))).collect()
            }
            Some("sqlite") => {
                let mut open = Vec::new();
                lines.map(|words| shown(sqlite::run_fermyon(&mut open, &words))).collect()
            }
            Some("sqlite-3") => {
                let mut open = Vec::new();
                lines.map(|words| shown(sqlite::run_spin(&mut open, &words))).collect()
            }
            Some("wasi") => {
                let mut open = WasiStores::default();
                lines.map(|words| shown(open.run(&words))).collect()
            }
            _ => {
                let mut open = Vec::new();
                lines.map(|words| shown(run_key_value(&mut open, &words))).collect()
            }
        };
        let body = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        fast::Response { status: 200, headers: Vec::new(), body: body.into_bytes() }
    }
}

fn shown<E: std::fmt::Debug>(result: Result<String, E>) -> String {
    result.unwrap_or_else(|error| format!("{error:?}"))
}

fn ok() -> String {
    "ok".into()
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

fn run_key_value(
    open: &mut Vec<key_value::Store>,
    words: &[&str],
) -> Result<String, key_value::Error> {
    if let ["open", label] = words {
        open.insert(0, key_value::Store::open(label)?);
        return Ok(ok());
    }
    if let ["close"] = words {
        open.clear();
        return Ok(ok());
    }
    let Some(store) = open.first() else { return Ok("nothing is open".into()) };
    Ok(match words {
        ["set", key, value] => store.set(key, value.as_bytes()).map(|()| ok())?,
        ["fill", key, bytes] => {
            store.set(key, &vec![b'x'; bytes.parse().unwrap_or(0)]).map(|()| ok())?
        }
        ["get", key] => value(store.get(key)?),
        ["delete", key] => store.delete(key).map(|()| ok())?,
        ["exists", key] => store.exists(key)?.to_string(),
        ["keys"] => store.get_keys()?.join(","),
        ["count"] => store.get_keys()?.len().to_string(),
        _ => format!("{words:?}?"),
    })
}

/// Open buckets, and a CAS handle.
#[derive(Default)]
struct WasiStores {
    buckets: Vec<store::Bucket>,
    cas: Option<atomics::Cas>,
}

impl WasiStores {
    fn run(&mut self, words: &[&str]) -> Result<String, store::Error> {
        match words {
            ["open", label] => {
                self.buckets.insert(0, store::open(label)?);
                return Ok(ok());
            }
            ["close"] => {
                self.buckets.clear();
                return Ok(ok());
            }
            _ => {}
        }
        let Some(bucket) = self.buckets.first() else { return Ok("nothing is open".into()) };
        let owned = |words: &[&str]| words.iter().map(|word| (*word).into()).collect::<Vec<_>>();
        Ok(match words {
            ["set", key, value] => bucket.set(key, value.as_bytes()).map(|()| ok())?,
            ["fill", key, bytes] => {
                bucket.set(key, &vec![b'x'; bytes.parse().unwrap_or(0)]).map(|()| ok())?
            }
            ["get", key] => value(bucket.get(key)?),
            ["delete", key] => bucket.delete(key).map(|()| ok())?,
            ["exists", key] => bucket.exists(key)?.to_string(),
            // The number of keys and pages, from the start or from a cursor.
            ["count"] | ["count-from", _] => {
                let first = words.get(1).map(|cursor| (*cursor).to_owned());
                let (mut count, mut pages, mut cursor) = (0, 0, first);
                loop {
                    let page = bucket.list_keys(cursor.as_deref())?;
                    count += page.keys.len();
                    pages += 1;
                    cursor = page.cursor;
                    if cursor.is_none() {
                        break format!("{count} keys, {pages} pages");
                    }
                }
            }
            ["keys"] => {
                let mut keys = bucket.list_keys(None)?.keys;
                keys.sort_unstable();
                keys.join(",")
            }
            ["get-many", keys @ ..] => {
                let entries = batch::get_many(bucket, &owned(keys))?;
                let entry = |(key, found): (String, _)| format!("{key}={}", value(found));
                entries.into_iter().map(entry).collect::<Vec<_>>().join(",")
            }
            ["set-many", entries @ ..] => {
                let entry = |entry: &&str| {
                    let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
                    (key.to_owned(), value.as_bytes().to_vec())
                };
                let entries: Vec<_> = entries.iter().map(entry).collect();
                batch::set_many(bucket, &entries).map(|()| ok())?
            }
            ["delete-many", keys @ ..] => {
                batch::delete_many(bucket, &owned(keys)).map(|()| ok())?
            }
            // A batch of `count` keys.
            ["many", operation, count] => {
                let keys: Vec<_> =
                    (0..count.parse().unwrap_or(0)).map(|key: u32| key.to_string()).collect();
                match *operation {
                    "get" => batch::get_many(bucket, &keys)?.len().to_string(),
                    "delete" => batch::delete_many(bucket, &keys).map(|()| ok())?,
                    _ => {
                        let entries: Vec<_> = keys.into_iter().map(|key| (key, vec![])).collect();
                        batch::set_many(bucket, &entries).map(|()| ok())?
                    }
                }
            }
            ["increment", key, delta] => {
                atomics::increment(bucket, key, delta.parse().unwrap_or(0))?.to_string()
            }
            ["cas", key] => {
                self.cas = Some(atomics::Cas::new(bucket, key)?);
                ok()
            }
            // `count` live handles, each of which holds the value.
            ["hold", key, count] => {
                let count = count.parse().unwrap_or(0);
                let handles: Result<Vec<_>, _> =
                    (0..count).map(|_| atomics::Cas::new(bucket, key)).collect();
                handles?.len().to_string()
            }
            ["current"] => match &self.cas {
                Some(cas) => value(cas.current()?),
                None => "no handle".into(),
            },
            ["swap", value] => match self.cas.take() {
                None => "no handle".into(),
                Some(cas) => match atomics::swap(cas, value.as_bytes()) {
                    Ok(()) => ok(),
                    Err(atomics::CasError::CasFailed(cas)) => {
                        self.cas = Some(cas);
                        "another value".into()
                    }
                    Err(atomics::CasError::StoreError(error)) => return Err(error),
                },
            },
            _ => format!("{words:?}?"),
        })
    }
}

fn run_redis(open: &mut Vec<redis::Connection>, words: &[&str]) -> Result<String, redis::Error> {
    if let ["open", address] = words {
        open.insert(0, redis::Connection::open(address)?);
        return Ok(ok());
    }
    let Some(redis) = open.first() else { return Ok("nothing is open".into()) };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).into()).collect::<Vec<_>>();
    Ok(match words {
        ["publish", channel, payload] => {
            redis.publish(channel, payload.as_bytes()).map(|()| ok())?
        }
        ["get", key] => value(redis.get(key)?),
        ["set", key, value] => redis.set(key, value.as_bytes()).map(|()| ok())?,
        ["incr", key] => redis.incr(key)?.to_string(),
        ["del", keys @ ..] => redis.del(&owned(keys))?.to_string(),
        ["sadd", key, values @ ..] => redis.sadd(key, &owned(values))?.to_string(),
        ["smembers", key] => {
            let mut members = redis.smembers(key)?;
            members.sort_unstable();
            members.join(",")
        }
        ["srem", key, values @ ..] => redis.srem(key, &owned(values))?.to_string(),
        ["execute", command, arguments @ ..] => {
            let arguments: Vec<_> = arguments.iter().map(|word| parameter(word)).collect();
            let results = redis.execute(command, &arguments)?;
            results.iter().map(result).collect::<Vec<_>>().join(",")
        }
        _ => format!("{words:?}?"),
    })
}

/// `#7` is a number, all else bytes.
fn parameter(word: &str) -> redis::RedisParameter {
    match word.strip_prefix('#').and_then(|number| number.parse().ok()) {
        Some(number) => redis::RedisParameter::Int64(number),
        None => redis::RedisParameter::Binary(word.into()),
    }
}

fn result(result: &redis::RedisResult) -> String {
    match result {
        redis::RedisResult::Nil => "nil".into(),
        redis::RedisResult::Status(status) => format!("+{status}"),
        redis::RedisResult::Int64(number) => format!("#{number}"),
        redis::RedisResult::Binary(bytes) => text(bytes),
    }
}
