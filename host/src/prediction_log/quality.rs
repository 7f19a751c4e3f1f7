//! Quality of the logged predictions with feedback, by model, version, experiment and variant. The
//! aggregates are updated as records and feedback are added and deleted, so that metrics are
//! available without reading the file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spinfer_statistics::quality::{ClassQuality, Classification, Regression, Reward};

use super::feedback::{Truth, shortened};
use super::models::ModelInfo;
use super::scalar::{Members, Scalar};

/// Maximum number of groups: a component may log any number of model names.
const MAX_GROUPS: usize = 1000;
/// Maximum number of classes of a group whose signature does not list them.
const MAX_CLASSES: usize = 1000;

/// The group of a record. `experiment` and `variant` are empty without an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualityGroup {
    pub model: String,
    pub version: String,
    pub experiment: String,
    pub variant: String,
}

/// A prediction with its feedback.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Observation {
    Class { truth: String, predicted: String, probabilities: Option<(Vec<f64>, usize)> },
    Number { truth: f64, predicted: f64 },
    Reward(f64),
}

/// A change of the aggregates, to be applied once its transaction is committed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QualityChange {
    pub(super) group: QualityGroup,
    pub(super) observation: Observation,
    /// Whether the observation is added; otherwise it is removed.
    pub(super) added: bool,
}

/// Name of the predicted output in responses of the short form, and so in records.
const PREDICTION: &str = "prediction";

/// Checks that `truth` is possible for a prediction with these `outputs`.
pub(super) fn check(
    info: Option<&ModelInfo>,
    group: &QualityGroup,
    outputs: &Members<'_>,
    truth: &Truth,
) -> Result<(), String> {
    let QualityGroup { model, version, .. } = group;
    let prediction = outputs.get(PREDICTION);
    let labels = info.map_or(&[][..], |info| &info.labels);
    let is_class = !labels.is_empty() || matches!(prediction, Some(Scalar::Text(_)));
    let is_number = !is_class
        && info.is_some()
        && matches!(prediction, Some(Scalar::Integer(_) | Scalar::Number(_)));
    match truth {
        Truth::Label(label) if !labels.is_empty() && !labels.contains(label) => Err(format!(
            "`label`: \"{}\" is not a class of {model} {version}; its classes are {}",
            shortened(label),
            listed(labels)
        )),
        Truth::Label(_) if is_number => {
            Err(format!("`label`: {model} {version} predicts numbers, not classes; write `value`"))
        }
        Truth::Value(_) if is_class => Err(format!(
            "`value`: {model} {version} predicts classes, not numbers; write `label`{}",
            if labels.is_empty() { String::new() } else { format!(", one of {}", listed(labels)) }
        )),
        _ => Ok(()),
    }
}

/// The first classes, for a message.
fn listed(labels: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = labels.iter().take(SHOWN).map(|label| shortened(label)).collect::<Vec<_>>();
    if labels.len() > SHOWN {
        text.push(format!("... ({} in all)", labels.len()));
    }
    text.join(", ")
}

/// The observation of a prediction with its `truth`. `None` if there is nothing to compare: an
/// unknown class, or a record without a prediction.
pub(super) fn observe(
    info: Option<&ModelInfo>,
    outputs: &Members<'_>,
    truth: &Truth,
) -> Option<Observation> {
    match truth {
        Truth::Reward(reward) => Some(Observation::Reward(*reward)),
        Truth::Value(truth) => {
            let predicted = number(outputs.get(PREDICTION)?)?;
            Some(Observation::Number { truth: *truth, predicted })
        }
        Truth::Label(truth) => {
            let labels = info.map_or(&[][..], |info| &info.labels);
            if !labels.is_empty() && !labels.contains(truth) {
                return None;
            }
            let predicted = class(outputs.get(PREDICTION)?)?.into_owned();
            let probabilities = info.and_then(|info| probabilities(info, outputs, truth));
            Some(Observation::Class { truth: truth.clone(), predicted, probabilities })
        }
    }
}

