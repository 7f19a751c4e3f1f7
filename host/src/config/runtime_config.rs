//! `--runtime-config-file`: the operator's bindings of an application, in Spin's form. Unknown keys
//! and keys of features that this host does not support are errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bytesize::ByteSize;
use toml::{Table, Value};

use crate::cache::admission::AdmissionPolicy;
use crate::cache::{self, redis};
use crate::config::blocked_networks::BlockedNetworks;
use crate::config::manifest::names;
use crate::config::variables::{PREFIX, Provider};
use crate::prediction_log::{self, sinks};
use crate::storage::key_value::{self, StoreConfig};
use crate::storage::sqlite::{self, DatabaseConfig};

/// A parsed runtime config.
#[derive(Debug, Default)]
pub struct RuntimeConfig {
    /// Sources of variables' values, the first one with precedence.
    pub variables: Vec<Provider>,
    /// Folder of the application's state.
    pub state_dir: Option<PathBuf>,
    /// Folder for the output of components.
    pub log_dir: Option<PathBuf>,
    /// Maximum linear memory of an instance of any component.
    pub max_instance_memory: Option<ByteSize>,
    /// Settings of the response cache. Not a key of Spin.
    pub cache: cache::CacheSettings,
    /// The store that each label is bound to.
    pub key_value: BTreeMap<String, StoreConfig>,
    /// The SQLite database that each label is bound to.
    pub sqlite: BTreeMap<String, DatabaseConfig>,
    /// Maximum number of Redis connections of all components together.
    pub redis_connections: Option<usize>,
    /// Networks that no component may connect to.
    pub blocked_networks: BlockedNetworks,
    /// Whether predictions are logged, and their retention. Not a key of Spin.
    pub prediction_log: prediction_log::PredictionLogSettings,
}

/// Keys of Spin that this host does not support, and the start of the message.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("blob_store", "blob stores are"),
    ("client_tls", "certificates for outbound requests are"),
    ("llm_compute", "large language models are"),
    ("outbound_http", "settings of outbound HTTP are"),
    ("outbound_mysql", "MySQL is"),
    ("outbound_pg", "settings of outbound PostgreSQL are"),
];

/// Supported keys.
const KEYS: [&str; 10] = [
    "variables_provider",
    "key_value_store",
    "sqlite_database",
    "outbound_networking",
    "outbound_redis",
    "state_dir",
    "log_dir",
    "max_instance_memory",
    "cache",
    "prediction_log",
];

/// Maximum of `[outbound_redis] max_connections`: each connection is an open file.
const MAX_CONNECTIONS: usize = 10_000;

/// Reads the runtime config at `path`. `environment` is that of this process.
///
/// # Errors
/// Names the key, but does not repeat the file's text, which may be secret.
pub fn read(path: &Path, environment: &[(String, String)]) -> Result<RuntimeConfig> {
    let text = std::fs::read_to_string(path).context("--runtime-config-file")?;
    parse(&text, environment)
}

/// Parses a runtime config.
///
/// # Errors
/// Names the key, but does not repeat the text, which may be secret.
pub(crate) fn parse(text: &str, environment: &[(String, String)]) -> Result<RuntimeConfig> {
    let table: Table = toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        anyhow!("line {}: {}", before.matches('\n').count() + 1, e.message())
    })?;
    let mut config = RuntimeConfig::default();
    for (key, value) in table {
        match key.as_str() {
            // `config_provider` is Spin's former name.
            "variables_provider" | "config_provider" => {
                config.variables =
                    providers(value, environment).with_context(|| format!("[[{key}]]"))?;
            }
            "key_value_store" => config.key_value = labelled(&key, value, key_value::parse)?,
            "sqlite_database" => config.sqlite = labelled(&key, value, sqlite::parse)?,
            "outbound_networking" => config.blocked_networks = networks(value).context(key)?,
            "outbound_redis" => config.redis_connections = redis(value)?,
            "state_dir" => config.state_dir = folder(&key, value)?,
            "log_dir" => config.log_dir = folder(&key, value)?,
            "max_instance_memory" => {
                let size = value.try_into();
                let size = size
                    .map_err(|_| anyhow!("{key}: must be a size, such as \"128MiB\", or bytes"))?;
                config.max_instance_memory = Some(size);
            }
            "prediction_log" => {
                config.prediction_log =
                    prediction_log_settings(value).context("[prediction_log]")?;
            }
            "cache" => config.cache = cache_settings(value).context("[cache]")?,
            _ => match UNSUPPORTED.iter().find(|(known, _)| *known == key) {
                Some((_, what)) => bail!("{key}: {what} not supported yet; remove it"),
                None => bail!("{key}: unknown key; expected one of {}", KEYS.join(", ")),
            },
        }
    }
    Ok(config)
}

