//! Drift settings: `[application.tool.spinfer.drift]` and `[component.<id>.tool.spinfer.drift]`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::window::SUB_WINDOWS;
use crate::config::limits::{duration, some_duration};

/// The drift settings of a component's models, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftSettings {
    pub enabled: bool,
    pub window: WindowShape,
    /// Minimum number of records, and of values of a field, for a result. Of a decayed window: the
    /// effective number.
    pub minimum: u32,
    /// Probability of any false alarm for a model version, ever, over all its fields.
    pub alpha: f64,
}

/// Which records the current window has.
#[derive(Clone, Debug, PartialEq)]
pub enum WindowShape {
    /// The last `records`, of at most this age.
    Recent { records: u32, age: Duration },
    /// All, with weights that halve in each half-life.
    Decayed { half_life: Duration },
}

/// Default of `window`, in records: ten bins have a thousand each, and a PSI of 0.01 is significant
/// against a baseline of the same size.
const WINDOW: u32 = 10_000;
/// Default of `window_age`: one daily cycle.
const WINDOW_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Default of `minimum`: twenty values for each of the ten decile bins. The p-values of PSI were
/// simulated, and are valid, from 100 values on (`spinfer_statistics::population_stability`); with
/// fewer, only a gross change would be significant.
const MINIMUM: u32 = 200;
/// Default of `alpha`: one of a hundred versions without drift ever has a false alarm.
const ALPHA: f64 = 0.01;

/// Minimum and maximum of `window`: its sub-windows need some size, and counts have 32 bits.
const WINDOW_RANGE: (u32, u32) = (100, 10_000_000);
const MAX_WINDOW_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Minimum and maximum of `half_life`: a sub-window covers `half_life / 8`, and times have some
/// milliseconds of jitter.
const HALF_LIFE_RANGE: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(92 * 24 * 60 * 60));
/// Lower bound of `minimum`: the distribution of PSI was not simulated with fewer values.
const MIN_MINIMUM: u32 = 30;

impl Default for DriftSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            window: WindowShape::Recent { records: WINDOW, age: WINDOW_AGE },
            minimum: MINIMUM,
            alpha: ALPHA,
        }
    }
}

/// The settings in a manifest. An absent key is inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DriftConfig {
    pub(crate) enabled: Option<bool>,
    pub(crate) window: Option<WindowConfig>,
    #[serde(default, with = "some_duration")]
    pub(crate) window_age: Option<Duration>,
    pub(crate) minimum: Option<u32>,
    pub(crate) alpha: Option<f64>,
}

/// `window`: a number of records, or a half-life.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "expected a number of records, or { half_life = \"1h\" }"
)]
pub(crate) enum WindowConfig {
    Records(u32),
    Decayed {
        #[serde(with = "duration")]
        half_life: Duration,
    },
}

/// A setting that is out of range.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("drift.{key}: {problem}")]
pub struct DriftSettingError {
    key: &'static str,
    problem: String,
}

impl DriftSettings {
    /// These settings, overridden by `config`.
    ///
    /// # Errors
    /// Fails on the first setting that is out of range.
    pub fn with(&self, config: &DriftConfig) -> Result<Self, DriftSettingError> {
        let DriftConfig { enabled, window, window_age, minimum, alpha } = config;
        let settings = Self {
            enabled: enabled.unwrap_or(self.enabled),
            window: self.window.with(window.as_ref(), *window_age)?,
            minimum: minimum.unwrap_or(self.minimum),
            alpha: alpha.unwrap_or(self.alpha),
        };
        let at_least = format!("must be at least {MIN_MINIMUM}");
        let (guaranteed, problem) = match settings.window {
            // The oldest sub-window of a full window is evicted before the next starts.
            WindowShape::Recent { records, .. } => {
                let guaranteed = records - records.div_ceil(SUB_WINDOWS);
                let problem = format!(
                    "must be between {MIN_MINIMUM} and {guaranteed}, the records that a full window \
                     of {records} always contains"
                );
                (guaranteed, problem)
            }
            WindowShape::Decayed { .. } => (u32::MAX, at_least),
        };
        if !(MIN_MINIMUM..=guaranteed).contains(&settings.minimum) {
            return fail("minimum", problem);
        }
        if !(settings.alpha > 0.0 && settings.alpha <= 0.5) {
            return fail(
                "alpha",
                "must be greater than 0 and at most 0.5, for example 0.01".into(),
            );
        }
        Ok(settings)
    }
}

