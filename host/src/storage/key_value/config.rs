//! `[key_value_store.<label>]` of the runtime config, as Spin writes it.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use bytesize::ByteSize;
use toml::{Table, Value};

use crate::storage::redis::Address;

/// What a store is bound to.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// `type = "spin"`: a SQLite file, of which it takes its label's part.
    Sqlite { path: Option<PathBuf>, max_size: u64 },
    /// `type = "redis"`.
    Redis { address: Address },
    /// `type = "memory"`, which Spin has not: gone when the host ends.
    Memory { max_size: u64 },
}

/// What a file, or what is in memory, may come to, unless it is said.
const MAX_FILE: u64 = 1 << 30;
const MAX_MEMORY: u64 = 64 << 20;
/// No less: SQLite needs some pages.
const SIZE_LEAST: u64 = 64 << 10;

impl Default for StoreConfig {
    fn default() -> Self {
        Self::Sqlite { path: None, max_size: MAX_FILE }
    }
}

/// Reads `[key_value_store.<label>]`. Taken apart by hand: an error does not repeat values, which may
/// be secret.
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
        bail!("{key}: there is no such key; \"{kind}\" has {}", keys.join(", "));
    }
    let max_size = |table: &mut Table, most: u64| match table.remove("max_size") {
        None => Ok(most),
        Some(size) => match size.try_into().map(|ByteSize(size)| size) {
            Ok(size) if size >= SIZE_LEAST => Ok(size),
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
    fn a_store_is_what_its_type_says() {
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
    fn what_is_wrong_is_said_and_nothing_secret() {
        for (text, part) in [
            ("", "type: write \"spin\""),
            ("type = 'hush'", "type: write \"spin\""),
            ("type = 'azure_cosmos'\nkey = 'hush'", "\"azure_cosmos\" is not supported yet"),
            ("type = 'redis'", "url: write \"redis://host:6379\""),
            ("type = 'redis'\nurl = 'http://hush'", "url: write \"redis://host:6379\""),
            ("type = 'redis'\nuri = 'hush'", "uri: there is no such key; \"redis\" has url"),
            ("type = 'spin'\npath = ''", "path: write the path of a file"),
            (
                "type = 'spin'\nurl = 'hush'",
                "url: there is no such key; \"spin\" has path, max_size",
            ),
            ("type = 'memory'\nmax_size = 'hush'", "max_size: write 64 KiB or more"),
            ("type = 'memory'\nmax_size = 1", "max_size: write 64 KiB or more"),
            (
                "type = 'memory'\npath = 'hush'",
                "path: there is no such key; \"memory\" has max_size",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
