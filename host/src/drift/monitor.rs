//! Counts each record in the window of its model version, and looks for drift at most once a second.
//! Runs on the log's writer thread; a record takes a fraction of a microsecond there, and nothing of a request.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use tracing::{info, warn};
use uuid::Uuid;

use super::alarms::{Alarms, LookResult};
use super::baseline::Baseline;
use super::layout::{CounterLayout, Slots};
use super::report::{Report, Unwatched, UnwatchedReason, VersionReport, by_version};
use super::resume;
use super::saved::{HostId, SavedWindow, SavedWindows};
use super::settings::DriftSettings;
use super::window::{Window, WindowState};
use crate::prediction_log::Observer;
use crate::prediction_log::record::{LogEntry, Predictions, RequestContext};

/// Maximum number of column layouts cached for each version: the short form, tables, tensors with
/// all outputs, and one more.
const MAX_LAYOUTS: usize = 4;
/// Minimum time between looks at one version, as records come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum share of the writer's time for the looks at one version: one in this many.
const LOOK_SHARE: u32 = 20;
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
    id: HostId,
    versions: Vec<Watched>,
    /// Model -> version -> index into `versions`.
    index: HashMap<String, HashMap<String, usize>>,
    unwatched: Vec<Unwatched>,
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

/// A version with a baseline.
#[derive(Debug)]
struct Watched {
    baseline: Arc<Baseline>,
    settings: DriftSettings,
    slots: Slots,
    current: Mutex<Current>,
    alarms: Alarms,
}

#[derive(Debug)]
struct Current {
    window: Window,
    /// The most recent one last.
    layouts: Vec<CounterLayout>,
    /// Time of the record at the last look, and the minimum time until the next.
    looked: Option<(SystemTime, Duration)>,
    /// The share of its requests that each component logs, of those that log a sample.
    samples: Vec<(Arc<str>, f64)>,
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

    /// Model, version, settings, and time of the latest record, of each version with a baseline.
    pub(super) fn watched(
        &self,
    ) -> impl Iterator<Item = (&str, &str, &DriftSettings, Option<SystemTime>)> {
        self.versions().map(|(model, version, watched)| {
            (model, version, &watched.settings, watched.current.lock().window.state().latest())
        })
    }

    /// The report of all versions at the time `now`, or of the versions of one `model`.
    #[must_use]
    pub fn report(&self, now: SystemTime, model: Option<&str>) -> Report {
        self.report_with(now, model, |_, _| Vec::new())
    }

    /// The report of the windows of this host, merged with those of `others`.
    ///
    /// # Errors
    /// Fails if a host is given twice, or has a window of the same version with another baseline or
    /// another shape.
    pub fn merged_report(
        &self,
        now: SystemTime,
        model: Option<&str>,
        others: &[SavedWindows],
    ) -> Result<Report> {
        let mut ids = vec![&self.id];
        for id in others.iter().filter_map(|other| other.host.as_ref()) {
            ensure!(
                !ids.contains(&id),
                "two of the addresses are of one host, whose records would count twice; write the \
                 address of each host once"
            );
            ids.push(id);
        }
        let mut unwatched: Vec<Unwatched> = Vec::new();
        for SavedWindow { model, version, baseline, shape, window, .. } in
            others.iter().flat_map(|other| &other.windows)
        {
            let Some(watched) = self.find(model, version) else {
                let (model, version) = (model.clone(), Some(version.clone()));
                let other = Unwatched { model, version, reason: UnwatchedReason::OtherHost };
                if !unwatched.contains(&other) {
                    unwatched.push(other);
                }
                continue;
            };
            let own = watched.settings.window.to_string();
            ensure!(
                *shape == own,
                "{model} version {version} has another drift window on another host: {shape}, not \
                 {own}; set the same `window` and `window_age` on both"
            );
            ensure!(
                *baseline == watched.baseline.fingerprint && window.fits(watched.slots.size),
                "{model} version {version} has another baseline.json on another host: their windows \
                 have different bins, and cannot be merged"
            );
        }
        let mut report = self.report_with(now, model, |model, version| {
            let windows = others.iter().flat_map(|other| &other.windows);
            windows.filter(|other| other.model == model && other.version == version).collect()
        });
        unwatched.retain(|other| model.is_none_or(|model| model == other.model));
        unwatched.sort_by(|a, b| (&a.model, &a.version).cmp(&(&b.model, &b.version)));
        report.unwatched.extend(unwatched);
        report.add_labels(others);
        Ok(report)
    }

    fn report_with<'a>(
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
        self.find(model, version).map(|watched| watched.alarms.any())
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

    fn find(&self, model: &str, version: &str) -> Option<&Watched> {
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
        let path = log.with_file_name(super::saved::FILE);
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
        // The shares are those of records in the log: the settings may have changed since.
        for watched in &self.versions {
            watched.current.lock().samples.clear();
        }
    }

    fn observe(&self, entry: &LogEntry) {
        let Predictions { model, version, .. } = &*entry.predictions;
        if let Some(watched) = self.find(model, version) {
            let time = entry.context.time;
            if watched.is_in_sample(&entry.context) && watched.count(time, &entry.predictions) {
                watched.look_as_records_come(model, time);
            }
            self.save_in_time(time);
        }
    }

