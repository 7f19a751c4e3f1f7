//! `--runtime-config-file`: what the operator binds an application to, as Spin writes it. Keys of
//! features this host has not are errors, as are keys Spin does not know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bytesize::ByteSize;
use toml::{Table, Value};

use crate::config::blocked_networks::BlockedNetworks;
use crate::cache::{self, shared};
use crate::storage::key_value::{self, StoreConfig};
use crate::config::manifest::names;
use crate::prediction_log;
use crate::config::variables::{PREFIX, Provider};

/// A runtime config, read.
#[derive(Debug, Default)]
pub struct RuntimeConfig {
    /// Where values of variables come from, the first before the next.
    pub variables: Vec<Provider>,
    pub state_dir: Option<PathBuf>,
    pub log_dir: Option<PathBuf>,
    /// Of an instance of any component.
    pub max_instance_memory: Option<ByteSize>,
    /// What is kept of answers: a key of ours, which Spin does not know.
    pub cache: cache::Settings,
    /// What labels of key-value stores are bound to.
    pub key_value: BTreeMap<String, StoreConfig>,
    /// Connections to Redis of all components together.
    pub redis_connections: Option<usize>,
    /// Where no component may connect to.
    pub blocked_networks: BlockedNetworks,
    /// What is logged of predictions: a key of ours, too.
    pub prediction_log: prediction_log::Settings,
}

/// Keys Spin knows and this host does not, and what they are about.
const NOT_YET: [(&str, &str); 7] = [
    ("blob_store", "blob stores are"),
    ("client_tls", "certificates for outbound requests are"),
    ("llm_compute", "large language models are"),
    ("outbound_http", "settings of outbound HTTP are"),
    ("outbound_mysql", "MySQL is"),
    ("outbound_pg", "PostgreSQL is"),
    ("sqlite_database", "SQLite databases are"),
];

/// Keys this host reads.
const KEYS: [&str; 9] = [
    "variables_provider",
    "key_value_store",
    "outbound_networking",
    "outbound_redis",
    "state_dir",
    "log_dir",
    "max_instance_memory",
    "cache",
    "prediction_log",
];

/// Connections to Redis an operator may ask for: each is an open file.
const MAX_CONNECTIONS: usize = 10_000;

/// Reads `path`. `environment` is that of this process.
pub fn read(path: &Path, environment: &[(String, String)]) -> Result<RuntimeConfig> {
    let text = std::fs::read_to_string(path).context("--runtime-config-file")?;
    parse(&text, environment)
}

/// An error does not repeat what is in the file, which may be secret.
pub(crate) fn parse(text: &str, environment: &[(String, String)]) -> Result<RuntimeConfig> {
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
            "key_value_store" => config.key_value = stores(value)?,
            "outbound_networking" => config.blocked_networks = networks(value).context(key)?,
            "outbound_redis" => config.redis_connections = redis(value)?,
            "state_dir" => config.state_dir = folder(&key, value)?,
            "log_dir" => config.log_dir = folder(&key, value)?,
            "max_instance_memory" => {
                let size = value.try_into();
                let size = size.map_err(|_| anyhow!("{key}: write bytes, or \"128MiB\""))?;
                config.max_instance_memory = Some(size);
            }
            "prediction_log" => {
                config.prediction_log =
                    prediction_log_settings(value).context("[prediction_log]")?;
            }
            "cache" => config.cache = cache_settings(value).context("[cache]")?,
            _ => match NOT_YET.iter().find(|(known, _)| *known == key) {
                Some((_, what)) => bail!("{key}: {what} not supported yet; remove it"),
                None => bail!("{key}: there is no such key; there are {}", KEYS.join(", ")),
            },
        }
    }
    Ok(config)
}

fn cache_settings(value: Value) -> Result<cache::Settings> {
    let Value::Table(table) = value else { bail!("is a table") };
    let mut limits = cache::Limits::default();
    let mut shared = shared::Given::default();
    for (key, value) in table {
        let size = |value: Value| {
            let size = value.try_into::<ByteSize>().map(|size| size.0);
            size.map_err(|_| anyhow!("{key}: write \"64MiB\""))
        };
        match key.as_str() {
            "memory" => limits.memory = size(value)?,
            "answer" => limits.answer = usize::try_from(size(value)?)?,
            _ if shared::KEYS.contains(&key.as_str()) => shared.take(&key, value)?,
            _ => {
                let keys = shared::KEYS.join(", ");
                bail!("{key}: there is no such key; there are memory, answer, {keys}");
            }
        }
    }
    let shared = shared.settle()?;
    if shared.is_some() && limits.memory == 0 {
        bail!("redis: answers come through memory: leave `memory` out, or give it some");
    }
    Ok(cache::Settings { limits, shared })
}

/// The least a log is of use with: some thousand records.
const MIN_LOG_SIZE: u64 = 1 << 20;
/// Each takes about a kilobyte of memory.
const MAX_LOG_QUEUE: i64 = 1 << 24;

