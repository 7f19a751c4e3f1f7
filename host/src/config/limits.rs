//! The limits of one component. Every limit has a default, so nothing is unlimited.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// The limits of one component, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentLimits {
    /// Maximum size of a request body, in bytes. A longer one is refused with 413.
    pub request_body: usize,
    /// Maximum size of a request body that is buffered and goes through the fast door, in bytes. A
    /// longer one is streamed through the standard door, if the component exports it.
    pub buffered_body: usize,
    /// Maximum time from the request's head to the response's; then 504.
    pub deadline: Duration,
    /// Maximum time for which the client of a streamed response waits for the next part; then the
    /// response is cut off.
    pub stream_idle: Duration,
    /// Maximum time from the head of a streamed response to its end; `None`: no limit.
    pub stream_total: Option<Duration>,
    /// Maximum linear memory of an instance, and separately maximum host memory charged to it
    /// (tensors), in bytes.
    pub instance_memory: usize,
    /// Maximum number of concurrent requests, each with an instance of its own.
    pub instances: usize,
    /// Maximum number of queued requests; one more is refused with 503 at once.
    pub queue: usize,
    /// Time without a request after which the instances are released; the models after twice that,
    /// the code after three times that.
    pub idle: Duration,
}

impl Default for ComponentLimits {
    fn default() -> Self {
        Self {
            request_body: 16 << 20,
            buffered_body: 1 << 20,
            deadline: Duration::from_secs(30),
            // As nginx and most load balancers wait for a backend.
            stream_idle: Duration::from_secs(60),
            stream_total: None,
            instance_memory: 128 << 20,
            instances: 16,
            queue: 256,
            idle: Duration::from_secs(30),
        }
    }
}

/// `[application.tool.spinfer.limits]` or `[component.<id>.tool.spinfer.limits]`. An absent key is
/// inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct LimitsConfig {
    pub(crate) request_body: Option<ByteSize>,
    pub(crate) buffered_body: Option<ByteSize>,
    #[serde(default, with = "some_duration")]
    pub(crate) deadline: Option<Duration>,
    #[serde(default, with = "some_duration")]
    pub(crate) stream_idle: Option<Duration>,
    #[serde(default, with = "some_duration")]
    pub(crate) stream_total: Option<Duration>,
    pub(crate) instance_memory: Option<ByteSize>,
    pub(crate) instances: Option<usize>,
    pub(crate) queue: Option<usize>,
    #[serde(default, with = "some_duration")]
    pub(crate) idle: Option<Duration>,
    /// A limit of the application, not of a component.
    pub(crate) unread_per_client: Option<ByteSize>,
}

impl LimitsConfig {
    /// Maximum size of unread responses that are held for one client address, in bytes, if it is set.
    ///
    /// # Errors
    /// It is too large.
    pub fn unread_per_client(&self) -> Result<Option<usize>, LimitError> {
        bytes(UNREAD_PER_CLIENT, self.unread_per_client)
    }

    /// Checks that there are only limits of a component.
    ///
    /// # Errors
    /// There is a limit of the application.
    pub fn check_component(&self) -> Result<(), LimitError> {
        match self.unread_per_client {
            None => Ok(()),
            Some(_) => Err(LimitError {
                key: UNREAD_PER_CLIENT,
                problem: "is a limit of all components together; set it in \
                          [application.tool.spinfer.limits]"
                    .into(),
            }),
        }
    }
}

const UNREAD_PER_CLIENT: &str = "unread_per_client";

/// A limit that is out of range.
#[derive(Debug, thiserror::Error)]
#[error("limits.{key}: {problem}")]
pub struct LimitError {
    key: &'static str,
    problem: String,
}

/// Maximum linear memory, in bytes: what a 32-bit component can address.
const MAX_MEMORY: usize = 4 << 30;
/// Minimum linear memory, in bytes: one WebAssembly page.
const MIN_MEMORY: usize = 64 << 10;
/// Maximum of every configured duration.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum number of instances of one component: the pool reserves address space for each.
const MAX_INSTANCES: usize = 1000;

