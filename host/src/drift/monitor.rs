//! Counts each record in the window of its model version. Runs on the log's writer thread and takes
//! a fraction of a microsecond per record.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use parking_lot::Mutex;
use tracing::warn;

use super::baseline::Baseline;
use super::layout::{CounterLayout, CounterRange, slots};
use super::report::{Report, Unwatched, UnwatchedReason, VersionReport, by_version};
use super::resume;
use super::settings::DriftSettings;
use super::window::Window;
use crate::prediction_log::Observer;
use crate::prediction_log::record::{LogEntry, Predictions};

/// Maximum number of column layouts cached for each version: the short form, tables, tensors with
/// all outputs, and one more.
const MAX_LAYOUTS: usize = 4;

/// A model version that a component mounts, with its baseline and settings.
#[derive(Clone, Debug)]
pub struct WatchedModel {
    /// Name under which the component loads the model.
    pub name: String,
    /// Version in the model's signature.
    pub version: Option<String>,
    pub settings: DriftSettings,
    /// `None` if there is no baseline, or drift detection is disabled.
    pub baseline: Option<Arc<Baseline>>,
    /// Whether its predictions are logged. Drift is computed from logged records.
    pub logged: bool,
}

impl WatchedModel {
    /// Reads the baseline of the version in `folder`.
    ///
    /// # Errors
    /// Fails if the baseline cannot be read, or does not match the version.
    pub fn read(
        name: &str,
        version: Option<&str>,
        folder: &Path,
        settings: &DriftSettings,
    ) -> Result<Self> {
        let baseline = if settings.enabled { Baseline::read(folder)? } else { None };
        Ok(Self {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            settings: settings.clone(),
            baseline: baseline.map(Arc::new),
            logged: true,
        })
    }
}

/// The windows of an application's model versions.
#[derive(Debug, Default)]
pub struct Monitor {
    versions: Vec<Watched>,
    /// Model -> version -> index into `versions`.
    index: HashMap<String, HashMap<String, usize>>,
    unwatched: Vec<Unwatched>,
}

/// A version with a baseline.
#[derive(Debug)]
struct Watched {
    baseline: Arc<Baseline>,
    settings: DriftSettings,
    slots: Vec<CounterRange>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    window: Window,
    /// The most recent one last.
    layouts: Vec<CounterLayout>,
}