fn prediction_log_settings(value: Value) -> Result<prediction_log::Settings> {
    let Value::Table(table) = value else { bail!("is a table") };
    let mut settings = prediction_log::Settings::default();
    for (key, value) in table {
        match key.as_str() {
            "enabled" => {
                let enabled = value.as_bool();
                settings.enabled =
                    enabled.with_context(|| format!("{key}: write true or false"))?;
            }
            "max_age" => {
                let age = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
                let age = age.filter(|age| !age.is_zero());
                settings.retention.max_age =
                    age.with_context(|| format!("{key}: write \"30d\""))?;
            }
            "max_size" => {
                let size = value.try_into::<ByteSize>().map(|size| size.0).ok();
                let size = size.filter(|&size| size >= MIN_LOG_SIZE);
                settings.retention.max_size =
                    size.with_context(|| format!("{key}: write \"1GiB\", or 1MiB and more"))?;
            }
            "queue" => {
                let queue = value.as_integer().filter(|queue| (1..=MAX_LOG_QUEUE).contains(queue));
                let queue = queue.and_then(|queue| u64::try_from(queue).ok());
                settings.queue = queue.with_context(|| {
                    format!("{key}: write how many records may wait, 1 to {MAX_LOG_QUEUE}")
                })?;
            }
            _ => bail!("{key}: there is no such key; there are enabled, max_age, max_size, queue"),
        }
    }
    Ok(settings)
}

/// A folder; an empty text is none.
fn folder(key: &str, value: Value) -> Result<Option<PathBuf>> {
    let Value::String(path) = value else { bail!("{key}: write the path of a folder") };
    Ok((!path.is_empty()).then(|| path.into()))
}

fn stores(value: Value) -> Result<BTreeMap<String, StoreConfig>> {
    let tables: BTreeMap<String, Table> = value.try_into().map_err(|_| {
        anyhow!("key_value_store: write a table for each label, [key_value_store.default]")
    })?;
    let store = |(label, table): (String, Table)| {
        names::check_label(&label)
            .map_err(anyhow::Error::msg)
            .and_then(|()| key_value::parse(table))
            .with_context(|| format!("[key_value_store.{label}]"))
            .map(|store| (label, store))
    };
    tables.into_iter().map(store).collect()
}

fn networks(value: Value) -> Result<BlockedNetworks> {
    let form = "write `block_networks`, a list of networks (\"10.0.0.0/8\") or \"private\"";
    let Value::Table(mut table) = value else { bail!(form) };
    let blocked = table.remove("block_networks").unwrap_or_else(|| Value::Array(Vec::new()));
    if let Some(key) = table.keys().next() {
        match key.as_str() {
            "max_socket_connections" | "max_total_connections" => {
                bail!("{key}: is not supported yet; each component has 256 requests to elsewhere")
            }
            _ => bail!("{key}: there is no such key; {form}"),
        }
    }
    let Value::Array(entries) = blocked else { bail!(form) };
    let entries: Option<Vec<_>> = entries.iter().map(Value::as_str).collect();
    let networks = BlockedNetworks::parse(entries.context(form)?);
    networks.map_err(|problem| anyhow!("block_networks: {problem}"))
}

fn redis(value: Value) -> Result<Option<usize>> {
    let form = "[outbound_redis]: write `max_connections`, how many of all components together";
    let Value::Table(mut table) = value else { bail!(form) };
    let most = table.remove("max_connections");
    let most = most.map(|most| most.as_integer().and_then(|most| usize::try_from(most).ok()));
    match most {
        _ if !table.is_empty() => bail!(form),
        None => Ok(None),
        Some(Some(most)) if (1..=MAX_CONNECTIONS).contains(&most) => Ok(Some(most)),
        Some(_) => bail!("[outbound_redis]: max_connections: write 1 to {MAX_CONNECTIONS}"),
    }
}

fn providers(value: Value, environment: &[(String, String)]) -> Result<Vec<Provider>> {
    let tables: Vec<Table> = value.try_into().map_err(|_| anyhow!("is a list of tables"))?;
    tables.into_iter().map(|table| provider(table, environment)).collect()
}