impl ComponentLimits {
    /// These limits, overridden by `config`.
    ///
    /// # Errors
    /// Fails on the first limit that is out of range.
    pub fn with(&self, config: &LimitsConfig) -> Result<Self, LimitError> {
        let LimitsConfig {
            request_body,
            buffered_body,
            deadline,
            stream_idle,
            stream_total,
            instance_memory,
            instances,
            queue,
            idle,
            unread_per_client: _,
        } = config;
        let limits = Self {
            request_body: bytes("request_body", *request_body)?.unwrap_or(self.request_body),
            buffered_body: bytes("buffered_body", *buffered_body)?.unwrap_or(self.buffered_body),
            deadline: deadline.unwrap_or(self.deadline),
            stream_idle: stream_idle.unwrap_or(self.stream_idle),
            stream_total: stream_total.or(self.stream_total),
            instance_memory: bytes("instance_memory", *instance_memory)?
                .unwrap_or(self.instance_memory),
            instances: instances.unwrap_or(self.instances),
            queue: queue.unwrap_or(self.queue),
            idle: idle.unwrap_or(self.idle),
        };
        let fail = |key, problem: String| Err(LimitError { key, problem });
        for (key, limit) in [
            ("deadline", Some(limits.deadline)),
            ("stream_idle", Some(limits.stream_idle)),
            ("stream_total", limits.stream_total),
        ] {
            if limit.is_some_and(|limit| limit.is_zero() || limit > MAX_DURATION) {
                return fail(
                    key,
                    "must be greater than zero and at most a day, for example \"30s\"".into(),
                );
            }
        }
        if limits.idle > MAX_DURATION {
            return fail("idle", "must be at most a day, for example \"10s\"".into());
        }
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&limits.instance_memory) {
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

/// Deserializes a duration, `"30s"` or `"250ms"`, for `#[serde(with = "...")]`.
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

/// Deserializes an optional duration, for `#[serde(default, with = "...")]`.
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

    fn resolve(toml: &str) -> Result<ComponentLimits, String> {
        let config: LimitsConfig = toml::from_str(toml).map_err(|e| e.to_string())?;
        ComponentLimits::default().with(&config).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_limit_is_inherited() {
        assert_eq!(resolve(""), Ok(ComponentLimits::default()));
        let limits = resolve(
            "request_body = '2MiB'\nbuffered_body = '3KiB'\ndeadline = '250ms'\ninstances = 3\n\
             stream_idle = '5m'\nstream_total = '12h'",
        )
        .unwrap();
        let expected = ComponentLimits {
            request_body: 2 << 20,
            buffered_body: 3 << 10,
            deadline: Duration::from_millis(250),
            stream_idle: Duration::from_secs(5 * 60),
            stream_total: Some(Duration::from_secs(12 * 60 * 60)),
            instances: 3,
            ..ComponentLimits::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn limit_of_the_application_is_not_one_of_a_component() {
        let config: LimitsConfig = toml::from_str("unread_per_client = '2KiB'").unwrap();
        assert_eq!(config.unread_per_client().unwrap(), Some(2 << 10));
        let error = config.check_component().unwrap_err().to_string();
        assert!(error.starts_with("limits.unread_per_client: is a limit of all"), "{error}");
        assert!(LimitsConfig::default().check_component().is_ok());
    }

    #[test]
    fn limit_out_of_range_is_rejected_with_its_key() {
        for (toml, part) in [
            ("deadline = '0s'", "limits.deadline"),
            ("deadline = '2days'", "limits.deadline"),
            ("stream_idle = '0s'", "limits.stream_idle"),
            ("stream_total = '2days'", "limits.stream_total"),
            ("idle = '2days'", "limits.idle"),
            ("deadline = 'soon'", "write \"30s\""),
            ("instance_memory = '1KiB'", "limits.instance_memory"),
            ("instance_memory = '5GiB'", "limits.instance_memory"),
            ("instances = 0", "limits.instances"),
            ("request_bdy = 1", "unknown field `request_bdy`"),
            ("fast_body = '1MiB'", "unknown field `fast_body`"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(part), "{toml}: {error}");
        }
    }
}