fn cache_settings(value: Value) -> Result<cache::CacheSettings> {
    let Value::Table(table) = value else { bail!("must be a table") };
    let mut settings = cache::CacheSettings::default();
    let mut shared = redis::RedisConfig::default();
    for (key, value) in table {
        let size = |value: Value| {
            let size = value.try_into::<ByteSize>().map(|size| size.0);
            size.map_err(|_| anyhow!("{key}: must be a size, such as \"64MiB\""))
        };
        match key.as_str() {
            "memory" => settings.limits.memory = size(value)?,
            "max_entry" => settings.limits.max_entry = usize::try_from(size(value)?)?,
            "admission" => settings.admission = admission(&value)?,
            "status_header" => {
                let shown = value.as_bool();
                settings.status_header =
                    shown.with_context(|| format!("{key}: must be true or false"))?;
            }
            "answer" => bail!("answer is now max_entry"),
            _ if redis::KEYS.contains(&key.as_str()) => shared.take(&key, value)?,
            _ => {
                let keys = redis::KEYS.join(", ");
                bail!(
                    "{key}: unknown key; expected one of memory, max_entry, admission, \
                     status_header, {keys}"
                );
            }
        }
    }
    let shared = shared.settle()?;
    if shared.is_some() && settings.limits.memory == 0 {
        bail!("redis: requires the in-memory cache; remove `memory`, or set it above 0");
    }
    Ok(cache::CacheSettings { redis: shared, ..settings })
}

fn admission(value: &Value) -> Result<AdmissionPolicy> {
    let named = |policy: &AdmissionPolicy| value.as_str() == Some(policy.name());
    let policy = AdmissionPolicy::ALL.into_iter().find(named);
    policy.context("admission: must be \"adaptive\", \"first\" or \"second\"")
}

/// Minimum size of the prediction log, in bytes: some thousand records.
const MIN_LOG_SIZE: u64 = 1 << 20;
/// Maximum number of queued records. Each takes about 1 kB of memory.
const MAX_LOG_QUEUE: i64 = 1 << 24;

