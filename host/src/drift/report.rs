//! Compares a window with its baseline: statistics, significance and status, as `GET /drift` and
//! `spinfer drift` report them.

use std::cmp::Ordering;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use spinfer_statistics::jensen_shannon;
use spinfer_statistics::kolmogorov_smirnov::binned;
use spinfer_statistics::multiple_testing::holm;
use spinfer_statistics::population_stability::{LARGE, MODERATE, Psi, psi};
use spinfer_statistics::share::{self, Share};

use super::baseline::{Baseline, BaselineField, Bins, Role};
use super::layout::CounterRange;
use super::settings::DriftSettings;
use super::window::WindowSnapshot;

/// The response of `GET /drift`.
#[derive(Debug, Serialize, Deserialize)]
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnwatchedReason {
    #[serde(rename = "no baseline.json")]
    NoBaseline,
    #[serde(rename = "disabled")]
    Disabled,
    #[serde(rename = "the prediction log is off")]
    NotLogged,
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
    /// Whether a feature drifted; `None` without enough data.
    pub feature_drift: Option<bool>,
    /// Whether an output drifted; `None` without enough data.
    pub prediction_drift: Option<bool>,
    /// Number of rows of the reference data.
    pub baseline_rows: u64,
    pub window: WindowReport,
    pub alpha: f64,
    pub features: Vec<FieldReport>,
    pub outputs: Vec<FieldReport>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct WindowReport {
    pub records: u64,
    pub max_records: u32,
    pub max_age_seconds: u64,
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
    /// Number of present values in the window.
    pub n: u64,
    /// Number of missing values in the window.
    pub missing: u64,
    pub missing_share: f64,
    pub baseline_missing_share: f64,
    pub psi: Option<f64>,
    pub psi_reading: Option<Reading>,
    /// For numbers only: categories have no order.
    pub ks: Option<f64>,
    pub js: Option<f64>,
    /// The smaller p-value of PSI and of the missing share, corrected for all tests of the version.
    pub p_value: Option<f64>,
    /// Display name of each bin.
    pub bins: Vec<String>,
    /// Share of the present values in each bin.
    pub baseline: Vec<f64>,
    pub current: Vec<f64>,
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
    fn of(index: f64) -> Self {
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
        slots: &[CounterRange],
        snapshot: &WindowSnapshot,
    ) -> Self {
        let enough = snapshot.records >= u64::from(settings.minimum);
        let mut compared: Vec<Compared> = baseline
            .fields
            .iter()
            .zip(slots)
            .map(|(field, slot)| Compared::new(field, slot, snapshot, settings, enough))
            .collect();
        correct(&mut compared);
        let (mut features, mut outputs) = (Vec::new(), Vec::new());
        for (compared, field) in compared.into_iter().zip(&baseline.fields) {
            match field.role {
                Role::Feature => features.push(compared.finish(settings)),
                Role::Output => outputs.push(compared.finish(settings)),
            }
        }
        let drift = |fields: &[FieldReport]| {
            enough.then(|| fields.iter().any(|field| field.status == Status::Drift))
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
            window: WindowReport::new(settings, snapshot),
            alpha: settings.alpha,
            features,
            outputs,
        }
    }

    /// Features, then outputs.
    pub fn fields(&self) -> impl Iterator<Item = &FieldReport> {
        self.features.iter().chain(&self.outputs)
    }
}

impl WindowReport {
    fn new(settings: &DriftSettings, snapshot: &WindowSnapshot) -> Self {
        let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        let (from, to) = snapshot.span.unzip();
        Self {
            records: snapshot.records,
            max_records: settings.window,
            max_age_seconds: settings.window_age.as_secs(),
            minimum: settings.minimum,
            from: from.map(time),
            to: to.map(time),
        }
    }
}

/// A field's report, and the p-values of its tests.
struct Compared {
    report: FieldReport,
    psi_p_value: Option<f64>,
    missing_p_value: Option<f64>,
}

impl Compared {
    /// `enough` is whether the window has the minimum number of records.
    fn new(
        field: &BaselineField,
        slot: &CounterRange,
        snapshot: &WindowSnapshot,
        settings: &DriftSettings,
        enough: bool,
    ) -> Self {
        let counts = snapshot.counts.get(slot.bins.clone()).unwrap_or_default();
        let missing = snapshot.counts.get(slot.missing()).copied().unwrap_or_default();
        let n: u64 = counts.iter().sum();
        let of_baseline =
            Share { count: field.missing, of: field.counts.iter().sum::<u64>() + field.missing };
        let of_window = Share { count: missing, of: n + missing };
        let minimum = u64::from(settings.minimum);
        let psi = if enough && n >= minimum { psi(&field.counts, counts) } else { None };
        let numbers = matches!(field.bins, Bins::Number { .. });
        let ks = if numbers { psi.and_then(|_| binned(&field.counts, counts)) } else { None };
        let js = psi.and_then(|_| jensen_shannon::distance(&field.counts, counts));
        // Without missing values in either, the test cannot be significant, and so is not one to
        // correct for (Tarone 1990).
        let any = of_baseline.count + of_window.count > 0;
        let tested = enough && any && of_window.of >= minimum;
        let missing_p_value = if tested { share::p_value(of_baseline, of_window) } else { None };
        let status = match of_window.of {
            0 if enough => Status::NotLogged,
            _ if psi.is_none() => Status::NotEnoughData,
            _ => Status::Ok,
        };
        let index = psi.map(|psi: Psi| psi.index);
        let report = FieldReport {
            name: field.name.clone(),
            kind: if numbers { DriftKind::Number } else { DriftKind::Category },
            status,
            n,
            missing,
            missing_share: of_window.value(),
            baseline_missing_share: of_baseline.value(),
            psi: index,
            psi_reading: index.map(Reading::of),
            ks,
            js,
            p_value: None,
            bins: bin_names(&field.bins),
            baseline: shares(&field.counts),
            current: shares(counts),
        };
        Self { report, psi_p_value: psi.map(|psi| psi.p_value), missing_p_value }
    }

    fn finish(mut self, settings: &DriftSettings) -> FieldReport {
        let p_values = self.psi_p_value.into_iter().chain(self.missing_p_value);
        self.report.p_value = p_values.reduce(f64::min);
        if self.report.p_value.is_some_and(|p| p < settings.alpha) {
            self.report.status = Status::Drift;
        }
        self.report
    }
}

/// Corrects the p-values of all tests of a version for multiple testing.
fn correct(compared: &mut [Compared]) {
    let tests = || compared.iter().flat_map(|c| [c.psi_p_value, c.missing_p_value]).flatten();
    let mut corrected = holm(&tests().collect::<Vec<_>>()).into_iter();
    for Compared { psi_p_value, missing_p_value, .. } in compared {
        for p_value in [psi_p_value, missing_p_value] {
            if p_value.is_some() {
                *p_value = corrected.next();
            }
        }
    }
}

fn bin_names(bins: &Bins) -> Vec<String> {
    match bins {
        Bins::Number { edges } => {
            let Some((first, last)) = edges.first().zip(edges.last()) else {
                return vec!["any".to_owned()];
            };
            let inner = edges.windows(2).map(|pair| format!("{} to {}", pair[0], pair[1]));
            let below = std::iter::once(format!("below {first}"));
            below.chain(inner).chain([format!("{last} and above")]).collect()
        }
        Bins::Category(categories) => {
            categories.shown.iter().cloned().chain(["other".to_owned()]).collect()
        }
    }
}

/// Shares of the sum; all zero if the sum is.
fn shares(counts: &[u64]) -> Vec<f64> {
    let of = counts.iter().sum();
    counts.iter().map(|&count| Share { count, of }.value()).collect()
}

/// Orders by model, then by version: numeric versions by value, before the others.
pub(super) fn by_version(a: (&str, &str), b: (&str, &str)) -> Ordering {
    let key = |version: &str| version.parse::<u64>().map_or((true, 0), |number| (false, number));
    a.0.cmp(b.0).then(key(a.1).cmp(&key(b.1))).then(a.1.cmp(b.1))
}
