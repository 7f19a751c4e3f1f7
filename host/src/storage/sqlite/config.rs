//! `[sqlite_database.<label>]` of the runtime config, in Spin's format.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use bytesize::ByteSize;
use toml::{Table, Value};

/// The binding of a label to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The file. A relative path is relative to the working directory, as in Spin.
    pub path: PathBuf,
    /// Maximum size of the file, in bytes.
    pub max_size: u64,
}

/// Default maximum size of a file, in bytes.
pub const MAX_FILE: u64 = 1 << 30;
/// Minimum of `max_size`, in bytes: SQLite needs some pages.
pub const MIN_SIZE: u64 = 64 << 10;

/// Parses `[sqlite_database.<label>]`. By hand, so that errors do not repeat values, which may be secret.
///
/// # Errors
/// A key is unknown, missing or has an invalid value.
pub fn parse(mut table: Table) -> Result<DatabaseConfig> {
    let kind = table.remove("type");
    match kind.as_ref().and_then(Value::as_str).unwrap_or_default() {
        "spin" => {}
        "libsql" => bail!(
            "type = \"libsql\" is not supported: a database is a file of this host; write type = \
             \"spin\" with `path`"
        ),
        _ => bail!("type: write \"spin\" with `path`"),
    }
    let path = match table.remove("path") {
        Some(Value::String(path)) if !path.is_empty() => path.into(),
        Some(_) => bail!("path: write the path of a file"),
        None => bail!(
            "path: write the path of a file; databases in memory, one for each connection, are not \
             supported"
        ),
    };
    let max_size = match table.remove("max_size") {
        None => MAX_FILE,
        Some(size) => match size.try_into().map(|ByteSize(size)| size) {
            Ok(size) if size >= MIN_SIZE => size,
            _ => return Err(anyhow!("max_size: write 64 KiB or more, in bytes or as \"64MiB\"")),
        },
    };
    match table.keys().next() {
        None => Ok(DatabaseConfig { path, max_size }),
        Some(key) => bail!("{key}: unknown key; \"spin\" has path, max_size"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DatabaseConfig, String> {
        parse(toml::from_str(text).unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn path_and_size_are_parsed() {
        let parsed = read("type = 'spin'\npath = 'a/b.db'").unwrap();
        assert_eq!(parsed, DatabaseConfig { path: "a/b.db".into(), max_size: 1 << 30 });
        let parsed = read("type = 'spin'\npath = '/b.db'\nmax_size = '1MiB'").unwrap();
        assert_eq!(parsed, DatabaseConfig { path: "/b.db".into(), max_size: 1 << 20 });
    }

    #[test]
    fn errors_name_the_problem_and_repeat_no_value() {
        for (text, part) in [
            ("", "type: write \"spin\" with `path`"),
            ("type = 'hush'", "type: write \"spin\""),
            ("type = 'libsql'\nurl = 'https://hush'\ntoken = 'hush'", "type = \"libsql\" is not"),
            ("type = 'spin'", "path: write the path of a file; databases in memory"),
            ("type = 'spin'\npath = ''", "path: write the path of a file"),
            ("type = 'spin'\npath = 'hush'\nmax_size = 1", "max_size: write 64 KiB or more"),
            ("type = 'spin'\npath = 'hush'\nmax_size = 'hush'", "max_size: write 64 KiB"),
            ("type = 'spin'\npath = 'hush'\nurl = 'hush'", "url: unknown key; \"spin\" has path"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
