//! `--runtime-config-file`: what the operator binds an application to, as Spin writes it. Keys of
//! features this host has not are errors, as are keys Spin does not know.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytesize::ByteSize;
use indexmap::IndexMap;
use serde::Deserialize;
use toml::Table;

use crate::variables::{PREFIX, Provider};

/// A runtime config, read.
#[derive(Debug, Default)]
pub struct RuntimeConfig {
    /// Where values of variables come from, the first before the next.
    pub variables: Vec<Provider>,
    pub state_dir: Option<PathBuf>,
    pub log_dir: Option<PathBuf>,
    /// Of an instance of any component.
    pub max_instance_memory: Option<ByteSize>,
}

/// Keys Spin knows and this host does not, and what they are about.
const NOT_YET: [(&str, &str); 9] = [
    ("blob_store", "blob stores are"),
    ("client_tls", "certificates for outbound requests are"),
    ("key_value_store", "key-value stores are"),
    ("llm_compute", "large language models are"),
    ("outbound_http", "settings of outbound HTTP are"),
    ("outbound_mysql", "MySQL is"),
    ("outbound_pg", "PostgreSQL is"),
    ("outbound_redis", "outbound Redis is"),
    ("sqlite_database", "SQLite databases are"),
];

/// Keys this host reads.
const KEYS: [&str; 4] = ["variables_provider", "state_dir", "log_dir", "max_instance_memory"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StaticProvider {
    values: IndexMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentProvider {
    prefix: Option<String>,
    dotenv_path: Option<PathBuf>,
}

/// Reads `path`. `environment` is that of this process.
pub fn read(path: &Path, environment: &[(String, String)]) -> Result<RuntimeConfig> {
    let text = std::fs::read_to_string(path).context("--runtime-config-file")?;
    parse(&text, environment)
}

/// An error does not repeat what is in the file, which may be secret.
fn parse(text: &str, environment: &[(String, String)]) -> Result<RuntimeConfig> {
    let table: Table = toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        anyhow!("line {}: {}", before.matches('\n').count() + 1, e.message())
    })?;
    let mut config = RuntimeConfig::default();
    for (key, value) in table {
        match key.as_str() {
            // Spin's name for it before.
            "variables_provider" | "config_provider" => {
                config.variables =
                    providers(value, environment).with_context(|| format!("[[{key}]]"))?;
            }
            "state_dir" => config.state_dir = folder(&key, value)?,
            "log_dir" => config.log_dir = folder(&key, value)?,
            "max_instance_memory" => {
                let size = value.try_into();
                let size = size.map_err(|_| anyhow!("{key}: write bytes, or \"128MiB\""))?;
                config.max_instance_memory = Some(size);
            }
            _ => match NOT_YET.iter().find(|(known, _)| *known == key) {
                Some((_, what)) => bail!("{key}: {what} not supported yet; remove it"),
                None => bail!("{key}: there is no such key; there are {}", KEYS.join(", ")),
            },
        }
    }
    Ok(config)
}

/// A folder; an empty text is none.
fn folder(key: &str, value: toml::Value) -> Result<Option<PathBuf>> {
    let toml::Value::String(path) = value else { bail!("{key}: write the path of a folder") };
    Ok((!path.is_empty()).then(|| path.into()))
}

fn providers(value: toml::Value, environment: &[(String, String)]) -> Result<Vec<Provider>> {
    let tables: Vec<Table> = value.try_into().map_err(|_| anyhow!("is a list of tables"))?;
    tables.into_iter().map(|table| provider(table, environment)).collect()
}

fn provider(mut table: Table, environment: &[(String, String)]) -> Result<Provider> {
    let kind = table.remove("type");
    let kind = kind.as_ref().and_then(toml::Value::as_str).unwrap_or_default();
    match kind {
        "static" => {
            ensure!(
                table
                    .values()
                    .flat_map(toml::Value::as_table)
                    .flat_map(Table::values)
                    .all(toml::Value::is_str),
                "values: every value has to be a string"
            );
            let StaticProvider { values } = read_provider(table)?;
            Ok(Provider::fixed(values))
        }
        "env" => {
            let EnvironmentProvider { prefix, dotenv_path } = read_provider(table)?;
            let prefix = prefix.as_deref().unwrap_or(PREFIX);
            let found = Provider::environment(prefix, environment.iter().cloned());
            match dotenv_path {
                None => Ok(found),
                Some(path) => Ok(found.over(Provider::dotenv(prefix, &path)?)),
            }
        }
        "vault" | "open_bao" | "azure_key_vault" => bail!(
            "type = \"{kind}\" is not supported yet; there are \"static\" and \"env\", and \
             `--variable name=@file` takes what an agent has written"
        ),
        _ => bail!(
            "type: write \"static\", with `values`, or \"env\", with `prefix` and `dotenv_path`"
        ),
    }
}

fn read_provider<T: for<'de> Deserialize<'de>>(table: Table) -> Result<T> {
    table.try_into().map_err(|e: toml::de::Error| anyhow!("{}", e.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let dotenv = dir.path().join("env");
        std::fs::write(&dotenv, "APP_THREE=3\nAPP_TWO=unseen\n").unwrap();
        let text = format!(
            "state_dir = '/state'\nlog_dir = ''\nmax_instance_memory = '1MiB'\n\
             [[variables_provider]]\ntype = 'static'\nvalues = {{ one = '1' }}\n\
             [[variables_provider]]\ntype = 'env'\nprefix = 'APP'\ndotenv_path = '{}'\n",
            dotenv.display()
        );
        let environment = [("APP_TWO".to_owned(), "2".to_owned())];
        let config = parse(&text, &environment).unwrap();
        assert_eq!(config.state_dir.as_deref(), Some(Path::new("/state")));
        assert_eq!(config.log_dir, None);
        assert_eq!(config.max_instance_memory, Some(ByteSize::mib(1)));
        let value = |at: usize, name: &str| config.variables[at].get(name).map(String::as_str);
        assert_eq!(value(0, "one"), Some("1"));
        assert_eq!((value(1, "two"), value(1, "three")), (Some("2"), Some("3")));
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_key_and_no_secret() {
        for (text, part) in [
            ("state_dri = 'x'", "state_dri: there is no such key; there are variables_provider"),
            ("state_dir = 7777", "state_dir: write the path of a folder"),
            ("max_instance_memory = 'hush'", "max_instance_memory: write bytes"),
            ("[key_value_store.default]\ntype = 'redis'", "key-value stores are not supported yet"),
            ("[sqlite_database.default]\ntype = 'spin'", "SQLite databases are not supported yet"),
            (
                "[[variables_provider]]\ntype = 'vault'\ntoken = 'hush'",
                "\"vault\" is not supported yet",
            ),
            ("[[variables_provider]]\ntype = 'hush'", "type: write \"static\""),
            (
                "[[variables_provider]]\ntype = 'static'\nvalues = { a = 7777 }",
                "has to be a string",
            ),
            ("[[variables_provider]]\ntype = 'static'\nvalue = { a = 'hush' }", "`value`"),
            ("[[variables_provider]]\ntype = 'env'\npath = 'hush'", "unknown field `path`"),
            ("variables_provider = 'hush'", "is a list of tables"),
            ("\na = hush", "line 2"),
        ] {
            let error = format!("{:#}", parse(text, &[]).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hush") && !error.contains("7777"), "{text}: {error}");
        }
    }
}
