//! `[key_value_store.<label>]` of the runtime config, in Spin's format.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use bytesize::ByteSize;
use toml::{Table, Value};

use crate::storage::redis::Address;

/// The binding of a store.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// `type = "spin"`: the entries of the label in a SQLite file.
    Sqlite { path: Option<PathBuf>, max_size: u64 },
    /// `type = "redis"`.
    Redis { address: Address },
    /// `type = "memory"`, which Spin does not have: lost when the host stops.
    Memory { max_size: u64 },
}

/// Default maximum size of a file, in bytes.
const MAX_FILE: u64 = 1 << 30;
/// Default maximum size of a store in memory, in bytes.
const MAX_MEMORY: u64 = 64 << 20;
/// Minimum of `max_size`, in bytes: SQLite needs some pages.
const MIN_SIZE: u64 = 64 << 10;

impl Default for StoreConfig {
    fn default() -> Self {
        Self::Sqlite { path: None, max_size: MAX_FILE }
    }
}

/// Parses `[key_value_store.<label>]`. By hand, so that errors do not repeat values, which may be
/// secret.
///
/// # Errors
/// A key is unknown, missing or has an invalid value.
pub fn parse(mut table: Table) -> Result<StoreConfig> {
    let kind = table.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    let keys: &[&str] = match kind {
        "spin" => &["path", "max_size"],
        "redis" => &["url"],
        "memory" => &["max_size"],
        "azure_cosmos" | "aws_dynamo" => bail!(
            "type = \"{kind}\" is not supported yet; there are \"spin\", \"redis\" and \"memory\""
        ),
        _ => bail!("type: write \"spin\", \"redis\" with `url`, or \"memory\""),
    };
    if let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) {
        bail!("{key}: unknown key; \"{kind}\" has {}", keys.join(", "));
    }
    let max_size = |table: &mut Table, default: u64| match table.remove("max_size") {
        None => Ok(default),
        Some(size) => match size.try_into().map(|ByteSize(size)| size) {
            Ok(size) if size >= MIN_SIZE => Ok(size),
            _ => Err(anyhow!("max_size: write 64 KiB or more, in bytes or as \"64MiB\"")),
        },
    };
    Ok(match kind {
        "spin" => {
            let path = match table.remove("path") {
                None => None,
                Some(Value::String(path)) if !path.is_empty() => Some(path.into()),
                Some(_) => bail!("path: write the path of a file"),
            };
            StoreConfig::Sqlite { path, max_size: max_size(&mut table, MAX_FILE)? }
        }
        "redis" => {
            let url = table.remove("url");
            let url = url.as_ref().and_then(Value::as_str).unwrap_or_default();
            let address = Address::parse(url).map_err(|problem| anyhow!("url: {problem}"))?;
            StoreConfig::Redis { address }
        }
        _ => StoreConfig::Memory { max_size: max_size(&mut table, MAX_MEMORY)? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StoreConfig, String> {
        parse(toml::from_str(text).unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn each_type_is_parsed() {
        let Ok(StoreConfig::Sqlite { path: None, max_size: MAX_FILE }) = read("type = 'spin'")
        else {
            panic!()
        };
        let Ok(StoreConfig::Sqlite { path: Some(path), max_size: 1_048_576 }) =
            read("type = 'spin'\npath = 'a/b.db'\nmax_size = '1MiB'")
        else {
            panic!()
        };
        assert_eq!(path.to_str(), Some("a/b.db"));
        let Ok(StoreConfig::Redis { address }) = read("type = 'redis'\nurl = 'rediss://h:1/2'")
        else {
            panic!()
        };
        assert_eq!((address.host.as_str(), address.port), ("h", 1));
        let Ok(StoreConfig::Memory { max_size: 65_536 }) =
            read("type = 'memory'\nmax_size = 65536")
        else {
            panic!()
        };
    }

    #[test]
    fn errors_name_the_problem_and_repeat_no_value() {
        for (text, part) in [
            ("", "type: write \"spin\""),
            ("type = 'hush'", "type: write \"spin\""),
            ("type = 'azure_cosmos'\nkey = 'hush'", "\"azure_cosmos\" is not supported yet"),
            ("type = 'redis'", "url: write \"redis://host:6379\""),
            ("type = 'redis'\nurl = 'http://hush'", "url: write \"redis://host:6379\""),
            ("type = 'redis'\nuri = 'hush'", "uri: unknown key; \"redis\" has url"),
            ("type = 'spin'\npath = ''", "path: write the path of a file"),
            ("type = 'spin'\nurl = 'hush'", "url: unknown key; \"spin\" has path, max_size"),
            ("type = 'memory'\nmax_size = 'hush'", "max_size: write 64 KiB or more"),
            ("type = 'memory'\nmax_size = 1", "max_size: write 64 KiB or more"),
            ("type = 'memory'\npath = 'hush'", "path: unknown key; \"memory\" has max_size"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
