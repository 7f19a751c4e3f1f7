//! What one component may use. Every limit has a default, so that nothing is ever unlimited.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// The limits of one component, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request body; a longer one is 413.
    pub request_body: usize,
    /// Bytes of a request body that still goes through the fast door; a longer one is streamed
    /// through the standard door, if the component has it.
    pub fast_body: usize,
    /// From the request's head to the answer's; then 504. A streamed answer of `wasi:http` 0.3 has
    /// as long again.
    pub deadline: Duration,
    /// Bytes of linear memory, and separately of host memory held for it (tensors), per instance.
    pub instance_memory: usize,
    /// Requests served at the same time, each by an instance.
    pub instances: usize,
    /// Requests that wait for one of those to end; one more is 503 at once.
    pub queue: usize,
    /// How long without a request until its instances are dropped; after twice that its models,
    /// after three times its code.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_body: 16 << 20,
            fast_body: 1 << 20,
            deadline: Duration::from_secs(30),
            instance_memory: 128 << 20,
            instances: 16,
            queue: 256,
            idle: Duration::from_secs(30),
        }
    }
}

/// The same in a manifest, `[application.tool.spinfer.limits]` or
/// `[component.<id>.tool.spinfer.limits]`: what is absent is inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    pub(crate) request_body: Option<ByteSize>,
    pub(crate) fast_body: Option<ByteSize>,
    #[serde(default, with = "some_duration")]
    pub(crate) deadline: Option<Duration>,
    pub(crate) instance_memory: Option<ByteSize>,
    pub(crate) instances: Option<usize>,
    pub(crate) queue: Option<usize>,
    #[serde(default, with = "some_duration")]
    pub(crate) idle: Option<Duration>,
}

/// A value out of its range, with the key it stands under.
#[derive(Debug, thiserror::Error)]
#[error("limits.{key}: {problem}")]
pub struct LimitError {
    key: &'static str,
    problem: String,
}

/// The most linear memory a 32-bit component can address.
const MEMORY_ADDRESSABLE: usize = 4 << 30;
/// One WebAssembly page: less cannot hold any component.
const MEMORY_LEAST: usize = 64 << 10;
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// Instances of one component: the pool reserves address space for each.
const MAX_INSTANCES: usize = 1000;

impl Limits {
    /// These limits with what `config` sets put over them.
    pub fn with(&self, config: &LimitsConfig) -> Result<Self, LimitError> {
        let LimitsConfig {
            request_body,
            fast_body,
            deadline,
            instance_memory,
            instances,
            queue,
            idle,
        } = config;
        let limits = Self {
            request_body: bytes("request_body", *request_body)?.unwrap_or(self.request_body),
            fast_body: bytes("fast_body", *fast_body)?.unwrap_or(self.fast_body),
            deadline: deadline.unwrap_or(self.deadline),
            instance_memory: bytes("instance_memory", *instance_memory)?
                .unwrap_or(self.instance_memory),
            instances: instances.unwrap_or(self.instances),
            queue: queue.unwrap_or(self.queue),
            idle: idle.unwrap_or(self.idle),
        };
        let fail = |key, problem: String| Err(LimitError { key, problem });
        if limits.deadline.is_zero() || limits.deadline > MAX_DURATION {
            return fail("deadline", "must be more than zero and at most a day: \"30s\"".into());
        }
        if limits.idle > MAX_DURATION {
            return fail("idle", "must be at most a day: \"10s\"".into());
        }
        if !(MEMORY_LEAST..=MEMORY_ADDRESSABLE).contains(&limits.instance_memory) {
            return fail(
                "instance_memory",
                "must be between \"64KiB\" and \"4GiB\", for example \"128MiB\"".into(),
            );
        }
        if !(1..=MAX_INSTANCES).contains(&limits.instances) {
            return fail("instances", format!("must be between 1 and {MAX_INSTANCES}"));
        }
        Ok(limits)
    }
}

fn bytes(key: &'static str, size: Option<ByteSize>) -> Result<Option<usize>, LimitError> {
    size.map(|size| {
        usize::try_from(size.as_u64()).map_err(|_| LimitError { key, problem: "too large".into() })
    })
    .transpose()
}

/// A duration as `"30s"` or `"250ms"`, for `#[serde(with = "...")]`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|e| {
            de::Error::custom(format!(
                "`{text}` is not a duration ({e}); write \"30s\" or \"250ms\""
            ))
        })
    }
}

/// The same where it may be absent.
pub(crate) mod some_duration {
    use std::time::Duration;

    use serde::Deserializer;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<Limits, String> {
        let config: LimitsConfig = toml::from_str(toml).map_err(|e| e.to_string())?;
        Limits::default().with(&config).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_absent_is_inherited() {
        assert_eq!(resolve(""), Ok(Limits::default()));
        let limits = resolve("request_body = '2MiB'\ndeadline = '250ms'\ninstances = 3").unwrap();
        let expected = Limits {
            request_body: 2 << 20,
            deadline: Duration::from_millis(250),
            instances: 3,
            ..Limits::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (toml, part) in [
            ("deadline = '0s'", "limits.deadline"),
            ("deadline = '2days'", "limits.deadline"),
            ("idle = '2days'", "limits.idle"),
            ("deadline = 'soon'", "write \"30s\""),
            ("instance_memory = '1KiB'", "limits.instance_memory"),
            ("instance_memory = '5GiB'", "limits.instance_memory"),
            ("instances = 0", "limits.instances"),
            ("request_bdy = 1", "unknown field `request_bdy`"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(part), "{toml}: {error}");
        }
    }
}
