//! Compares a window with its baseline: statistics, significance and status, as `GET /drift` and
//! `spinfer drift` report them.

use std::cmp::Ordering;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use spinfer_statistics::population_stability::{LARGE, MODERATE};

use super::alarms::LookResult;
use super::baseline::{Baseline, Role};
use super::expected::{LabelCounts, Performance};
use super::layout::Slots;
use super::saved::SavedWindows;
use super::scores::FieldWindow;
use super::settings::{DriftSettings, WindowShape};
use super::window::WindowSnapshot;
use crate::prediction_log::quality::{QualityGroup, Results};

/// The response of `GET /drift`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub versions: Vec<VersionReport>,
    /// Mounted versions that are not watched.
    pub unwatched: Vec<Unwatched>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwatched {
    pub model: String,
    pub version: Option<String>,
    pub reason: UnwatchedReason,
    /// In a report of several hosts, the addresses of those that do not watch it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnwatchedReason {
    #[serde(rename = "no baseline.json")]
    NoBaseline,
    #[serde(rename = "disabled")]
    Disabled,
    #[serde(rename = "the prediction log is off")]
    NotLogged,
    /// Watched by another host of a merged report, and not by the one that computes it.
    #[serde(rename = "on another host only")]
    OtherHost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "drift")]
    Drift,
    #[serde(rename = "not enough data")]
    NotEnoughData,
    /// No record in the window has the field.
    #[serde(rename = "not logged")]
    NotLogged,
}

impl Status {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Drift => "drift",
            Self::NotEnoughData => "not enough data",
            Self::NotLogged => "not logged",
        }
    }
}

