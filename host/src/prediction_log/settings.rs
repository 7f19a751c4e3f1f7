//! A component's settings of the prediction log: whether predictions are logged, what a response waits
//! for, the sample, and the fields that are kept, dropped, hashed or rounded.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::rounding::RoundingStep;

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
    /// Names of inputs and outputs whose values are rounded.
    pub round: Vec<(String, RoundingStep)>,
    /// The only names that are logged verbatim; `None`: all without another rule.
    pub keep: Option<Vec<String>>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: LogMode::default(),
            sample: 1.0,
            drop: Vec::new(),
            hash: Vec::new(),
            round: Vec::new(),
            keep: None,
        }
    }
}

/// What a response waits for, from the weakest to the strongest: `docs/prediction-log.md` has what
/// each guarantees and costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogMode {
    /// For nothing: records that do not fit into the queue or on the disk are dropped.
    #[default]
    BestEffort,
    /// For space in the queue. A queued record is kept until it is on disk.
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
    round: Option<BTreeMap<String, f64>>,
    keep: Option<Vec<String>>,
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
        let LogConfig { enabled, mode, sample, drop, hash, round, keep } = config;
        let inherited = |own: &Option<Vec<String>>, from: &[String]| {
            own.clone().unwrap_or_else(|| from.to_vec())
        };
        let settings = Self {
            enabled: enabled.unwrap_or(self.enabled),
            mode: mode.unwrap_or(self.mode),
            sample: sample.unwrap_or(self.sample),
            drop: inherited(drop, &self.drop),
            hash: inherited(hash, &self.hash),
            round: match round {
                Some(round) => steps(round)?,
                None => self.round.clone(),
            },
            keep: keep.clone().or_else(|| self.keep.clone()),
        };
        if !(0.0..=1.0).contains(&settings.sample) {
            let problem = "must be between 0.0 and 1.0; 0.1 logs one request in ten";
            return Err(LogSettingsError { key: "sample", problem: problem.into() });
        }
        settings.check_names()?;
        Ok(settings)
    }

    /// The rules, with the names that each is for.
    #[must_use]
    pub fn rules(&self) -> [(&'static str, Vec<&String>); 4] {
        let Self { enabled: _, mode: _, sample: _, drop, hash, round, keep } = self;
        [
            ("keep", keep.iter().flatten().collect()),
            ("drop", drop.iter().collect()),
            ("hash", hash.iter().collect()),
            ("round", round.iter().map(|(name, _)| name).collect()),
        ]
    }

    /// The rules as a text, which differs between any two settings that record differently.
    #[must_use]
    pub fn redaction(&self) -> String {
        let Self { enabled: _, mode: _, sample: _, drop, hash, round, keep } = self;
        format!("keep {keep:?} drop {drop:?} hash {hash:?} round {round:?}")
    }

    /// Fails for a name that is empty or has two rules.
    fn check_names(&self) -> Result<(), LogSettingsError> {
        let rules = self.rules();
        for (index, &(key, ref names)) in rules.iter().enumerate() {
            if let Some(name) = names.iter().find(|name| name.is_empty()) {
                let problem = format!("{name:?} is not a field name; remove it");
                return Err(LogSettingsError { key, problem });
            }
            for (other, others) in &rules[..index] {
                if let Some(name) = names.iter().find(|name| others.contains(name)) {
                    let problem = format!("{name:?} is in `{other}`, too; remove it from one");
                    return Err(LogSettingsError { key, problem });
                }
            }
        }
        Ok(())
    }
}

/// The steps of `round`.
fn steps(round: &BTreeMap<String, f64>) -> Result<Vec<(String, RoundingStep)>, LogSettingsError> {
    let step = |(name, size): (&String, &f64)| match RoundingStep::new(*size) {
        Some(step) => Ok((name.clone(), step)),
        None => {
            let problem = format!("{name:?}: {size} is not a step; write a number above 0");
            Err(LogSettingsError { key: "round", problem })
        }
    };
    round.iter().map(step).collect()
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
        let settings = with("drop = []\nkeep = []\nround = { age = 10, rate = 0.01 }").unwrap();
        let step = |size| RoundingStep::new(size).unwrap();
        assert_eq!(settings.round, [("age".into(), step(10.0)), ("rate".into(), step(0.01))]);
        assert_eq!(settings.keep.as_deref(), Some(&[][..]));
        let none = settings.with(&toml::from_str("round = {}").unwrap()).unwrap();
        assert_eq!((none.round, none.keep), (Vec::new(), settings.keep));
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
            ("keep = ['email']", "prediction_log.drop: \"email\" is in `keep`, too"),
            ("round = { email = 10 }", "prediction_log.round: \"email\" is in `drop`, too"),
            ("hash = ['a']\nround.a = 1", "prediction_log.round: \"a\" is in `hash`, too"),
            ("keep = ['a', '']", "prediction_log.keep: \"\" is not a field name"),
            ("round.a = 0", "prediction_log.round: \"a\": 0 is not a step; write a number above 0"),
            ("round.a = -1.5", "\"a\": -1.5 is not a step"),
            ("round.a = nan", "\"a\": NaN is not a step"),
            ("round.a = inf", "\"a\": inf is not a step"),
            ("round.a = '10'", "expected f64"),
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
