//! `[application.tool.spinfer.drift]` and `[component.<id>.tool.spinfer.drift]`.

use std::time::Duration;

use serde::Deserialize;

use super::window::SUB_WINDOWS;
use crate::config::limits::some_duration;

/// How drift of a component's models is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftSettings {
    pub enabled: bool,
    /// Maximum number of records in the current window.
    pub window: u32,
    /// Maximum age of a record in it.
    pub window_age: Duration,
    /// Records, and values of a field, below which nothing is said.
    pub minimum: u32,
    /// Chance of a false alarm about a model version, over all its fields.
    pub alpha: f64,
}

/// Records of a window, unless it is said: ten bins then have a thousand each, and a PSI of 0.01
/// stands out against a baseline as large.
const WINDOW: u32 = 10_000;
/// Their age, unless it is said: one round of what changes with the time of day.
const WINDOW_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Unless it is said: twenty values for each of the ten bins of deciles. p-values of PSI were
/// simulated from 100 values on and hold there (`spinfer_statistics::population_stability`); with
/// fewer, only a gross change would be significant.
const MINIMUM: u32 = 200;
/// Unless it is said: one false alarm in a hundred windows that have nothing in common.
const ALPHA: f64 = 0.01;

/// Counts of a window are of 32 bits, and its parts are to be of some size.
const WINDOW_RANGE: (u32, u32) = (100, 10_000_000);
const MAX_WINDOW_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Below this the distribution of PSI was not looked at.
const LEAST_MINIMUM: u32 = 30;

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

/// The same in a manifest: what is absent is inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftConfig {
    pub(crate) enabled: Option<bool>,
    pub(crate) window: Option<u32>,
    #[serde(default, with = "some_duration")]
    pub(crate) window_age: Option<Duration>,
    pub(crate) minimum: Option<u32>,
    pub(crate) alpha: Option<f64>,
}

/// A value out of its range, with the key it stands under.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("drift.{key}: {problem}")]
pub struct DriftSettingError {
    key: &'static str,
    problem: String,
}

impl DriftSettings {
    /// These settings with what `config` sets put over them.
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
        let (least, most) = WINDOW_RANGE;
        if !(least..=most).contains(&settings.window) {
            return fail("window", format!("must be between {least} and {most} records"));
        }
        if settings.window_age.is_zero() || settings.window_age > MAX_WINDOW_AGE {
            return fail("window_age", "must be more than zero and at most a year: \"24h\"".into());
        }
        // The oldest part of a full window goes before the next begins.
        let held = settings.window - settings.window.div_ceil(SUB_WINDOWS);
        if !(LEAST_MINIMUM..=held).contains(&settings.minimum) {
            let problem = format!(
                "must be between {LEAST_MINIMUM} and {held}, what a window of {} always holds once \
                 it was full",
                settings.window
            );
            return fail("minimum", problem);
        }
        if !(settings.alpha > 0.0 && settings.alpha <= 0.5) {
            return fail("alpha", "must be more than 0 and at most 0.5: 0.01".into());
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
    fn what_is_absent_is_inherited() {
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
    fn what_makes_no_sense_is_refused_with_its_key() {
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