impl fmt::Display for WindowShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recent { records, age } => {
                write!(f, "{records} records, {}", humantime::format_duration(*age))
            }
            Self::Decayed { half_life } => {
                write!(f, "half-life {}", humantime::format_duration(*half_life))
            }
        }
    }
}

impl WindowShape {
    /// This shape, overridden by the settings.
    fn with(
        &self,
        window: Option<&WindowConfig>,
        window_age: Option<Duration>,
    ) -> Result<Self, DriftSettingError> {
        let shape = match (window, self) {
            (Some(WindowConfig::Decayed { half_life }), _) => {
                Self::Decayed { half_life: *half_life }
            }
            (Some(WindowConfig::Records(records)), Self::Recent { age, .. }) => {
                Self::Recent { records: *records, age: *age }
            }
            (Some(WindowConfig::Records(records)), Self::Decayed { .. }) => {
                Self::Recent { records: *records, age: WINDOW_AGE }
            }
            (None, shape) => shape.clone(),
        };
        match (shape, window_age) {
            (Self::Decayed { .. }, Some(_)) => {
                fail("window_age", "has no effect with window.half_life; remove one of them".into())
            }
            (Self::Decayed { half_life }, None) => {
                let (min, max) = HALF_LIFE_RANGE;
                if (min..=max).contains(&half_life) {
                    return Ok(Self::Decayed { half_life });
                }
                fail("window.half_life", "must be between \"1s\" and \"92days\"".into())
            }
            (Self::Recent { records, age }, other) => {
                let age = other.unwrap_or(age);
                let (min, max) = WINDOW_RANGE;
                if !(min..=max).contains(&records) {
                    return fail("window", format!("must be between {min} and {max} records"));
                }
                if age.is_zero() || age > MAX_WINDOW_AGE {
                    return fail(
                        "window_age",
                        "must be greater than zero and at most a year, for example \"24h\"".into(),
                    );
                }
                Ok(Self::Recent { records, age })
            }
        }
    }
}

fn fail<T>(key: &'static str, problem: String) -> Result<T, DriftSettingError> {
    Err(DriftSettingError { key, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<DriftSettings, String> {
        let config: DriftConfig = toml::from_str(toml).map_err(|e| e.to_string())?;
        DriftSettings::default().with(&config).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_setting_is_inherited() {
        assert_eq!(resolve(""), Ok(DriftSettings::default()));
        let settings = resolve("window = 1000\nwindow_age = '1h'\nalpha = 0.05").unwrap();
        let expected = DriftSettings {
            window: WindowShape::Recent { records: 1000, age: Duration::from_secs(3600) },
            alpha: 0.05,
            ..DriftSettings::default()
        };
        assert_eq!(settings, expected);
        assert!(!resolve("enabled = false").unwrap().enabled);
    }

    #[test]
    fn component_overrides_the_window_of_the_application() {
        let half_life = Duration::from_secs(3600);
        let decayed = resolve("window = { half_life = '1h' }\nminimum = 100_000").unwrap();
        assert_eq!(decayed.window, WindowShape::Decayed { half_life });
        let config: DriftConfig = toml::from_str("window = 1000\nminimum = 100").unwrap();
        let expected = WindowShape::Recent { records: 1000, age: WINDOW_AGE };
        assert_eq!(decayed.with(&config).unwrap().window, expected);
        assert_eq!(decayed.with(&DriftConfig::default()).unwrap(), decayed);
    }

    #[test]
    fn setting_out_of_range_is_rejected_with_its_key() {
        for (toml, part) in [
            ("window = 99", "drift.window: must be between 100"),
            ("window = 20_000_000", "drift.window"),
            ("window = { half_life = '1ms' }", "drift.window.half_life: must be between"),
            ("window = { half_life = '1h' }\nwindow_age = '1h'", "drift.window_age: has no effect"),
            ("window = { half_life = '1h' }\nminimum = 5", "drift.minimum: must be at least 30"),
            ("window = { halflife = '1h' }", "a number of records, or { half_life = \"1h\" }"),
            ("window_age = '0s'", "drift.window_age"),
            ("window_age = '2years'", "drift.window_age"),
            ("window = 200", "drift.minimum: must be between 30 and 190"),
            ("minimum = 5", "drift.minimum"),
            ("alpha = 0.0", "drift.alpha"),
            ("alpha = 1.0", "drift.alpha"),
            ("alpha = nan", "drift.alpha"),
            ("windw = 1", "unknown field `windw`"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(part), "{toml}: {error}");
        }
    }
}