impl Monitor {
    /// A monitor of the `models` that components mount. A version that several components mount has
    /// one window.
    ///
    /// # Errors
    /// Fails if a version is mounted with different baselines or settings: the log does not
    /// distinguish their records.
    pub fn new<'a>(models: impl IntoIterator<Item = &'a WatchedModel>) -> Result<Self> {
        let mut monitor = Self::default();
        for model in models {
            let WatchedModel { name, version, settings, baseline, logged } = model;
            let Some(baseline) = baseline.as_ref().filter(|_| *logged) else {
                let reason = match (settings.enabled, logged) {
                    (false, _) => UnwatchedReason::Disabled,
                    (true, false) => UnwatchedReason::NotLogged,
                    (true, true) => UnwatchedReason::NoBaseline,
                };
                let unwatched = Unwatched { model: name.clone(), version: version.clone(), reason };
                if !monitor.unwatched.contains(&unwatched) {
                    monitor.unwatched.push(unwatched);
                }
                continue;
            };
            if let Some(other) = monitor.find(name, &baseline.version) {
                anyhow::ensure!(
                    other.baseline == *baseline && other.settings == *settings,
                    "two components mount version {} of the model `{name}` with different \
                     baseline.json files or drift settings, but the log does not distinguish their \
                     records: mount one folder in both, change the version of one, or set \
                     [component.<id>.tool.spinfer.drift] enabled = false",
                    baseline.version
                );
                continue;
            }
            let versions = monitor.index.entry(name.clone()).or_default();
            versions.insert(baseline.version.clone(), monitor.versions.len());
            monitor.versions.push(Watched::new(Arc::clone(baseline), settings));
        }
        Ok(monitor)
    }

    /// Model, version and settings of each version with a baseline.
    pub(super) fn watched(&self) -> impl Iterator<Item = (&str, &str, &DriftSettings)> {
        self.index.iter().flat_map(move |(model, versions)| {
            versions.iter().map(move |(version, &index)| {
                (model.as_str(), version.as_str(), &self.versions[index].settings)
            })
        })
    }

    /// The report of all versions at the time `now`, or of the versions of one `model`.
    #[must_use]
    pub fn report(&self, now: SystemTime, model: Option<&str>) -> Report {
        let wanted = |name: &str| model.is_none_or(|model| model == name);
        let mut versions: Vec<_> = self
            .index
            .iter()
            .filter(|(name, _)| wanted(name))
            .flat_map(|(name, versions)| versions.values().map(move |&index| (name, index)))
            .map(|(name, index)| self.versions[index].report(name, now))
            .collect();
        versions.sort_by(|a, b| by_version((&a.model, &a.version), (&b.model, &b.version)));
        let unwatched = self.unwatched.iter().filter(|of| wanted(&of.model)).cloned();
        Report { versions, unwatched: unwatched.collect() }
    }

    /// Whether a model of this name is mounted.
    #[must_use]
    pub fn is_mounted(&self, model: &str) -> bool {
        self.index.contains_key(model) || self.unwatched.iter().any(|other| other.model == model)
    }

    /// The names of all mounted models, without duplicates.
    #[must_use]
    pub fn models(&self) -> Vec<&str> {
        let unwatched = self.unwatched.iter().map(|other| other.model.as_str());
        let mut models: Vec<_> = self.index.keys().map(String::as_str).chain(unwatched).collect();
        models.sort_unstable();
        models.dedup();
        models
    }

    fn find(&self, model: &str, version: &str) -> Option<&Watched> {
        self.versions.get(*self.index.get(model)?.get(version)?)
    }
}

impl Observer for Monitor {
    fn resume(&self, log: &Path) {
        if let Err(error) = resume::fill(self, log, SystemTime::now()) {
            warn!(%error, "drift: the windows start empty, as the prediction log cannot be read");
        }
    }

    fn observe(&self, entry: &LogEntry) {
        let Predictions { model, version, .. } = &*entry.predictions;
        if let Some(watched) = self.find(model, version) {
            watched.count(entry.context.time, &entry.predictions);
        }
    }
}

impl Watched {
    fn new(baseline: Arc<Baseline>, settings: &DriftSettings) -> Self {
        let (slots, counters) = slots(&baseline);
        let window = Window::new(settings.window, settings.window_age, counters);
        let current = Mutex::new(Current { window, layouts: Vec::new() });
        Self { baseline, settings: settings.clone(), slots, current }
    }

    fn count(&self, time: SystemTime, predictions: &Predictions) {
        let mut current = self.current.lock();
        let Current { window, layouts } = &mut *current;
        let index = match layouts.iter().rposition(|layout| layout.fits(predictions)) {
            Some(index) => index,
            None => {
                if layouts.len() == MAX_LAYOUTS {
                    layouts.remove(0);
                }
                layouts.push(CounterLayout::new(&self.baseline, predictions));
                layouts.len() - 1
            }
        };
        let mut next = 0;
        while next < predictions.rows {
            let (admitted, counters) = window.admit(time, predictions.rows - next);
            let rows = rows(next..next + admitted);
            layouts[index].count(&self.baseline, &self.slots, predictions, &rows, counters);
            next += admitted;
        }
    }

    fn report(&self, model: &str, now: SystemTime) -> VersionReport {
        let current = self.current.lock();
        let snapshot = current.window.snapshot(now);
        // Unlocked first: the writer must not wait for the statistics.
        drop(current);
        VersionReport::new(model, &self.baseline, &self.settings, &self.slots, &snapshot)
    }
}

/// `usize` has at least 32 bits here.
fn rows(rows: Range<u32>) -> Range<usize> {
    rows.start as usize..rows.end as usize
}