    fn close(&self) {
        self.save();
    }
}

impl Watched {
    fn new(baseline: Arc<Baseline>, settings: &DriftSettings) -> Self {
        let slots = Slots::new(&baseline);
        let window = Window::new(&settings.window, slots.size);
        let current =
            Mutex::new(Current { window, layouts: Vec::new(), looked: None, samples: Vec::new() });
        let alarms = Alarms::new(&baseline, settings);
        Self { baseline, settings: settings.clone(), slots, current, alarms }
    }

    /// Counts the predictions. Returns whether it is time for a look.
    fn count(&self, time: SystemTime, predictions: &Predictions) -> bool {
        let mut current = self.current.lock();
        let Current { window, layouts, looked, .. } = &mut *current;
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
            let (admitted, part) = window.admit(time, predictions.rows - next);
            let rows = rows(next..next + admitted);
            layouts[index].count(&self.baseline, &self.slots, predictions, &rows, part);
            next += admitted;
        }
        looked.is_none_or(|(before, pause)| apart(before, time) >= pause)
    }

    /// Looks for drift, and logs alarms that are raised or cleared.
    fn look_as_records_come(&self, model: &str, time: SystemTime) {
        let start = Instant::now();
        let before = self.alarms.any();
        self.look(time);
        let pause = LOOK_INTERVAL.max(start.elapsed() * LOOK_SHARE);
        self.current.lock().looked = Some((time, pause));
        let version = &self.baseline.version;
        match (before, self.alarms.any()) {
            (false, true) => {
                let fields = self.alarms.raised(&self.baseline).join(", ");
                warn!(model, version, fields, "drift: alarm; `spinfer drift` shows the report");
            }
            (true, false) => info!(model, version, "drift: the alarm is cleared"),
            (true, true) | (false, false) => {}
        }
    }

    /// Whether the record belongs to the sample that the window is of. Of a component that logs a
    /// sample, errors and requests that ask for it are logged with probability 1. Counted as the
    /// others are, they would have too much weight: of them, too, only the sample is counted.
    fn is_in_sample(&self, context: &RequestContext) -> bool {
        let RequestContext { id, component, sample, .. } = context;
        let mut current = self.current.lock();
        let samples = &mut current.samples;
        let known = samples.iter_mut().find(|(other, _)| other == component);
        if *sample < 1.0 {
            match known {
                Some((_, share)) => *share = *sample,
                None => samples.push((Arc::clone(component), *sample)),
            }
            return true;
        }
        known.is_none_or(|(_, share)| fraction(*id) < *share)
    }

    fn look(&self, now: SystemTime) -> LookResult {
        let starts = self.current.lock().window.look(now);
        // Unlocked first: the writer must not wait for the statistics.
        self.alarms.update(&starts, &self.slots, now)
    }

    fn report(&self, model: &str, now: SystemTime, others: &[&SavedWindow]) -> VersionReport {
        let windows: Vec<WindowState> = others.iter().map(|other| other.window.clone()).collect();
        let look = if others.is_empty() {
            self.look(now)
        } else {
            let starts = self.current.lock().window.merged_look(now, &windows);
            let raised: Vec<_> = others.iter().map(|other| other.raised.clone()).collect();
            self.alarms.merged_look(&starts, &self.slots, &raised)
        };
        let snapshot = self.current.lock().window.snapshot(now, &windows);
        let Self { baseline, settings, slots, .. } = self;
        let mut report = VersionReport::new(model, baseline, settings, slots, &snapshot, &look);
        report.window.hosts += others.len();
        report
    }

    fn saved(&self, model: &str, version: &str) -> SavedWindow {
        SavedWindow {
            model: model.to_owned(),
            version: version.to_owned(),
            baseline: self.baseline.fingerprint.clone(),
            shape: self.settings.window.to_string(),
            window: self.current.lock().window.state().clone(),
            raised: self.alarms.state(),
            labels: None,
        }
    }

    fn restore(&self, saved: SavedWindow) {
        let SavedWindow { baseline, shape, window, raised, .. } = saved;
        let same =
            baseline == self.baseline.fingerprint && shape == self.settings.window.to_string();
        if same && self.current.lock().window.restore(window) {
            self.alarms.restore(raised);
        }
    }
}

/// The time between two records, whichever was first: the clock may have been set back.
fn apart(a: SystemTime, b: SystemTime) -> Duration {
    b.duration_since(a).unwrap_or_else(|error| error.duration())
}

/// A number from 0 to 1 of the random bits of a UUIDv7, the last 62: the same whenever it is asked.
fn fraction(id: Uuid) -> f64 {
    /// 2^64.
    const RANGE: f64 = 18_446_744_073_709_551_616.0;
    let (_, random) = id.as_u64_pair();
    #[expect(clippy::cast_precision_loss, reason = "53 of 62 random bits are enough")]
    let random = (random << 2) as f64;
    random / RANGE
}

/// `usize` has at least 32 bits here.
fn rows(rows: Range<u32>) -> Range<usize> {
    rows.start as usize..rows.end as usize
}
