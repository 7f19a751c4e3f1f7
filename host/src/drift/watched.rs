//! A watched model version: its window, its alarms, and when it is looked at.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::alarms::{Alarms, LookResult};
use super::baseline::Baseline;
use super::layout::{CounterLayout, Slots};
use super::report::VersionReport;
use super::saved::SavedWindow;
use super::settings::DriftSettings;
use super::window::{Window, WindowState};
use crate::prediction_log::record::Predictions;

/// Maximum number of column layouts cached for each version: the short form, tables, tensors with
/// all outputs, and one more.
const MAX_LAYOUTS: usize = 4;
/// Minimum time between looks at one version, as records come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum share of the writer's time for the looks at one version: one in this many.
const LOOK_SHARE: u32 = 20;

/// A version with a baseline.
#[derive(Debug)]
pub(super) struct Watched {
    baseline: Arc<Baseline>,
    pub(super) settings: DriftSettings,
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
}

impl Watched {
    pub(super) fn new(baseline: Arc<Baseline>, settings: &DriftSettings) -> Self {
        let slots = Slots::new(&baseline);
        let window = Window::new(&settings.window, slots.size);
        let current = Mutex::new(Current { window, layouts: Vec::new(), looked: None });
        let alarms = Alarms::new(&baseline, settings);
        Self { baseline, settings: settings.clone(), slots, current, alarms }
    }

    /// Counts the predictions. Returns whether it is time for a look.
    pub(super) fn count(&self, time: SystemTime, predictions: &Predictions) -> bool {
        let mut current = self.current.lock();
        let Current { window, layouts, looked } = &mut *current;
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
    pub(super) fn look_as_records_come(&self, model: &str, time: SystemTime) {
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

    fn look(&self, now: SystemTime) -> LookResult {
        let starts = self.current.lock().window.look(now);
        // Unlocked first: the writer must not wait for the statistics.
        self.alarms.update(&starts, &self.slots, now)
    }

    /// The report of the window at the time `now`, merged with those of `others`.
    pub(super) fn report(
        &self,
        model: &str,
        now: SystemTime,
        others: &[&SavedWindow],
    ) -> VersionReport {
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

    /// Whether any field is in alarm, since the last look.
    pub(super) fn in_alarm(&self) -> bool {
        self.alarms.any()
    }

    /// Time of the latest record.
    pub(super) fn latest(&self) -> Option<SystemTime> {
        self.current.lock().window.state().latest()
    }

    /// The window and the alarms, in the form that is saved and merged.
    pub(super) fn saved(&self, model: &str, version: &str) -> SavedWindow {
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

    /// Checks that the window of another host can be merged with this one.
    ///
    /// # Errors
    /// It has another baseline or another shape.
    pub(super) fn check_mergeable(&self, other: &SavedWindow) -> Result<()> {
        let SavedWindow { model, version, baseline, shape, window, .. } = other;
        let own = self.settings.window.to_string();
        ensure!(
            *shape == own,
            "{model} version {version} has another drift window on another host: {shape}, not \
             {own}; set the same `window` and `window_age` on both"
        );
        ensure!(
            *baseline == self.baseline.fingerprint && window.fits(self.slots.size),
            "{model} version {version} has another baseline.json on another host: their windows \
             have different bins, and cannot be merged"
        );
        Ok(())
    }

    /// Whether it has this baseline and these settings.
    pub(super) fn is_of(&self, baseline: &Baseline, settings: &DriftSettings) -> bool {
        *self.baseline == *baseline && self.settings == *settings
    }

    /// Takes over what a previous run saved, unless the baseline or the window has changed since.
    pub(super) fn restore(&self, saved: SavedWindow) {
        let SavedWindow { baseline, shape, window, raised, .. } = saved;
        let same =
            baseline == self.baseline.fingerprint && shape == self.settings.window.to_string();
        if same && self.current.lock().window.restore(window) {
            self.alarms.restore(raised);
        }
    }
}

/// The time between two records, whichever was first: the clock may have been set back.
pub(super) fn apart(a: SystemTime, b: SystemTime) -> Duration {
    b.duration_since(a).unwrap_or_else(|error| error.duration())
}

/// `usize` has at least 32 bits here.
fn rows(rows: Range<u32>) -> Range<usize> {
    rows.start as usize..rows.end as usize
}
