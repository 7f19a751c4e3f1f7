//! The alarms of one model version ([`spinfer_statistics::alarm`]).

use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use spinfer_statistics::alarm::{FieldCounts, FieldEvidence, StartEvidence, is_raised, p_values};

use super::baseline::{Baseline, BaselineField, Bins};
use super::layout::{CounterRange, Slots};
use super::settings::DriftSettings;
use super::window::StartCounts;
use crate::prediction_log::times;

#[derive(Debug)]
pub(super) struct Alarms {
    evidence: Vec<FieldEvidence>,
    alpha: f64,
    /// Of each field.
    states: Mutex<Vec<AlarmState>>,
}

/// The alarm of one field: microseconds of Unix time of when it was raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct AlarmState(Option<i64>);

/// What a look found, of each field.
#[derive(Debug)]
pub(super) struct LookResult {
    pub(super) p_values: Vec<f64>,
    /// Whether the field is in alarm.
    pub(super) raised: Vec<bool>,
    /// Since when. Not raised if only the merged counts of several hosts are in alarm.
    pub(super) states: Vec<AlarmState>,
}

impl AlarmState {
    pub(super) fn is_raised(self) -> bool {
        self.0.is_some()
    }

    /// When it was raised, in RFC 3339.
    pub(super) fn since(self) -> Option<String> {
        self.0.map(times::format)
    }

    /// The earlier of two alarms; the one that is raised, if only one is.
    fn earlier(self, other: Self) -> Self {
        Self([self.0, other.0].into_iter().flatten().min())
    }

    fn next(self, p_value: f64, alpha: f64, now: SystemTime) -> Self {
        let raised = is_raised(self.is_raised(), p_value, alpha);
        Self(raised.then(|| self.0.unwrap_or_else(|| times::micros(now))))
    }
}

impl Alarms {
    pub(super) fn new(baseline: &Baseline, settings: &DriftSettings) -> Self {
        let evidence =
            baseline.fields.iter().map(|BaselineField { bins, counts, missing, .. }| match bins {
                Bins::Number { .. } => FieldEvidence::numbers(counts, *missing),
                Bins::Category(categories) => {
                    FieldEvidence::categories(&counts[..categories.other()], *missing)
                }
            });
        let states = Mutex::new(vec![AlarmState::default(); baseline.fields.len()]);
        Self { evidence: evidence.collect(), alpha: settings.alpha, states }
    }

    /// Looks at the merged counts from each start, without a change of the alarms. A field is in
    /// alarm if the merged counts are, or any host: its own alarm, or one of `others`.
    pub(super) fn merged_look(
        &self,
        starts: &[StartCounts],
        slots: &Slots,
        others: &[Vec<AlarmState>],
    ) -> LookResult {
        let p_values = self.p_values(starts, slots);
        let mut states = self.state();
        for other in others {
            for (state, other) in states.iter_mut().zip(other) {
                *state = state.earlier(*other);
            }
        }
        let fields = p_values.iter().zip(&states);
        // Merged windows have no memory: there is no alarm of their own to be held.
        let raised = fields.map(|(&p, state)| state.is_raised() || is_raised(false, p, self.alpha));
        LookResult { raised: raised.collect(), p_values, states }
    }

    /// Looks at the counts from each start; raises and clears alarms. Without records, nothing
    /// changes: silence is no evidence that the drift is over.
    pub(super) fn update(
        &self,
        starts: &[StartCounts],
        slots: &Slots,
        now: SystemTime,
    ) -> LookResult {
        let p_values = self.p_values(starts, slots);
        let mut states = self.states.lock();
        if !starts.is_empty() {
            for (state, &p_value) in states.iter_mut().zip(&p_values) {
                *state = state.next(p_value, self.alpha, now);
            }
        }
        let raised = states.iter().map(|state| state.is_raised()).collect();
        LookResult { p_values, raised, states: states.clone() }
    }

    fn p_values(&self, starts: &[StartCounts], slots: &Slots) -> Vec<f64> {
        let evidence = starts.iter().map(|StartCounts { start, counts }| {
            let fields = self.evidence.iter().zip(&slots.fields);
            let ln =
                fields.map(|(evidence, slot)| evidence.ln(&field_counts(slot, evidence, counts)));
            StartEvidence { start: *start, ln: ln.collect() }
        });
        p_values(&evidence.collect::<Vec<_>>(), self.evidence.len())
    }

    /// Whether any field is in alarm.
    pub(super) fn any(&self) -> bool {
        self.states.lock().iter().any(|state| state.is_raised())
    }

    /// The names of the fields in alarm.
    pub(super) fn raised<'a>(&self, baseline: &'a Baseline) -> Vec<&'a str> {
        let states = self.states.lock();
        let raised = baseline.fields.iter().zip(&*states).filter(|(_, state)| state.is_raised());
        raised.map(|(field, _)| field.name.as_str()).collect()
    }

    pub(super) fn state(&self) -> Vec<AlarmState> {
        self.states.lock().clone()
    }

    pub(super) fn restore(&self, states: Vec<AlarmState>) {
        let mut current = self.states.lock();
        if states.len() == current.len() {
            *current = states;
        }
    }
}

/// The counts of one field in those of a version.
fn field_counts<'a>(
    slot: &CounterRange,
    evidence: &FieldEvidence,
    counts: &'a [u64],
) -> FieldCounts<'a> {
    let bins = counts.get(slot.bins.clone()).unwrap_or_default();
    let missing = counts.get(slot.missing()).copied().unwrap_or_default();
    match bins.split_last() {
        // The last bin of categories is that of the others.
        Some((&unseen, bins)) if evidence.is_of_categories() => {
            FieldCounts { bins, missing, unseen }
        }
        _ => FieldCounts { bins, missing, unseen: 0 },
    }
}
