//! The past of an experiment: its verdicts in the journal, and its intervals over time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spinfer_experiment::progress::EventKind;
use spinfer_experiment::{Experiment, key};
use spinfer_statistics::confidence_sequence::Interval;

use super::Supervised;
use super::clock::MAX_SKEW;
use super::runs::run_name;
use crate::experiment::assessment::{Assessment, VerdictState};
use crate::experiment::ledger::{event, record, update};
use crate::storage::key_value::{GrantedStore, StoreError};

/// Maximum number of looks that are remembered.
pub(super) const MAX_LOOKS: usize = 48;

/// An interval of each treatment at one time: what `spinfer experiment show` draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastLook {
    /// Milliseconds of Unix time.
    pub time: u64,
    pub verdict: String,
    /// The difference from control, by treatment.
    pub differences: BTreeMap<String, Interval>,
}

/// The key of the past looks of an experiment.
pub(in crate::experiment) fn looks_key(experiment: &Experiment) -> String {
    format!("{}/looks", key(&run_name(experiment)))
}

impl Supervised<'_> {
    /// Records a new verdict, and the intervals from time to time.
    pub(super) async fn remember(
        &self,
        store: &GrantedStore,
        found: &Assessment,
    ) -> Result<(), StoreError> {
        let name = &self.experiment.name;
        let before = self.router.assessment(name);
        let key_of = |found: &Assessment| (found.verdict.state, found.verdict.variant.clone());
        let is_new = before.as_ref().is_none_or(|before| key_of(before) != key_of(found));
        // A rollback has an entry of its own.
        let is_silent = matches!(
            found.verdict.state,
            VerdictState::Running | VerdictState::NotStarted | VerdictState::RolledBack
        );
        if is_new && !is_silent {
            let verdict = found.verdict.to_string();
            record(store, name, &event(&self.run.actor, EventKind::Verdict, verdict)).await?;
        }
        let differences: BTreeMap<String, Interval> = found
            .variants
            .iter()
            .filter_map(|v| Some((v.name.clone(), v.comparison?.difference)))
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        let verdict = found.verdict.state.name().to_owned();
        let look = PastLook { time: found.time, verdict, differences };
        update(store, looks_key(self.experiment), |looks: &mut Vec<PastLook>| {
            add_look(looks, &look)
        })
        .await
    }
}

/// Removes the looks of after `time`. Returns whether there were any.
pub(super) fn remove_later(looks: &mut Vec<PastLook>, time: u64) -> bool {
    let before = looks.len();
    looks.retain(|look| look.time <= time);
    looks.len() < before
}

/// Adds a look, if its numbers are new and the last one is long enough ago: at most [`MAX_LOOKS`] over
/// the whole experiment. Returns whether the looks have changed.
///
/// Later looks mean that the clock was set back, and go: nothing would be added until it caught up. A
/// clock from before the first look is one of a boot, and changes nothing.
pub(super) fn add_look(looks: &mut Vec<PastLook>, look: &PastLook) -> bool {
    if looks.first().is_some_and(|first| look.time < first.time) {
        return false;
    }
    let is_set_back = remove_later(looks, look.time.saturating_add(MAX_SKEW));
    let is_same =
        |last: &PastLook| (&last.verdict, &last.differences) == (&look.verdict, &look.differences);
    if looks.last().is_some_and(is_same) {
        return is_set_back;
    }
    if let (Some(first), Some(last)) = (looks.first(), looks.last()) {
        let spacing = (last.time.saturating_sub(first.time) / MAX_LOOKS as u64).max(1_000);
        if look.time < last.time.saturating_add(spacing) {
            return is_set_back;
        }
    }
    looks.push(look.clone());
    if looks.len() > MAX_LOOKS {
        let mut index = 0;
        let last = looks.len() - 1;
        looks.retain(|_| {
            index += 1;
            index % 2 == 1 || index == last + 1
        });
    }
    true
}