fn class<'a>(prediction: &'a Scalar<'_>) -> Option<Cow<'a, str>> {
    match prediction {
        Scalar::Text(text) => Some(Cow::Borrowed(text)),
        Scalar::Integer(number) => Some(number.to_string().into()),
        // A number without a fraction is formatted like an integer.
        Scalar::Number(number) => Some(number.to_string().into()),
        Scalar::Boolean(value) => Some(value.to_string().into()),
        Scalar::Null | Scalar::Nested => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a prediction, rounded beyond 2^53")]
fn number(value: &Scalar<'_>) -> Option<f64> {
    match value {
        Scalar::Integer(number) => Some(*number as f64),
        Scalar::Number(number) => Some(*number),
        _ => None,
    }
}

/// The probabilities of all classes, and the index of the true one.
fn probabilities(
    info: &ModelInfo,
    outputs: &Members<'_>,
    truth: &str,
) -> Option<(Vec<f64>, usize)> {
    let (name, truth) = (info.probabilities.as_ref()?, info.class(truth)?);
    let probability = |index| outputs.get(&format!("{name}[{index}]")).and_then(number);
    let all: Option<Vec<f64>> = (0..info.labels.len()).map(probability).collect();
    Some((all?, truth))
}

/// The aggregates of all groups.
#[derive(Clone, Debug, Default)]
pub struct Quality(BTreeMap<QualityGroup, Aggregates>);

#[derive(Clone, Debug, Default)]
struct Aggregates {
    classes: Classification,
    numbers: Regression,
    rewards: Reward,
}

impl Quality {
    pub(super) fn apply(&mut self, change: &QualityChange) {
        let QualityChange { group, observation, added } = change;
        if !self.0.contains_key(group) {
            if !added || self.0.len() >= MAX_GROUPS {
                return;
            }
            self.0.insert(group.clone(), Aggregates::default());
        }
        let Some(aggregates) = self.0.get_mut(group) else { return };
        aggregates.apply(observation, *added);
        if aggregates.is_empty() {
            self.0.remove(group);
        }
    }

    /// The results, by group.
    #[must_use]
    pub fn results(&self) -> Vec<(QualityGroup, Results)> {
        self.0.iter().map(|(group, aggregates)| (group.clone(), aggregates.results())).collect()
    }
}

impl Aggregates {
    fn apply(&mut self, observation: &Observation, added: bool) {
        match observation {
            Observation::Class { truth, predicted, probabilities } => {
                let probabilities = probabilities.as_ref().map(|(all, truth)| (&all[..], *truth));
                let known = [truth, predicted].iter().all(|class| self.classes.has_class(class));
                if added && (known || self.classes.classes() + 2 <= MAX_CLASSES) {
                    self.classes.add(truth, predicted, probabilities);
                } else if !added && known {
                    self.classes.remove(truth, predicted, probabilities);
                }
            }
            Observation::Number { truth, predicted } if added => {
                self.numbers.add(*truth, *predicted);
            }
            Observation::Number { truth, predicted } => self.numbers.remove(*truth, *predicted),
            Observation::Reward(reward) if added => self.rewards.add(*reward),
            Observation::Reward(reward) => self.rewards.remove(*reward),
        }
    }

    fn is_empty(&self) -> bool {
        self.classes.n() + self.numbers.n() + self.rewards.n() == 0
    }

    fn results(&self) -> Results {
        let Self { classes, numbers, rewards } = self;
        Results {
            classification: (classes.n() > 0).then(|| ClassificationResults {
                n: classes.n(),
                accuracy: classes.accuracy(),
                macro_precision: classes.macro_precision(),
                macro_recall: classes.macro_recall(),
                brier_score: classes.brier(),
                brier_n: classes.brier_n(),
                classes: classes.per_class(),
            }),
            regression: (numbers.n() > 0).then(|| RegressionResults {
                n: numbers.n(),
                mean_absolute_error: numbers.mean_absolute_error(),
                root_mean_squared_error: numbers.root_mean_squared_error(),
            }),
            reward: (rewards.n() > 0)
                .then(|| RewardResults { n: rewards.n(), mean: rewards.mean() }),
        }
    }
}

/// Quality of one group. A part is `None` without feedback of its kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub classification: Option<ClassificationResults>,
    pub regression: Option<RegressionResults>,
    pub reward: Option<RewardResults>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassificationResults {
    /// Number of predictions with a true label.
    pub n: u64,
    pub accuracy: Option<f64>,
    pub macro_precision: Option<f64>,
    pub macro_recall: Option<f64>,
    pub brier_score: Option<f64>,
    /// Number of those whose probabilities are logged.
    pub brier_n: u64,
    pub classes: Vec<ClassQuality>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegressionResults {
    /// Number of predictions with a true value.
    pub n: u64,
    pub mean_absolute_error: Option<f64>,
    pub root_mean_squared_error: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardResults {
    /// Number of predictions with a reward.
    pub n: u64,
    pub mean: Option<f64>,
}

impl Results {
    /// Metric name and value of each result, and the number of predictions it is computed from.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, f64, u64)> {
        let Self { classification, regression, reward } = self;
        let mut all = Vec::new();
        if let Some(results) = classification {
            all.extend([
                ("accuracy", results.accuracy, results.n),
                ("macro_precision", results.macro_precision, results.n),
                ("macro_recall", results.macro_recall, results.n),
                ("brier_score", results.brier_score, results.brier_n),
            ]);
        }
        if let Some(results) = regression {
            all.extend([
                ("mean_absolute_error", results.mean_absolute_error, results.n),
                ("root_mean_squared_error", results.root_mean_squared_error, results.n),
            ]);
        }
        if let Some(results) = reward {
            all.push(("mean_reward", results.mean, results.n));
        }
        all.into_iter().filter_map(|(name, value, n)| Some((name, value?, n))).collect()
    }
}
