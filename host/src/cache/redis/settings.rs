//! The keys of `[cache]` in the runtime config that concern Redis.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use toml::Value;

use crate::storage::redis::Address;

/// The Redis in which nodes share cached responses.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    pub topology: RedisTopology,
    /// Prefix of all Redis keys.
    pub prefix: String,
    /// Maximum time for which a request waits for Redis.
    pub timeout: Duration,
}

/// The servers, and how they are found.
#[derive(Clone, Debug)]
pub enum RedisTopology {
    One(Address),
    /// Nodes of a Redis Cluster, which return the others.
    Cluster(Vec<Address>),
    /// The master of this name, at the address that a sentinel returns.
    Sentinels {
        master: Address,
        sentinels: Vec<Address>,
    },
}

impl RedisTopology {
    /// The topology of the servers at `addresses`.
    ///
    /// # Errors
    /// There are several addresses without a Cluster, or a Cluster behind sentinels.
    pub fn of(
        mut addresses: Vec<Address>,
        cluster: bool,
        sentinels: Option<Vec<Address>>,
    ) -> Result<Self> {
        Ok(match (cluster, sentinels, addresses.len()) {
            (true, None, _) => Self::Cluster(addresses),
            (true, Some(_), _) => bail!("cluster and sentinels exclude each other; remove one"),
            (false, Some(sentinels), 1) => {
                Self::Sentinels { master: addresses.remove(0), sentinels }
            }
            (false, None, 1) => Self::One(addresses.remove(0)),
            (false, _, _) => {
                bail!("several addresses are only valid for a Cluster; write cluster = true")
            }
        })
    }
}

/// The keys as written in the file.
#[derive(Debug, Default)]
pub struct RedisConfig {
    redis: Option<Vec<Address>>,
    cluster: bool,
    sentinels: Option<Vec<Address>>,
    prefix: Option<String>,
    timeout: Option<Duration>,
}

pub const KEYS: [&str; 5] = ["redis", "cluster", "sentinels", "prefix", "timeout"];

/// The default prefix: the same for all nodes.
const PREFIX: &str = "spinfer:";
const MAX_PREFIX: usize = 256;
const TIMEOUT: Duration = Duration::from_millis(5);
/// A longer timeout would exceed the time that most responses take to compute.
const MAX_TIMEOUT: Duration = Duration::from_secs(1);

impl RedisConfig {
    /// Reads one of [`KEYS`]. An error does not contain the address, which may hold a password.
    pub fn take(&mut self, key: &str, value: Value) -> Result<()> {
        match key {
            "redis" => self.redis = Some(addresses(value).context("redis")?),
            "sentinels" => self.sentinels = Some(addresses(value).context("sentinels")?),
            "cluster" => {
                self.cluster = value.as_bool().context("cluster: expected true or false")?;
            }
            "prefix" => {
                let Value::String(prefix) = value else { bail!("prefix: expected a string") };
                let fits = !prefix.is_empty() && prefix.len() <= MAX_PREFIX;
                ensure!(fits, "prefix: expected 1 to {MAX_PREFIX} bytes");
                self.prefix = Some(prefix);
            }
            "timeout" => {
                let timeout = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
                let timeout = timeout.filter(|t| !t.is_zero() && *t <= MAX_TIMEOUT);
                let invalid = || {
                    anyhow!(
                        "timeout: expected a duration of at most {MAX_TIMEOUT:?}, such as \"5ms\""
                    )
                };
                self.timeout = Some(timeout.ok_or_else(invalid)?);
            }
            _ => unreachable!("one of KEYS"),
        }
        Ok(())
    }

    /// Resolves the keys; `None` if no Redis is configured.
    ///
    /// # Errors
    /// The keys contradict each other, or `redis` is missing.
    pub fn settle(self) -> Result<Option<RedisSettings>> {
        let Some(redis) = self.redis else {
            let others = self.cluster || self.sentinels.is_some();
            let others = others || self.prefix.is_some() || self.timeout.is_some();
            ensure!(!others, "redis is missing: write redis = \"redis://host:6379\"");
            return Ok(None);
        };
        let topology = RedisTopology::of(redis, self.cluster, self.sentinels)?;
        let prefix = self.prefix.unwrap_or_else(|| PREFIX.to_owned());
        Ok(Some(RedisSettings { topology, prefix, timeout: self.timeout.unwrap_or(TIMEOUT) }))
    }
}

/// One address, or a list of them. An error does not contain them, as they may hold a password.
pub(crate) fn addresses(value: Value) -> Result<Vec<Address>> {
    let texts = match value {
        Value::String(text) => vec![text],
        value => {
            value.try_into().map_err(|_| anyhow!("expected an address or a list of addresses"))?
        }
    };
    ensure!(!texts.is_empty(), "expected an address");
    texts.iter().map(|text| Address::parse(text).map_err(anyhow::Error::msg)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(text: &str) -> Result<Option<RedisSettings>> {
        let mut given = RedisConfig::default();
        for (key, value) in toml::from_str::<toml::Table>(text).unwrap() {
            given.take(&key, value)?;
        }
        given.settle()
    }

    #[test]
    fn other_keys_have_defaults() {
        let settings = settle("redis = 'redis://h'").unwrap().unwrap();
        assert!(matches!(settings.topology, RedisTopology::One(at) if at.host == "h"));
        assert_eq!((settings.prefix.as_str(), settings.timeout), ("spinfer:", TIMEOUT));
        assert!(settle("").unwrap().is_none());
    }

    #[test]
    fn several_addresses_are_a_cluster_or_sentinels() {
        let topology = |text| settle(text).unwrap().unwrap().topology;
        assert!(matches!(
            topology("redis = ['redis://a:7000', 'redis://b:7000']\ncluster = true"),
            RedisTopology::Cluster(nodes) if nodes.len() == 2
        ));
        assert!(matches!(
            topology("redis = 'redis://a'\ncluster = true"),
            RedisTopology::Cluster(_)
        ));
        assert!(matches!(
            topology("redis = 'redis://mymaster/3'\nsentinels = ['redis://s:26379']"),
            RedisTopology::Sentinels { master, sentinels } if master.host == "mymaster" && sentinels.len() == 1
        ));
    }

    #[test]
    fn errors_name_the_key_and_contain_no_secret() {
        for (text, expected) in [
            ("redis = ['redis://a', 'redis://b']", "cluster = true"),
            ("redis = ['redis://a']\ncluster = true\nsentinels = 'redis://b'", "exclude"),
            ("redis = []", "expected an address"),
            ("redis = 7", "expected an address"),
            ("redis = 'hush'", "redis://host:6379"),
            ("prefix = 'a'", "redis is missing"),
            ("redis = 'redis://a'\nprefix = ''", "1 to 256 bytes"),
            ("redis = 'redis://a'\ntimeout = '5'", "5ms"),
            ("redis = 'redis://a'\ntimeout = '0s'", "5ms"),
            ("redis = 'redis://a'\ntimeout = '2s'", "at most 1s"),
            ("redis = 'redis://a'\ncluster = 'yes'", "true or false"),
        ] {
            let error = format!("{:#}", settle(text).unwrap_err());
            assert!(error.contains(expected) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
