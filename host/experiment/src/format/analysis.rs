//! What the variants of an experiment are compared by: its metric, and its guardrails.

use std::fmt;
use std::time::Duration;

use toml::Value;

use super::keys::{Keys, Problems};

/// Significance level, if the file names none.
pub const ALPHA: f64 = 0.05;
/// Units of each variant before there is a verdict, if the file names no number.
pub const MINIMUM_SAMPLE: u64 = 100;
/// Window of a guardrail, if the file names none.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Requests of each variant in the window before a guardrail can be breached, if the file names no
/// number.
pub const GUARDRAIL_MINIMUM: u64 = 50;
/// Maximum number of guardrails of one experiment.
pub const MAX_GUARDRAILS: usize = 16;

/// Bounds of a guardrail's window.
const WINDOWS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Maximum of a minimum number of units or requests.
const MAX_COUNT: u64 = 1_000_000_000;
/// Maximum length of a covariate's name, in bytes.
const MAX_COVARIATE: usize = 256;

/// What the verdict of an experiment is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub kind: MetricKind,
    pub per: Per,
    /// Differences up to this one, in the metric's unit, do not matter.
    pub margin: Option<f64>,
    /// Name of an input whose value, from before the assignment, reduces the variance (CUPED).
    pub covariate: Option<String>,
}

/// The quantity of a [`Metric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Share of correct labels, of predictions with feedback. More is better.
    Accuracy,
    /// Absolute difference of predicted and true value, with feedback. Less is better.
    ValueError,
    /// Rewards of feedback. More is better.
    Reward,
    /// Share of responses with a status of 500 or more. Less is better.
    ErrorRate,
    /// Duration of requests, in seconds. Less is better.
    Latency,
}

/// What counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// The mean of each unit.
    #[default]
    Unit,
    /// Each prediction.
    Prediction,
}

/// A bound on the difference of a variant from control. A variant that exceeds it is taken out of
/// traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guardrail {
    pub metric: GuardrailMetric,
    pub bound: GuardrailBound,
    /// Period that the metric is computed over, up to now.
    pub window: Duration,
    /// Requests that the variant and control need in the window each; with fewer there is no breach.
    pub minimum: u64,
}

/// The quantity of a [`Guardrail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardrailMetric {
    /// Share of responses with a status of 500 or more.
    ErrorRate,
    /// 95 % quantile of the duration of requests.
    LatencyP95,
    /// Share of correct labels, of predictions with feedback.
    Accuracy,
    /// Mean reward of predictions with feedback.
    Reward,
    /// Largest drift score of the inputs and outputs.
    Drift,
}

/// How far a variant may be from control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GuardrailBound {
    /// variant - control <= this
    MaxIncrease(f64),
    /// control - variant <= this
    MaxDecrease(f64),
    /// variant <= control * this
    MaxRatio(f64),
}

impl MetricKind {
    const ALL: [Self; 5] =
        [Self::Accuracy, Self::ValueError, Self::Reward, Self::ErrorRate, Self::Latency];

    /// The value of the key `kind` of a metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::ValueError => "value_error",
            Self::Reward => "reward",
            Self::ErrorRate => "error_rate",
            Self::Latency => "latency",
        }
    }

    /// Whether a larger value is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::Accuracy | Self::Reward)
    }
}

impl GuardrailMetric {
    const ALL: [Self; 5] =
        [Self::ErrorRate, Self::LatencyP95, Self::Accuracy, Self::Reward, Self::Drift];

    /// The value of the key `metric` of a guardrail.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::LatencyP95 => "latency_p95",
            Self::Accuracy => "accuracy",
            Self::Reward => "reward",
            Self::Drift => "drift",
        }
    }

    /// The key of its bound.
    #[must_use]
    pub fn bound_key(self) -> &'static str {
        match self {
            Self::ErrorRate | Self::Drift => "max_increase",
            Self::LatencyP95 => "max_ratio",
            Self::Accuracy | Self::Reward => "max_decrease",
        }
    }
}

impl GuardrailBound {
    /// The number of the bound.
    #[must_use]
    pub fn value(self) -> f64 {
        let (Self::MaxIncrease(value) | Self::MaxDecrease(value) | Self::MaxRatio(value)) = self;
        value
    }
}

impl Per {
    /// The value of the key `per`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Prediction => "prediction",
        }
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for GuardrailMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `error_rate max_increase 0.02`
impl fmt::Display for Guardrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, bound, .. } = self;
        write!(f, "{metric} {} {}", metric.bound_key(), bound.value())
    }
}

pub(super) fn alpha(experiment: &Keys<'_>, problems: &mut Problems) -> f64 {
    let level = "a significance level above 0 and at most 0.5, such as 0.05";
    let alpha = experiment.number("alpha", level, problems, |level| level > 0.0 && level <= 0.5);
    alpha.unwrap_or(ALPHA)
}

pub(super) fn minimum_sample(experiment: &Keys<'_>, problems: &mut Problems) -> u64 {
    experiment.count("minimum_sample", 1..=MAX_COUNT, problems).unwrap_or(MINIMUM_SAMPLE)
}

