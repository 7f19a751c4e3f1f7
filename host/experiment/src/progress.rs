//! The progress of an experiment, which every node reads from its change: since when the present
//! allocations apply, the step of a canary, what was rolled back, and the event that the change is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::format::{CONTROL, Experiment};

/// Maximum number of periods of equal allocations that are remembered. Units of earlier ones are in
/// no comparison.
pub const MAX_EPOCHS: usize = 64;

/// A period of equal allocations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Start, in milliseconds of Unix time.
    pub from: u64,
    /// The share of each variant that had one.
    pub shares: BTreeMap<String, f64>,
}

/// The step that a canary is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepProgress {
    /// Index of the step, from 0. The number of steps: the canary is complete.
    pub index: usize,
    /// Start of the step, in milliseconds of Unix time. Only tells steps apart: hold times are
    /// measured by monotonic clocks.
    pub since: u64,
}

/// Why a variant was taken out of traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The guardrail and its numbers.
    pub reason: String,
    /// In milliseconds of Unix time.
    pub time: u64,
}

/// What happened: an entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Number of the change, from 1. Events that change nothing have that of the change before.
    pub change: u64,
    /// In milliseconds of Unix time.
    pub time: u64,
    /// `operator`, or the node that acted on its own.
    pub actor: String,
    pub kind: EventKind,
    /// The numbers.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An operator started or resumed the experiment.
    Started,
    /// An operator changed allocations.
    Ramped,
    /// An operator ended the experiment.
    Stopped,
    /// A canary went on to the next step.
    Advanced,
    /// A bandit's allocations followed the rewards.
    Reallocated,
    /// A guardrail was breached.
    RolledBack,
    /// The verdict became another.
    Verdict,
    /// The clock was set back behind the start of the present period, which starts anew.
    ClockSetBack,
}

impl EventKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ramped => "ramped",
            Self::Stopped => "stopped",
            Self::Advanced => "advanced",
            Self::Reallocated => "reallocated",
            Self::RolledBack => "rolled back",
            Self::Verdict => "verdict",
            Self::ClockSetBack => "clock set back",
        }
    }
}

impl Change {
    /// The share of the units that each variant of `experiment` has now.
    #[must_use]
    pub fn shares(&self, experiment: &Experiment) -> BTreeMap<String, f64> {
        if self.stopped {
            let winner = self.winner.as_deref().unwrap_or(CONTROL);
            return BTreeMap::from([(winner.to_owned(), 1.0)]);
        }
        let configured = || experiment.variants.iter().map(|variant| variant.allocation).collect();
        let shares: Vec<f64> = self.allocations(experiment).unwrap_or_else(|_| configured());
        let named = experiment.assignable().map(|(index, variant)| (&variant.name, shares[index]));
        named.filter(|(_, share)| *share > 0.0).map(|(name, share)| (name.clone(), share)).collect()
    }

    /// The periods of equal allocations, the present one last.
    #[must_use]
    pub fn epochs(&self, experiment: &Experiment) -> Vec<Epoch> {
        if self.epochs.is_empty() {
            return vec![Epoch { from: 0, shares: self.shares(experiment) }];
        }
        self.epochs.clone()
    }

    /// This change as the one after `before`: with the digest of the experiment, its event, and a new
    /// period if the allocations are others.
    #[must_use]
    pub fn after(mut self, before: &Self, experiment: &Experiment, mut event: Event) -> Self {
        self.digest = Some(experiment.digest());
        self.epochs = before.epochs(experiment);
        let shares = self.shares(experiment);
        if self.epochs.last().is_none_or(|last| last.shares != shares) {
            self.epochs.push(Epoch { from: event.time, shares });
        }
        let excess = self.epochs.len().saturating_sub(MAX_EPOCHS);
        self.epochs.drain(..excess);
        event.change = before.event.as_ref().map_or(0, |event| event.change) + 1;
        self.event = Some(event);
        self
    }

    /// Takes `variant` out of traffic: control gets its share.
    ///
    /// # Errors
    /// If the variant does not exist.
    pub fn roll_back(
        &self,
        experiment: &Experiment,
        variant: &str,
        rollback: Rollback,
    ) -> Result<Self, String> {
        let mut after = self.ramp(experiment, &BTreeMap::from([(variant.to_owned(), 0.0)]))?;
        after.rolled_back.insert(variant.to_owned(), rollback);
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Experiments;

    fn experiment() -> Experiment {
        let text = r#"
            [experiments.iris]
            model = "iris"
            unit = { header = "x-user-id" }
            variants = [
                { name = "control", component = "a", allocation = 0.5 },
                { name = "treatment", component = "b", allocation = 0.3 },
                { name = "other", component = "c", allocation = 0.2 },
            ]
        "#;
        Experiments::parse(text).unwrap().get("iris").unwrap().clone()
    }

    fn event(time: u64) -> Event {
        let (actor, detail) = ("operator".into(), String::new());
        Event { change: 0, time, actor, kind: EventKind::Ramped, detail }
    }

    #[test]
    fn rolled_back_variant_has_no_share_and_control_gets_it() {
        let experiment = experiment();
        let rollback = Rollback { reason: "errors".into(), time: 7 };
        let after = Change::default().roll_back(&experiment, "treatment", rollback).unwrap();
        assert_eq!(after.allocations["treatment"], 0.0);
        assert_eq!((after.allocations["control"], after.allocations["other"]), (0.8, 0.2));
        assert_eq!(after.rolled_back["treatment"].time, 7);
        assert!(!after.shares(&experiment).contains_key("treatment"));
    }

    #[test]
    fn epoch_starts_when_allocations_change() {
        let experiment = experiment();
        let before = Change::default();
        let same = before.clone().after(&before, &experiment, event(5));
        assert_eq!((same.epochs.len(), same.epochs[0].from), (1, 0));
        let ramp = BTreeMap::from([("treatment".to_owned(), 0.4)]);
        let ramped = same.ramp(&experiment, &ramp).unwrap().after(&same, &experiment, event(9));
        assert_eq!((ramped.epochs.len(), ramped.epochs[1].from), (2, 9));
        assert_eq!(ramped.epochs[1].shares["treatment"], 0.4);
        let stopped = Change { stopped: true, ..ramped.clone() };
        let stopped = stopped.after(&ramped, &experiment, event(11));
        assert_eq!(stopped.epochs[2].shares, BTreeMap::from([("control".to_owned(), 1.0)]));
        let changes: Vec<u64> =
            [&same, &ramped, &stopped].map(|c| c.event.as_ref().unwrap().change).to_vec();
        assert_eq!(changes, [1, 2, 3]);
    }

    #[test]
    fn epochs_are_bounded() {
        let experiment = experiment();
        let mut change = Change::default();
        for index in 0..100_u32 {
            let share = f64::from(index) / 1000.0;
            let ramp = BTreeMap::from([("treatment".to_owned(), share)]);
            let after = change.ramp(&experiment, &ramp).unwrap();
            change = after.after(&change, &experiment, event(u64::from(index) + 1));
        }
        assert_eq!((change.epochs.len(), change.epochs[MAX_EPOCHS - 1].from), (MAX_EPOCHS, 100));
    }
}