/// Taken apart by hand: serde's errors would repeat values.
fn provider(mut table: Table, environment: &[(String, String)]) -> Result<Provider> {
    let kind = table.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    let keys: &[&str] = match kind {
        "static" => &["values"],
        "env" => &["prefix", "dotenv_path"],
        "vault" | "open_bao" | "azure_key_vault" => bail!(
            "type = \"{kind}\" is not supported yet; there are \"static\" and \"env\", and \
             `--variable name=@file` takes what an agent has written"
        ),
        _ => bail!(
            "type: write \"static\", with `values`, or \"env\", with `prefix` and `dotenv_path`"
        ),
    };
    if let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) {
        bail!("{key}: there is no such key; \"{kind}\" has {}", keys.join(", "));
    }
    if kind == "static" {
        let Some(Value::Table(values)) = table.remove("values") else {
            bail!("values: write a table, {{ name = \"value\" }}");
        };
        let values =
            values.into_iter().map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        let values: Option<Vec<_>> = values.collect();
        return values.map(Provider::fixed).context("values: every value has to be a string");
    }
    let mut text = |key: &str| match table.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(anyhow!("{key}: write a string")),
    };
    let prefix = text("prefix")?;
    let prefix = prefix.as_deref().unwrap_or(PREFIX);
    let found = Provider::environment(prefix, environment.iter().cloned());
    match text("dotenv_path")? {
        None => Ok(found),
        Some(path) => Ok(found.over(Provider::dotenv(prefix, Path::new(&path))?)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_and_not_repeated(
            key in "(variables_provider|config_provider|state_dir|max_instance_memory|\
                    key_value_store|key_value_store\\.a|outbound_redis|own)",
            secret in "[A-Z]{12}",
            value in "('S'|S|\\{ a = 'S' \\}|\\[\\{ type = 'S' \\}\\]|\\[\\{ type = 'static', values = 'S' \\}\\])",
        ) {
            let text = format!("{key} = {}", value.replace('S', &secret));
            if let Err(error) = parse(&text, &[]) {
                let said = format!("{error:#}");
                prop_assert!(!said.contains(&secret), "{}: {}", text, said);
            }
        }
    }

    #[test]
    fn what_an_operator_writes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let dotenv = dir.path().join("env");
        std::fs::write(&dotenv, "APP_THREE=3\nAPP_TWO=unseen\n").unwrap();
        let text = format!(
            "state_dir = '/state'\nlog_dir = ''\nmax_instance_memory = '1MiB'\n\
             outbound_networking.block_networks = ['private', '1.1.1.1/32']\n\
             outbound_redis.max_connections = 7\n\
             prediction_log = {{ max_age = '7d', max_size = '2MiB', queue = 9 }}\nkey_value_store.fast.type = 'memory'\n\
             [[variables_provider]]\ntype = 'static'\nvalues = {{ one = '1' }}\n\
             [[variables_provider]]\ntype = 'env'\nprefix = 'APP'\ndotenv_path = '{}'\n",
            dotenv.display()
        );
        let environment = [("APP_TWO".to_owned(), "2".to_owned())];
        let config = parse(&text, &environment).unwrap();
        assert_eq!(config.state_dir.as_deref(), Some(Path::new("/state")));
        assert_eq!(config.log_dir, None);
        assert_eq!(config.max_instance_memory, Some(ByteSize::mib(1)));
        assert_eq!(config.redis_connections, Some(7));
        let prediction_log::Settings { enabled, retention, queue } = config.prediction_log;
        assert_eq!((enabled, retention.max_size, queue), (true, 2 << 20, 9));
        assert_eq!(retention.max_age.as_secs(), 7 * 24 * 60 * 60);
        let blocks = |address: &str| config.blocked_networks.blocks_host(address);
        assert!(blocks("10.0.0.1") && blocks("1.1.1.1") && !blocks("1.1.1.2"));
        assert_eq!(config.key_value.keys().collect::<Vec<_>>(), ["fast"]);
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
            ("[key_value_store.default]\ntype = 'redis'", "[key_value_store.default]: url: write"),
            (
                "[key_value_store.'a b']\ntype = 'memory'",
                "[key_value_store.a b]: \"a b\" holds ' '",
            ),
            ("key_value_store = 'hush'", "key_value_store: write a table for each label"),
            ("[outbound_redis]\nmax_connections = 0", "max_connections: write 1 to 10000"),
            (
                "[outbound_redis]\nmax_connection = 7777",
                "[outbound_redis]: write `max_connections`",
            ),
            (
                "[outbound_networking]\nblock_networks = 7777",
                "outbound_networking: write `block_networks`, a list",
            ),
            (
                "[outbound_networking]\nblock_networks = ['localhost']",
                "outbound_networking: block_networks: \"localhost\" is no network",
            ),
            ("[outbound_networking]\nblock = []", "block: there is no such key; write `block_"),
            (
                "[outbound_networking]\nmax_total_connections = 1",
                "max_total_connections: is not supported yet",
            ),
            ("prediction_log = 'hush'", "[prediction_log]: is a table"),
            ("[prediction_log]\nmax_age = 'hush'", "max_age: write \"30d\""),
            ("[prediction_log]\nmax_age = '0s'", "max_age: write \"30d\""),
            ("[prediction_log]\nmax_size = 'hush'", "max_size: write \"1GiB\""),
            ("[prediction_log]\nmax_size = '7777'", "or 1MiB and more"),
            ("[prediction_log]\nqueue = 0", "queue: write how many records"),
            ("[prediction_log]\nenabled = 'hush'", "enabled: write true or false"),
            ("[prediction_log]\nage = '1d'", "age: there is no such key; there are enabled"),
            ("outbound_redis = 'hush'", "[outbound_redis]: write `max_connections`"),
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
            (
                "[[variables_provider]]\ntype = 'static'\nvalue = { a = 'hush' }",
                "value: there is no such key",
            ),
            ("[[variables_provider]]\ntype = 'env'\npath = 'hush'", "path: there is no such key"),
            ("variables_provider = 'hush'", "is a list of tables"),
            ("\na = hush", "line 2"),
        ] {
            let error = format!("{:#}", parse(text, &[]).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hush") && !error.contains("7777"), "{text}: {error}");
        }
    }
}