pub(super) fn metric(experiment: &Keys<'_>, problems: &mut Problems) -> Option<Metric> {
    let value = experiment.table.get("metric")?;
    let keys = Keys::of(experiment.key("metric"), value, problems)?;
    keys.known(&["kind", "per", "margin", "covariate"], problems);
    let names = MetricKind::ALL.map(MetricKind::name);
    if !keys.table.contains_key("kind") {
        problems
            .add(keys.key("kind"), format_args!("is missing; write one of {}", names.join(", ")));
    }
    let kind = keys.choice("kind", &names, problems);
    let per = match keys.choice("per", &["unit", "prediction"], problems) {
        Some("prediction") => Per::Prediction,
        _ => Per::Unit,
    };
    let covariate = keys.optional("covariate", check_covariate, problems);
    let difference = "a difference of two means, above 0";
    let margin = keys.number("margin", difference, problems, |n| n > 0.0 && n.is_finite());
    let kind = MetricKind::ALL.into_iter().find(|metric| Some(metric.name()) == kind)?;
    Some(Metric { kind, per, margin, covariate })
}

fn check_covariate(name: &str) -> Result<(), String> {
    if (1..=MAX_COVARIATE).contains(&name.len()) {
        return Ok(());
    }
    Err(format!("is not the name of an input; it has {} bytes of 1 to {MAX_COVARIATE}", name.len()))
}

pub(super) fn guardrails(experiment: &Keys<'_>, problems: &mut Problems) -> Vec<Guardrail> {
    let at = experiment.key("guardrails");
    let values = match experiment.table.get("guardrails") {
        None => return Vec::new(),
        Some(Value::Array(values)) if values.len() <= MAX_GUARDRAILS => values,
        Some(Value::Array(values)) => {
            let count = values.len();
            let problem = format_args!("has {count} guardrails; the maximum is {MAX_GUARDRAILS}");
            problems.add(at, problem);
            return Vec::new();
        }
        Some(_) => {
            let write = format_args!("is not a list; write [[{}.guardrails]]", experiment.at);
            problems.add(at, write);
            return Vec::new();
        }
    };
    let mut guardrails: Vec<Guardrail> = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let Some(found) = guardrail(at.clone(), value, problems) else { continue };
        let same = |other: &Guardrail| (other.metric, other.window) == (found.metric, found.window);
        if guardrails.iter().any(same) {
            let metric = found.metric;
            let problem = format_args!("a second guardrail of {metric} over the same window");
            problems.add(at, format_args!("{problem}; remove one"));
        }
        guardrails.push(found);
    }
    guardrails
}

fn guardrail(at: String, value: &Value, problems: &mut Problems) -> Option<Guardrail> {
    const BOUNDS: [&str; 3] = ["max_increase", "max_decrease", "max_ratio"];
    let keys = Keys::of(at, value, problems)?;
    keys.known(&["metric", BOUNDS[0], BOUNDS[1], BOUNDS[2], "window", "minimum"], problems);
    let names = GuardrailMetric::ALL.map(GuardrailMetric::name);
    let window = keys.duration("window", WINDOWS, problems).unwrap_or(WINDOW);
    let minimum = keys.count("minimum", 1..=MAX_COUNT, problems).unwrap_or(GUARDRAIL_MINIMUM);
    if !keys.table.contains_key("metric") {
        let problem = format_args!("is missing; write one of {}", names.join(", "));
        problems.add(keys.key("metric"), problem);
    }
    let metric = keys.choice("metric", &names, problems)?;
    let metric = GuardrailMetric::ALL.into_iter().find(|known| known.name() == metric)?;
    let key = metric.bound_key();
    for other in BOUNDS.into_iter().filter(|other| *other != key) {
        if keys.table.contains_key(other) {
            problems.add(keys.key(other), format_args!("{metric} is bounded by {key}; write that"));
        }
    }
    if !keys.table.contains_key(key) {
        problems.add(keys.key(key), format_args!("is missing; a guardrail of {metric} needs it"));
    }
    let bound = match metric {
        GuardrailMetric::ErrorRate => {
            let expected = "a difference of two shares, at least 0 and less than 1";
            keys.number(key, expected, problems, |n| (0.0..1.0).contains(&n))
                .map(GuardrailBound::MaxIncrease)
        }
        GuardrailMetric::Accuracy => {
            let expected = "a difference of two shares, at least 0 and less than 1";
            keys.number(key, expected, problems, |n| (0.0..1.0).contains(&n))
                .map(GuardrailBound::MaxDecrease)
        }
        GuardrailMetric::Drift => {
            let expected = "a difference of two drift scores, at least 0";
            keys.number(key, expected, problems, |n| (0.0..f64::INFINITY).contains(&n))
                .map(GuardrailBound::MaxIncrease)
        }
        GuardrailMetric::Reward => {
            let expected = "a difference of two mean rewards, at least 0";
            keys.number(key, expected, problems, |n| (0.0..f64::INFINITY).contains(&n))
                .map(GuardrailBound::MaxDecrease)
        }
        GuardrailMetric::LatencyP95 => {
            let expected = "a ratio of two durations, at least 1";
            keys.number(key, expected, problems, |n| (1.0..f64::INFINITY).contains(&n))
                .map(GuardrailBound::MaxRatio)
        }
    };
    Some(Guardrail { metric, bound: bound?, window, minimum })
}
