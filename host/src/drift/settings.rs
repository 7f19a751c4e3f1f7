//! Drift settings: `[application.tool.spinfer.drift]` and `[component.<id>.tool.spinfer.drift]`.

use std::time::Duration;

use serde::Deserialize;

use super::window::SUB_WINDOWS;
use crate::config::limits::some_duration;

/// The drift settings of a component's models, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftSettings {
    pub enabled: bool,
    /// Maximum number of records in the current window.
    pub window: u32,
    /// Maximum age of a record in the window.
    pub window_age: Duration,
    /// Minimum number of records, and of values of a field, for a result.
    pub minimum: u32,
    /// Probability of a false alarm for a model version, over all its fields.
    pub alpha: f64,
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
/// Default of `alpha`: one false alarm in a hundred disjoint windows.
const ALPHA: f64 = 0.01;

/// Minimum and maximum of `window`: its sub-windows need some size, and counts have 32 bits.
const WINDOW_RANGE: (u32, u32) = (100, 10_000_000);
const MAX_WINDOW_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Lower bound of `minimum`: the distribution of PSI was not simulated with fewer values.
const MIN_MINIMUM: u32 = 30;

impl Default for DriftSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            window: WINDOW,
            window_age: WINDOW_AGE,
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
    pub(crate) window: Option<u32>,
    #[serde(default, with = "some_duration")]
    pub(crate) window_age: Option<Duration>,
    pub(crate) minimum: Option<u32>,
    pub(crate) alpha: Option<f64>,
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
            window: window.unwrap_or(self.window),
            window_age: window_age.unwrap_or(self.window_age),
            minimum: minimum.unwrap_or(self.minimum),
            alpha: alpha.unwrap_or(self.alpha),
        };
        let fail = |key, problem| Err(DriftSettingError { key, problem });
        let (min, max) = WINDOW_RANGE;
        if !(min..=max).contains(&settings.window) {
            return fail("window", format!("must be between {min} and {max} records"));
        }
        if settings.window_age.is_zero() || settings.window_age > MAX_WINDOW_AGE {
            return fail(
                "window_age",
                "must be greater than zero and at most a year, for example \"24h\"".into(),
            );
        }
        // The oldest sub-window of a full window is evicted before the next starts.
        let guaranteed = settings.window - settings.window.div_ceil(SUB_WINDOWS);
        if !(MIN_MINIMUM..=guaranteed).contains(&settings.minimum) {
            let problem = format!(
                "must be between {MIN_MINIMUM} and {guaranteed}, the records that a full window of \
                 {} always contains",
                settings.window
            );
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
            window: 1000,
            window_age: Duration::from_secs(3600),
            alpha: 0.05,
            ..DriftSettings::default()
        };
        assert_eq!(settings, expected);
        assert!(!resolve("enabled = false").unwrap().enabled);
    }

    #[test]
    fn setting_out_of_range_is_rejected_with_its_key() {
        for (toml, part) in [
            ("window = 99", "drift.window: must be between 100"),
            ("window = 20_000_000", "drift.window"),
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
