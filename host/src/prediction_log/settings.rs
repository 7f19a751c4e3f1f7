//! A component's settings of the prediction log: whether predictions are logged, what a response waits
//! for, the sample, and the fields that are dropped or hashed.

use serde::Deserialize;

/// The log settings of one component, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    pub enabled: bool,
    pub mode: LogMode,
    /// Share of the requests whose predictions are logged, from 0 to 1.
    pub sample: f64,
    /// Names of inputs, outputs and attributes that are not logged.
    pub drop: Vec<String>,
    /// Names of inputs, outputs and attributes whose values are replaced by a keyed hash.
    pub hash: Vec<String>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: LogMode::default(),
            sample: 1.0,
            drop: Vec::new(),
            hash: Vec::new(),
        }
    }
}

/// What a response waits for, from the weakest to the strongest: `docs/prediction-log.md` has what
/// each guarantees and costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogMode {
    /// For nothing: records that the queue or the disk has no room for are dropped.
    #[default]
    BestEffort,
    /// For room in the queue. A queued record is kept until it is on disk.
    Durable,
    /// Until its records are on disk.
    Synchronous,
}

impl LogMode {
    /// What happens while the file cannot be written, with this as the strongest mode of a component.
    #[must_use]
    pub(super) fn while_unwritable(self) -> &'static str {
        match self {
            Self::BestEffort => "records are dropped",
            Self::Durable => {
                "records of components with mode = \"durable\" wait in memory, and their requests \
                 are refused once the queue is full"
            }
            Self::Synchronous => "requests of components with mode = \"synchronous\" are refused",
        }
    }
}

/// `[application.tool.spinfer.prediction_log]` or `[component.<id>.tool.spinfer.prediction_log]`.
/// An absent key is inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct LogConfig {
    enabled: Option<bool>,
    mode: Option<LogMode>,
    sample: Option<f64>,
    drop: Option<Vec<String>>,
    hash: Option<Vec<String>>,
}

/// An invalid setting.
#[derive(Debug, thiserror::Error)]
#[error("prediction_log.{key}: {problem}")]
pub struct LogSettingsError {
    key: &'static str,
    problem: String,
}

impl LogSettings {
    /// These settings, overridden by `config`.
    ///
    /// # Errors
    /// Fails on the first invalid setting.
    pub fn with(&self, config: &LogConfig) -> Result<Self, LogSettingsError> {
        let LogConfig { enabled, mode, sample, drop, hash } = config;
        let inherited = |own: &Option<Vec<String>>, from: &[String]| {
            own.clone().unwrap_or_else(|| from.to_vec())
        };
        let settings = Self {
            enabled: enabled.unwrap_or(self.enabled),
            mode: mode.unwrap_or(self.mode),
            sample: sample.unwrap_or(self.sample),
            drop: inherited(drop, &self.drop),
            hash: inherited(hash, &self.hash),
        };
        let fail = |key, problem| Err(LogSettingsError { key, problem });
        if !(0.0..=1.0).contains(&settings.sample) {
            let problem = "must be between 0.0 and 1.0; 0.1 logs one request in ten";
            return fail("sample", problem.into());
        }
        for (key, names) in [("drop", &settings.drop), ("hash", &settings.hash)] {
            if let Some(name) = names.iter().find(|name| name.is_empty()) {
                return fail(key, format!("{name:?} is not a field name; remove it"));
            }
        }
        if let Some(name) = settings.hash.iter().find(|name| settings.drop.contains(name)) {
            return fail("hash", format!("{name:?} is in `drop`, too; remove it from one"));
        }
        Ok(settings)
    }
}

/// The name of the tensor that a column belongs to, by which settings can name all its columns:
/// `pixels` for `pixels[7]`.
#[must_use]
pub fn base_name(column: &str) -> &str {
    match column.strip_suffix(']').and_then(|start| start.rsplit_once('[')) {
        Some((base, index)) if index.bytes().all(|digit| digit.is_ascii_digit()) => base,
        _ => column,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<LogSettings, String> {
        let inherited = LogSettings { drop: vec!["email".into()], ..LogSettings::default() };
        let config: LogConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        inherited.with(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn absent_setting_is_inherited() {
        let settings = with("sample = 0.5\nhash = ['user']").unwrap();
        assert!(settings.enabled);
        assert_eq!((settings.sample, &*settings.drop), (0.5, &["email".to_owned()][..]));
        assert_eq!(settings.hash, ["user"]);
        assert_eq!(with("drop = []\nenabled = false").unwrap().drop, [""; 0]);
        assert_eq!(with("sample = 0").unwrap().sample, 0.0);
        assert_eq!(settings.mode, LogMode::BestEffort);
        assert_eq!(with("mode = 'synchronous'").unwrap().mode, LogMode::Synchronous);
    }

    #[test]
    fn invalid_setting_is_rejected_with_its_key() {
        for (text, part) in [
            ("sample = 1.5", "prediction_log.sample: must be between 0.0 and 1.0"),
            ("sample = -0.1", "prediction_log.sample"),
            ("sample = nan", "prediction_log.sample"),
            ("hash = ['email']", "prediction_log.hash: \"email\" is in `drop`, too"),
            ("drop = ['']", "prediction_log.drop: \"\" is not a field name"),
            ("dorp = ['a']", "unknown field `dorp`"),
            ("mode = 'sync'", "expected one of `best-effort`, `durable`, `synchronous`"),
        ] {
            let error = with(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn base_name_of_an_element_is_its_tensor() {
        for (column, base) in [
            ("pixels[7]", "pixels"),
            ("pixels", "pixels"),
            ("a[b]", "a[b]"),
            ("a[1][2]", "a[1]"),
            ("a]", "a]"),
        ] {
            assert_eq!(base_name(column), base);
        }
    }
}