fn prediction_log_settings(value: Value) -> Result<prediction_log::PredictionLogSettings> {
    let Value::Table(table) = value else { bail!("must be a table") };
    let mut settings = prediction_log::PredictionLogSettings::default();
    for (key, value) in table {
        match key.as_str() {
            "enabled" => {
                let enabled = value.as_bool();
                settings.enabled =
                    enabled.with_context(|| format!("{key}: must be true or false"))?;
            }
            "max_age" => {
                let age = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
                let age = age.filter(|age| !age.is_zero());
                settings.retention.max_age =
                    age.with_context(|| format!("{key}: must be a duration, such as \"30d\""))?;
            }
            "max_size" => {
                let size = value.try_into::<ByteSize>().map(|size| size.0).ok();
                let size = size.filter(|&size| size >= MIN_LOG_SIZE);
                settings.retention.max_size = size.with_context(|| {
                    format!("{key}: must be a size of at least 1MiB, such as \"1GiB\"")
                })?;
            }
            "queue" => {
                let queue = value.as_integer().filter(|queue| (1..=MAX_LOG_QUEUE).contains(queue));
                let queue = queue.and_then(|queue| u64::try_from(queue).ok());
                settings.queue = queue.with_context(|| {
                    format!("{key}: must be a number of records between 1 and {MAX_LOG_QUEUE}")
                })?;
            }
            "sinks" => settings.sinks = sinks::settings::parse(value)?,
            "on_request" => {
                let on_request = value.as_bool();
                settings.on_request =
                    on_request.with_context(|| format!("{key}: must be true or false"))?;
            }
            _ => bail!(
                "{key}: unknown key; expected one of enabled, max_age, max_size, queue, sinks, on_request"
            ),
        }
    }
    // A sink delivers what is in the file, which a disabled log does not have.
    if let Some(sinks::SinkSettings { name, .. }) = settings.sinks.first()
        && !settings.enabled
    {
        bail!(
            "enabled = false: the sink `{name}` would receive nothing; remove the sinks, or write \
             enabled = true"
        );
    }
    Ok(settings)
}

/// A folder; `None` for an empty path.
fn folder(key: &str, value: Value) -> Result<Option<PathBuf>> {
    let Value::String(path) = value else { bail!("{key}: must be the path of a folder") };
    Ok((!path.is_empty()).then(|| path.into()))
}

/// A table for each label, `[key.<label>]`.
fn labelled<T>(
    key: &str,
    value: Value,
    parse: fn(Table) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let tables: BTreeMap<String, Table> = value
        .try_into()
        .map_err(|_| anyhow!("{key}: must be a table for each label, [{key}.default]"))?;
    let binding = |(label, table): (String, Table)| {
        names::check_label(&label)
            .map_err(anyhow::Error::msg)
            .and_then(|()| parse(table))
            .with_context(|| format!("[{key}.{label}]"))
            .map(|binding| (label, binding))
    };
    tables.into_iter().map(binding).collect()
}

fn networks(value: Value) -> Result<BlockedNetworks> {
    let form = "write `block_networks`, a list of networks (\"10.0.0.0/8\") or \"private\"";
    let Value::Table(mut table) = value else { bail!(form) };
    let blocked = table.remove("block_networks").unwrap_or_else(|| Value::Array(Vec::new()));
    if let Some(key) = table.keys().next() {
        match key.as_str() {
            "max_socket_connections" | "max_total_connections" => {
                bail!(
                    "{key}: not supported yet; remove it (each component may have 256 concurrent \
                     outbound requests)"
                )
            }
            _ => bail!("{key}: unknown key; {form}"),
        }
    }
    let Value::Array(entries) = blocked else { bail!(form) };
    let entries: Option<Vec<_>> = entries.iter().map(Value::as_str).collect();
    let networks = BlockedNetworks::parse(entries.context(form)?);
    networks.map_err(|problem| anyhow!("block_networks: {problem}"))
}

fn redis(value: Value) -> Result<Option<usize>> {
    let form = "[outbound_redis]: write `max_connections`, the maximum of all components together";
    let Value::Table(mut table) = value else { bail!(form) };
    let maximum = table.remove("max_connections");
    let maximum = maximum.map(|value| usize::try_from(value.as_integer()?).ok());
    match maximum {
        _ if !table.is_empty() => bail!(form),
        None => Ok(None),
        Some(Some(maximum)) if (1..=MAX_CONNECTIONS).contains(&maximum) => Ok(Some(maximum)),
        Some(_) => {
            bail!("[outbound_redis]: max_connections: must be between 1 and {MAX_CONNECTIONS}")
        }
    }
}

fn providers(value: Value, environment: &[(String, String)]) -> Result<Vec<Provider>> {
    let tables: Vec<Table> = value.try_into().map_err(|_| anyhow!("must be a list of tables"))?;
    tables.into_iter().map(|table| provider(table, environment)).collect()
}

