//! Counts each record in the window of its model version, and looks for drift at most once a second.
//! Runs on the log's writer thread; a record takes a fraction of a microsecond there, and nothing of a request.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use tracing::warn;

use super::baseline::Baseline;
use super::report::{Report, Unwatched, UnwatchedReason, by_version};
use super::resume;
use super::saved::{HostId, SavedWindow, SavedWindows, WINDOWS_FILE};
use super::settings::DriftSettings;
use super::watched::{Watched, apart};
use crate::prediction_log::record::{LogEntry, Predictions, RequestContext};
use crate::prediction_log::{Observer, Sample};

/// Minimum time between copies of the windows in the state folder.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

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
    /// Whether a sample of its predictions is logged. Drift is computed from logged records.
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
    pub(super) id: HostId,
    versions: Vec<Watched>,
    /// Model -> version -> index into `versions`.
    index: HashMap<String, HashMap<String, usize>>,
    unwatched: Vec<Unwatched>,
    /// The sample of each component that does not log all requests.
    samples: HashMap<String, Sample>,
    saved: Mutex<Saved>,
}

/// Where the windows are saved, and when they were.
#[derive(Debug, Default)]
struct Saved {
    /// `None` before the log is open.
    path: Option<PathBuf>,
    /// Time of the record after which they were saved.
    time: Option<SystemTime>,
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
                let (model, version) = (name.clone(), version.clone());
                let unwatched = Unwatched { model, version, reason, hosts: Vec::new() };
                if !monitor.unwatched.contains(&unwatched) {
                    monitor.unwatched.push(unwatched);
                }
                continue;
            };
            if let Some(other) = monitor.find(name, &baseline.version) {
                ensure!(
                    other.is_of(baseline, settings),
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

    /// The same monitor, if components log a sample: the share of its requests that each logs.
    #[must_use]
    pub fn with_samples<'a>(self, shares: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let samples = shares.into_iter().filter(|(_, share)| *share < 1.0);
        let samples = samples.map(|(id, share)| (id.to_owned(), Sample::new(share)));
        Self { samples: samples.collect(), ..self }
    }

    /// Whether the record is of the sample that its component logs. Errors and requests that ask for it
    /// are logged outside of the sample, too. Counted like the others, they would have too much weight.
    fn is_in_sample(&self, context: &RequestContext) -> bool {
        let sample = self.samples.get(&*context.component);
        sample.is_none_or(|sample| sample.includes(context.id))
    }

    /// Model, version, settings, and time of the latest record, of each version with a baseline.
    pub(super) fn watched(
        &self,
    ) -> impl Iterator<Item = (&str, &str, &DriftSettings, Option<SystemTime>)> {
        self.versions()
            .map(|(model, version, watched)| (model, version, &watched.settings, watched.latest()))
    }

    /// The report of all versions at the time `now`, or of the versions of one `model`.
    #[must_use]
    pub fn report(&self, now: SystemTime, model: Option<&str>) -> Report {
        self.report_with(now, model, |_, _| Vec::new())
    }

    pub(super) fn report_with<'a>(
        &self,
        now: SystemTime,
        model: Option<&str>,
        others: impl Fn(&str, &str) -> Vec<&'a SavedWindow>,
    ) -> Report {
        let wanted = |name: &str| model.is_none_or(|model| model == name);
        let mut versions: Vec<_> = self
            .versions()
            .filter(|(name, ..)| wanted(name))
            .map(|(name, version, watched)| watched.report(name, now, &others(name, version)))
            .collect();
        versions.sort_by(|a, b| by_version((&a.model, &a.version), (&b.model, &b.version)));
        let unwatched = self.unwatched.iter().filter(|of| wanted(&of.model)).cloned();
        Report { versions, unwatched: unwatched.collect() }
    }

    /// Whether the version is in alarm, since the last look. `None` if it is not watched.
    #[must_use]
    pub fn in_alarm(&self, model: &str, version: &str) -> Option<bool> {
        self.find(model, version).map(Watched::in_alarm)
    }

    /// The windows of all versions, in the form that is saved and merged.
    #[must_use]
    pub fn windows(&self) -> SavedWindows {
        let mut windows: Vec<_> = self
            .versions()
            .map(|(model, version, watched)| watched.saved(model, version))
            .collect();
        windows.sort_by(|a, b| by_version((&a.model, &a.version), (&b.model, &b.version)));
        SavedWindows::new(self.id.clone(), windows)
    }

    /// Model, version and window of each version with a baseline.
    fn versions(&self) -> impl Iterator<Item = (&str, &str, &Watched)> {
        self.index.iter().flat_map(move |(model, versions)| {
            versions.iter().map(move |(version, &index)| {
                (model.as_str(), version.as_str(), &self.versions[index])
            })
        })
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

    pub(super) fn find(&self, model: &str, version: &str) -> Option<&Watched> {
        self.versions.get(*self.index.get(model)?.get(version)?)
    }

    /// Restores the windows that a previous run saved, of versions whose baseline and settings have
    /// not changed since.
    fn restore(&self, saved: SavedWindows) {
        for window in saved.windows {
            if let Some(watched) = self.find(&window.model, &window.version) {
                watched.restore(window);
            }
        }
    }

    fn save(&self) {
        let path = self.saved.lock().path.clone();
        let Some(path) = path.filter(|_| !self.versions.is_empty()) else { return };
        if let Err(error) = self.windows().write(&path) {
            warn!(%error, path = %path.display(), "drift: the windows cannot be saved");
        }
    }

    /// Saves the windows if they were not since [`SAVE_INTERVAL`], by the times of records.
    fn save_in_time(&self, now: SystemTime) {
        let mut saved = self.saved.lock();
        let due = saved.time.is_some_and(|before| apart(before, now) >= SAVE_INTERVAL);
        if saved.time.is_none() || due {
            saved.time = Some(now);
        }
        drop(saved);
        if due {
            self.save();
        }
    }
}

impl Observer for Monitor {
    fn resume(&self, log: &Path) {
        let path = log.with_file_name(WINDOWS_FILE);
        match SavedWindows::read(&path) {
            Ok(saved) => saved.into_iter().for_each(|saved| self.restore(saved)),
            Err(error) => {
                warn!(%error, path = %path.display(), "drift: the saved windows cannot be read");
            }
        }
        self.saved.lock().path = Some(path);
        if let Err(error) = resume::fill(self, log, SystemTime::now()) {
            warn!(
                %error,
                "drift: the windows lack the records since they were saved, as the prediction log \
                 cannot be read"
            );
        }
    }

    fn observe(&self, entry: &LogEntry) {
        let Predictions { model, version, .. } = &*entry.predictions;
        if let Some(watched) = self.find(model, version) {
            let time = entry.context.time;
            if self.is_in_sample(&entry.context) && watched.count(time, &entry.predictions) {
                watched.look_as_records_come(model, time);
            }
            self.save_in_time(time);
        }
    }

    fn close(&self) {
        self.save();
    }
}