/// The report of one model version.
#[derive(Debug, Serialize, Deserialize)]
pub struct VersionReport {
    pub model: String,
    pub version: String,
    pub status: Status,
    /// Whether a feature is in alarm; `None` without enough data, if none is.
    pub feature_drift: Option<bool>,
    /// Whether an output is in alarm; `None` without enough data, if none is.
    pub prediction_drift: Option<bool>,
    /// Number of rows of the reference data.
    pub baseline_rows: u64,
    pub window: WindowReport,
    /// Probability of any false alarm, ever.
    pub alpha: f64,
    /// Of a classifier with a calibration in the baseline.
    pub performance: Option<Performance>,
    pub features: Vec<FieldReport>,
    pub outputs: Vec<FieldReport>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct WindowReport {
    /// Number of hosts whose windows these are.
    pub hosts: usize,
    pub records: u64,
    /// Number of records without weights that are as precise, to two decimals. That of the records,
    /// unless older ones have less weight.
    pub effective_records: f64,
    /// Of a window of recent records.
    pub max_records: Option<u32>,
    pub max_age_seconds: Option<u64>,
    /// Of a decayed window.
    pub half_life_seconds: Option<f64>,
    /// Number of records from which on there is enough data.
    pub minimum: u32,
    /// Times of the oldest and of the latest record, in RFC 3339.
    pub from: Option<String>,
    pub to: Option<String>,
}

/// The report of one feature or output. What cannot be computed is absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FieldReport {
    pub name: String,
    pub kind: DriftKind,
    pub status: Status,
    /// When the alarm was raised, in RFC 3339: of several hosts the earliest, and absent if only
    /// their merged counts are in alarm.
    pub since: Option<String>,
    /// Number of present values in the window, and the number without weights that is as precise.
    pub n: u64,
    pub effective_n: f64,
    /// Number of missing values in the window.
    pub missing: u64,
    pub missing_share: f64,
    pub baseline_missing_share: f64,
    pub psi: Option<f64>,
    pub psi_reading: Option<Reading>,
    /// For numbers only: categories have no order.
    pub ks: Option<f64>,
    pub js: Option<f64>,
    /// Chi-squared test of the window alone: not corrected for other fields or looks.
    pub chi_squared: Option<ChiSquaredReport>,
    /// For numbers only.
    pub wasserstein: Option<WassersteinReport>,
    /// Why there is no Wasserstein distance of a number.
    pub wasserstein_reason: Option<WassersteinGap>,
    /// p-value of drift, ever: of all starts of the window, corrected for all fields and all looks.
    pub p_value: Option<f64>,
    /// For categories only.
    pub unseen: Option<UnseenReport>,
    /// Display name of each bin.
    pub bins: Vec<String>,
    /// Share of the present values in each bin.
    pub baseline: Vec<f64>,
    pub current: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ChiSquaredReport {
    pub statistic: f64,
    /// Degrees of freedom.
    pub degrees: usize,
    pub p_value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WassersteinReport {
    /// In standard deviations of the reference.
    pub distance: f64,
    /// Maximum difference to the distance of the values themselves.
    pub error: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WassersteinGap {
    #[serde(rename = "the baseline has no means of bins: create it again with `spinfer baseline`")]
    NoMoments,
    #[serde(rename = "constant in the baseline: there is no standard deviation")]
    Constant,
    #[serde(rename = "an infinite value in the window")]
    Infinite,
    #[serde(rename = "not enough data")]
    NotEnoughData,
}

/// The values of categories that the baseline lacks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnseenReport {
    pub count: u64,
    pub share: f64,
    /// Upper bound, at 95 %, of the share in the population of the baseline: the rule of three.
    pub baseline_bound: f64,
    /// Of the window alone: whether such a share is possible if the baseline has none.
    pub p_value: Option<f64>,
    /// The most frequent categories.
    pub most_frequent: Vec<UnseenCount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenCount {
    pub category: String,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftKind {
    Number,
    Category,
}

/// The conventional reading of a PSI. Informative only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    Stable,
    Moderate,
    Large,
}

impl Reading {
    pub(super) fn of(index: f64) -> Self {
        if index < MODERATE {
            Self::Stable
        } else if index <= LARGE {
            Self::Moderate
        } else {
            Self::Large
        }
    }
}

impl VersionReport {
    pub(super) fn new(
        model: &str,
        baseline: &Baseline,
        settings: &DriftSettings,
        slots: &Slots,
        snapshot: &WindowSnapshot,
        look: &LookResult,
    ) -> Self {
        let window = WindowReport::new(settings, snapshot, slots);
        let enough = window.effective_records >= f64::from(settings.minimum);
        let (mut features, mut outputs) = (Vec::new(), Vec::new());
        let looks = look.raised.iter().zip(&look.states).zip(&look.p_values);
        for ((field, slot), ((&raised, state), p_value)) in
            baseline.fields.iter().zip(&slots.fields).zip(looks)
        {
            let of_field = FieldWindow::new(field, slot, snapshot);
            let mut report = of_field.report(settings, enough);
            report.p_value = (report.n + report.missing > 0).then_some(*p_value);
            if raised {
                report.status = Status::Drift;
                report.since = state.since();
            }
            match field.role {
                Role::Feature => features.push(report),
                Role::Output => outputs.push(report),
            }
        }
        let drift = |fields: &[FieldReport]| {
            let any = fields.iter().any(|field| field.status == Status::Drift);
            (enough || any).then_some(any)
        };
        let (feature_drift, prediction_drift) = (drift(&features), drift(&outputs));
        let status = match (feature_drift, prediction_drift) {
            (Some(true), _) | (_, Some(true)) => Status::Drift,
            (Some(false), Some(false)) => Status::Ok,
            (None, _) | (_, None) => Status::NotEnoughData,
        };
        Self {
            model: model.to_owned(),
            version: baseline.version.clone(),
            status,
            feature_drift,
            prediction_drift,
            baseline_rows: baseline.rows,
            window,
            alpha: settings.alpha,
            performance: Performance::new(baseline, slots, snapshot),
            features,
            outputs,
        }
    }

    /// Features, then outputs.
    pub fn fields(&self) -> impl Iterator<Item = &FieldReport> {
        self.features.iter().chain(&self.outputs)
    }
}

impl Report {
    /// Whether the report is of this model and version.
    #[must_use]
    pub fn has(&self, (model, version): (&str, &str)) -> bool {
        self.versions.iter().any(|other| other.model == model && other.version == version)
    }

    /// The names of all models in the report, without duplicates.
    #[must_use]
    pub fn models(&self) -> Vec<&str> {
        let versions = self.versions.iter().map(|version| version.model.as_str());
        let unwatched = self.unwatched.iter().map(|other| other.model.as_str());
        let mut models: Vec<_> = versions.chain(unwatched).collect();
        models.sort_unstable();
        models.dedup();
        models
    }

    /// Adds what the report lacks, and `other` has.
    pub fn add(&mut self, other: Self) {
        for version in other.versions {
            if !self.has((&version.model, &version.version)) {
                self.versions.push(version);
            }
        }
        for unwatched in other.unwatched {
            let Unwatched { model, version, reason, .. } = &unwatched;
            let known = self.unwatched.iter_mut().find(|known| {
                (&known.model, &known.version, &known.reason) == (model, version, reason)
            });
            match known {
                Some(known) => known.hosts.extend(unwatched.hosts),
                None => self.unwatched.push(unwatched),
            }
        }
        self.versions.sort_by(|a, b| by_version((&a.model, &a.version), (&b.model, &b.version)));
    }

    /// Adds the accuracy on the predictions whose labels are known.
    pub fn add_quality(&mut self, quality: &[(QualityGroup, Results)]) {
        for VersionReport { model, version, performance, .. } in &mut self.versions {
            if let Some(performance) = performance {
                performance.add_labels(LabelCounts::of(quality, model, version));
            }
        }
    }

    /// Adds the labels of other hosts.
    pub(super) fn add_labels(&mut self, others: &[SavedWindows]) {
        for VersionReport { model, version, performance, .. } in &mut self.versions {
            let windows = others.iter().flat_map(|other| &other.windows);
            let same = windows.filter(|other| other.model == *model && other.version == *version);
            if let Some(performance) = performance {
                for counts in same.filter_map(|other| other.labels) {
                    performance.add_labels(counts);
                }
            }
        }
    }
}

impl WindowReport {
    fn new(settings: &DriftSettings, snapshot: &WindowSnapshot, slots: &Slots) -> Self {
        let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        let (from, to) = snapshot.span.unzip();
        let (records, age, half_life) = match settings.window {
            WindowShape::Recent { records, age } => (Some(records), Some(age), None),
            WindowShape::Decayed { half_life } => (None, None, Some(half_life)),
        };
        Self {
            hosts: 1,
            records: snapshot.records,
            effective_records: snapshot.effective(slots.records..slots.records + 1),
            max_records: records,
            max_age_seconds: age.map(|age| age.as_secs()),
            half_life_seconds: half_life.map(|half_life| half_life.as_secs_f64()),
            minimum: settings.minimum,
            from: from.map(time),
            to: to.map(time),
        }
    }
}

/// Orders by model, then by version: numeric versions by value, before the others.
pub(super) fn by_version(a: (&str, &str), b: (&str, &str)) -> Ordering {
    let key = |version: &str| version.parse::<u64>().map_or((true, 0), |number| (false, number));
    a.0.cmp(b.0).then(key(a.1).cmp(&key(b.1))).then(a.1.cmp(b.1))
}
