//! `[cache]` in the runtime config, what concerns Redis.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use toml::Value;

use crate::storage::redis::Address;

/// Where answers are shared, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub place: Place,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// What a request waits at most.
    pub timeout: Duration,
}

/// What the addresses are of.
#[derive(Clone, Debug)]
pub enum Place {
    One(Address),
    /// Nodes of a Redis Cluster; the rest is asked of them.
    Cluster(Vec<Address>),
    /// The master of this name, wherever these say that it is.
    Sentinels {
        master: Address,
        sentinels: Vec<Address>,
    },
}

/// The keys, as they stand in the file.
#[derive(Debug, Default)]
pub struct Given {
    redis: Option<Vec<Address>>,
    cluster: bool,
    sentinels: Option<Vec<Address>>,
    prefix: Option<String>,
    timeout: Option<Duration>,
}

pub const KEYS: [&str; 5] = ["redis", "cluster", "sentinels", "prefix", "timeout"];

/// Every node asks the same keys, whatever it is called otherwise.
const PREFIX: &str = "spinfer:";
const MAX_PREFIX: usize = 256;
const TIMEOUT: Duration = Duration::from_millis(5);
/// Longer would be longer than most answers take to make.
const MAX_TIMEOUT: Duration = Duration::from_secs(1);

impl Given {
    /// Takes one of [`KEYS`]. An error does not repeat an address: it may hold a password.
    pub fn take(&mut self, key: &str, value: Value) -> Result<()> {
        match key {
            "redis" => self.redis = Some(addresses(value).context("redis")?),
            "sentinels" => self.sentinels = Some(addresses(value).context("sentinels")?),
            "cluster" => {
                self.cluster = value.as_bool().context("cluster: write true or false")?;
            }
            "prefix" => {
                let Value::String(prefix) = value else { bail!("prefix: write a text") };
                let fits = !prefix.is_empty() && prefix.len() <= MAX_PREFIX;
                ensure!(fits, "prefix: write 1 to {MAX_PREFIX} bytes");
                self.prefix = Some(prefix);
            }
            "timeout" => {
                let timeout = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
                let timeout = timeout.filter(|t| !t.is_zero() && *t <= MAX_TIMEOUT);
                let form = || anyhow!("timeout: write \"5ms\"; at most {MAX_TIMEOUT:?}");
                self.timeout = Some(timeout.ok_or_else(form)?);
            }
            _ => unreachable!("one of KEYS"),
        }
        Ok(())
    }

    /// What they mean together; `None` if answers are not shared.
    pub fn settle(self) -> Result<Option<Settings>> {
        let Some(mut redis) = self.redis else {
            let alone = self.cluster || self.sentinels.is_some();
            ensure!(!alone && self.prefix.is_none() && self.timeout.is_none(), "redis is missing");
            return Ok(None);
        };
        let place = match (self.cluster, self.sentinels, redis.len()) {
            (true, None, _) => Place::Cluster(redis),
            (true, Some(_), _) => bail!("cluster and sentinels exclude each other"),
            (false, Some(sentinels), 1) => Place::Sentinels { master: redis.remove(0), sentinels },
            (false, None, 1) => Place::One(redis.remove(0)),
            (false, _, _) => {
                bail!("redis: several addresses are a Cluster's: write cluster = true")
            }
        };
        let prefix = self.prefix.unwrap_or_else(|| PREFIX.to_owned());
        Ok(Some(Settings { place, prefix, timeout: self.timeout.unwrap_or(TIMEOUT) }))
    }
}

fn addresses(value: Value) -> Result<Vec<Address>> {
    let texts = match value {
        Value::String(text) => vec![text],
        value => value.try_into().map_err(|_| anyhow!("write an address, or a list of some"))?,
    };
    ensure!(!texts.is_empty(), "write an address");
    texts.iter().map(|text| Address::parse(text).map_err(anyhow::Error::msg)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(text: &str) -> Result<Option<Settings>> {
        let mut given = Given::default();
        for (key, value) in toml::from_str::<toml::Table>(text).unwrap() {
            given.take(&key, value)?;
        }
        given.settle()
    }

    #[test]
    fn an_address_is_enough() {
        let settings = settle("redis = 'redis://h'").unwrap().unwrap();
        assert!(matches!(settings.place, Place::One(at) if at.host == "h"));
        assert_eq!((settings.prefix.as_str(), settings.timeout), ("spinfer:", TIMEOUT));
        assert!(settle("").unwrap().is_none());
    }

    #[test]
    fn several_are_a_cluster_or_sentinels() {
        let place = |text| settle(text).unwrap().unwrap().place;
        assert!(matches!(
            place("redis = ['redis://a:7000', 'redis://b:7000']\ncluster = true"),
            Place::Cluster(nodes) if nodes.len() == 2
        ));
        assert!(matches!(place("redis = 'redis://a'\ncluster = true"), Place::Cluster(_)));
        assert!(matches!(
            place("redis = 'redis://mymaster/3'\nsentinels = ['redis://s:26379']"),
            Place::Sentinels { master, sentinels } if master.host == "mymaster" && sentinels.len() == 1
        ));
    }

    #[test]
    fn what_is_wrong_is_said_and_no_secret_repeated() {
        for (text, says) in [
            ("redis = ['redis://a', 'redis://b']", "cluster = true"),
            ("redis = ['redis://a']\ncluster = true\nsentinels = 'redis://b'", "exclude"),
            ("redis = []", "write an address"),
            ("redis = 7", "write an address"),
            ("redis = 'hush'", "redis://host:6379"),
            ("prefix = 'a'", "redis is missing"),
            ("redis = 'redis://a'\nprefix = ''", "1 to 256 bytes"),
            ("redis = 'redis://a'\ntimeout = '5'", "5ms"),
            ("redis = 'redis://a'\ntimeout = '0s'", "5ms"),
            ("redis = 'redis://a'\ntimeout = '2s'", "at most 1s"),
            ("redis = 'redis://a'\ncluster = 'yes'", "true or false"),
        ] {
            let error = format!("{:#}", settle(text).unwrap_err());
            assert!(error.contains(says) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