/// Reads one `[[variables_provider]]`, by hand: serde's errors would repeat values.
fn provider(mut table: Table, environment: &[(String, String)]) -> Result<Provider> {
    let kind = table.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    let keys: &[&str] = match kind {
        "static" => &["values"],
        "env" => &["prefix", "dotenv_path"],
        "vault" | "open_bao" | "azure_key_vault" => bail!(
            "type = \"{kind}\" is not supported yet; use \"static\", \"env\", or \
             `--variable name=@file` with a file that an agent writes"
        ),
        _ => bail!(
            "type: must be \"static\", with `values`, or \"env\", with `prefix` and `dotenv_path`"
        ),
    };
    if let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) {
        bail!("{key}: unknown key; \"{kind}\" has {}", keys.join(", "));
    }
    if kind == "static" {
        let Some(Value::Table(values)) = table.remove("values") else {
            bail!("values: must be a table, {{ name = \"value\" }}");
        };
        let values =
            values.into_iter().map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        let values: Option<Vec<_>> = values.collect();
        return values.map(Provider::fixed).context("values: every value must be a string");
    }
    let mut text = |key: &str| match table.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(anyhow!("{key}: must be a string")),
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
        fn any_text_is_parsed_or_rejected_and_not_repeated(
            key in "(variables_provider|config_provider|state_dir|max_instance_memory|\
                    key_value_store|key_value_store\\.a|outbound_redis|own)",
            secret in "[A-Z]{12}",
            value in "('S'|S|\\{ a = 'S' \\}|\\[\\{ type = 'S' \\}\\]|\\[\\{ type = 'static', values = 'S' \\}\\])",
        ) {
            let text = format!("{key} = {}", value.replace('S', &secret));
            if let Err(error) = parse(&text, &[]) {
                let message = format!("{error:#}");
                prop_assert!(!message.contains(&secret), "{}: {}", text, message);
            }
        }
    }

    #[test]
    fn every_key_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let dotenv = dir.path().join("env");
        std::fs::write(&dotenv, "APP_THREE=3\nAPP_TWO=unseen\n").unwrap();
        let text = format!(
            "state_dir = '/state'\nlog_dir = ''\nmax_instance_memory = '1MiB'\n\
             outbound_networking.block_networks = ['private', '1.1.1.1/32']\n\
             outbound_redis.max_connections = 7\n\
             cache = {{ memory = '3MiB', max_entry = '4KiB', admission = 'second', status_header = false }}\n\
             prediction_log = {{ max_age = '7d', max_size = '2MiB', queue = 9, on_request = false, sinks = [{{ type = 'stdout' }}] }}\nkey_value_store.fast.type = 'memory'\n\
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
        let cache::CacheSettings { limits, admission, status_header, redis } = config.cache;
        assert_eq!((limits.memory, limits.max_entry), (3 << 20, 4 << 10));
        assert!(!status_header && redis.is_none());
        assert_eq!(admission, AdmissionPolicy::Second);
        let prediction_log::PredictionLogSettings {
            enabled,
            retention,
            queue,
            mode: _,
            sinks,
            on_request,
            runs: _,
        } = config.prediction_log;
        assert_eq!(sinks[0].name, "stdout");
        assert_eq!((enabled, retention.max_size, queue), (true, 2 << 20, 9));
        assert!(!on_request);
        assert_eq!(retention.max_age.as_secs(), 7 * 24 * 60 * 60);
        let blocks = |address: &str| config.blocked_networks.blocks_host(address);
        assert!(blocks("10.0.0.1") && blocks("1.1.1.1") && !blocks("1.1.1.2"));
        assert_eq!(config.key_value.keys().collect::<Vec<_>>(), ["fast"]);
        let value = |at: usize, name: &str| config.variables[at].get(name).map(String::as_str);
        assert_eq!(value(0, "one"), Some("1"));
        assert_eq!((value(1, "two"), value(1, "three")), (Some("2"), Some("3")));
    }

    #[test]
    fn invalid_setting_is_rejected_with_its_key_and_without_its_value() {
        for (text, part) in [
            ("state_dri = 'x'", "state_dri: unknown key; expected one of variables_provider"),
            ("state_dir = 7777", "state_dir: must be the path of a folder"),
            ("max_instance_memory = 'hush'", "max_instance_memory: must be a size"),
            ("[cache]\nanswer = '7777'", "[cache]: answer is now max_entry"),
            ("[cache]\nstatus_header = 'hush'", "[cache]: status_header: must be true or false"),
            (
                "[cache]\nadmission = 'hush'",
                "[cache]: admission: must be \"adaptive\", \"first\" or \"second\"",
            ),
            ("[cache]\nentry = 7777", "entry: unknown key; expected one of memory, max_entry, "),
            ("[key_value_store.default]\ntype = 'redis'", "[key_value_store.default]: url: write"),
            (
                "[key_value_store.'a b']\ntype = 'memory'",
                "[key_value_store.a b]: \"a b\" contains ' '",
            ),
            ("key_value_store = 'hush'", "key_value_store: must be a table for each label"),
            (
                "[outbound_redis]\nmax_connections = 0",
                "max_connections: must be between 1 and 10000",
            ),
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
                "outbound_networking: block_networks: \"localhost\" is not a network",
            ),
            ("[outbound_networking]\nblock = []", "block: unknown key; write `block_"),
            (
                "[outbound_networking]\nmax_total_connections = 1",
                "max_total_connections: not supported yet",
            ),
            ("prediction_log = 'hush'", "[prediction_log]: must be a table"),
            ("[prediction_log]\nmax_age = 'hush'", "max_age: must be a duration"),
            ("[prediction_log]\nmax_age = '0s'", "max_age: must be a duration"),
            ("[prediction_log]\nmax_size = 'hush'", "max_size: must be a size"),
            ("[prediction_log]\nmax_size = '7777'", "of at least 1MiB"),
            ("[prediction_log]\nqueue = 0", "queue: must be a number of records"),
            ("[prediction_log]\nenabled = 'hush'", "enabled: must be true or false"),
            (
                "[[prediction_log.sinks]]\ntype = 'redis'\nurl = 'hush'",
                "[prediction_log]: sink [0]: url",
            ),
            ("[prediction_log]\nage = '1d'", "age: unknown key; expected one of enabled"),
            (
                "[prediction_log]\nenabled = false\n[[prediction_log.sinks]]\ntype = 'stdout'",
                "[prediction_log]: enabled = false: the sink `stdout` would receive nothing; remove",
            ),
            ("outbound_redis = 'hush'", "[outbound_redis]: write `max_connections`"),
            (
                "[sqlite_database.default]\ntype = 'libsql'\ntoken = 'hush'",
                "[sqlite_database.default]: type = \"libsql\" is not supported",
            ),
            ("sqlite_database = 'hush'", "sqlite_database: must be a table for each label"),
            (
                "[[variables_provider]]\ntype = 'vault'\ntoken = 'hush'",
                "\"vault\" is not supported yet",
            ),
            ("[[variables_provider]]\ntype = 'hush'", "type: must be \"static\""),
            ("[[variables_provider]]\ntype = 'static'\nvalues = { a = 7777 }", "must be a string"),
            (
                "[[variables_provider]]\ntype = 'static'\nvalue = { a = 'hush' }",
                "value: unknown key",
            ),
            ("[[variables_provider]]\ntype = 'env'\npath = 'hush'", "path: unknown key"),
            ("variables_provider = 'hush'", "must be a list of tables"),
            ("\na = hush", "line 2"),
        ] {
            let error = format!("{:#}", parse(text, &[]).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hush") && !error.contains("7777"), "{text}: {error}");
        }
    }
}
