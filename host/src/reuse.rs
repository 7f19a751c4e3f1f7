//! For how long an instance is used, which is also what one request may leave for the next.
//!
//! What may pass between two requests that the same instance serves: all its memory, globals and
//! resource handles, as the component left them. What never passes, whatever the settings: anything
//! to another instance, to another component, or past a trap or a missed deadline, both of which
//! end the instance; anything through the file system, as mounts are read-only. With
//! `requests = 1` nothing passes at all: every request has an instance of its own, from the same
//! initial memory.

use std::time::Duration;

use serde::Deserialize;

use crate::limits::{DURATION_MOST, some_duration};

/// `[component.<id>.tool.spinfer.reuse]`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Requests an instance serves in its life.
    pub requests: usize,
    /// How old an instance gets.
    pub age: Duration,
    /// Requests a `wasi:http` 0.3 instance serves at a time, where they wait for something. The
    /// other doors have one.
    pub concurrency: usize,
    /// Instances kept ready for a busy component, behind the fast door.
    pub spare: usize,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            requests: 100_000,
            age: Duration::from_secs(60 * 60),
            // As in Spin.
            concurrency: 16,
            spare: 1,
        }
    }
}

/// The same in a manifest; what is absent is inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReuseConfig {
    pub(crate) requests: Option<usize>,
    #[serde(default, with = "some_duration")]
    pub(crate) age: Option<Duration>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) spare: Option<usize>,
}

/// Instances kept ready: each takes a place in the pool.
const SPARE_MOST: usize = 100;

impl Reuse {
    /// These settings with what `config` sets put over them.
    pub fn with(&self, config: &ReuseConfig) -> Result<Self, String> {
        let reuse = Self {
            requests: config.requests.unwrap_or(self.requests),
            age: config.age.unwrap_or(self.age),
            concurrency: config.concurrency.unwrap_or(self.concurrency),
            spare: config.spare.unwrap_or(self.spare),
        };
        if reuse.age > DURATION_MOST {
            return Err("reuse.age: must be at most a day: \"1h\"".into());
        }
        if reuse.requests == 0 {
            return Err("reuse.requests: must be at least 1, a new instance for each".into());
        }
        if reuse.concurrency == 0 {
            return Err("reuse.concurrency: must be at least 1".into());
        }
        if reuse.spare > SPARE_MOST {
            return Err(format!("reuse.spare: must be at most {SPARE_MOST}"));
        }
        Ok(reuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<Reuse, String> {
        let config: ReuseConfig = toml::from_str(toml).map_err(|e| e.to_string())?;
        Reuse::default().with(&config)
    }

    #[test]
    fn what_is_absent_is_inherited() {
        assert_eq!(resolve(""), Ok(Reuse::default()));
        let expected = Reuse { requests: 1, age: Duration::from_secs(60), ..Reuse::default() };
        assert_eq!(resolve("requests = 1\nage = '1m'"), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (toml, part) in [
            ("requests = 0", "reuse.requests"),
            ("concurrency = 0", "reuse.concurrency"),
            ("spare = 101", "reuse.spare"),
            ("age = '10000000000000000000s'", "reuse.age"),
            ("age = 'long'", "write \"30s\""),
            ("request = 1", "unknown field `request`"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(part), "{toml}: {error}");
        }
    }
}
