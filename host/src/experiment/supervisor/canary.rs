//! The steps of a canary.

use std::collections::BTreeMap;
use std::time::Duration;

use spinfer_experiment::format::{CONTROL, duration_text};
use spinfer_experiment::progress::{EventKind, StepProgress};
use spinfer_experiment::{Change, Experiment, Kind};

use super::Next;
use crate::experiment::guardrails::{GuardrailState, GuardrailStatus};
use crate::experiment::text::percent;

/// The next step of a canary: the first at once, and each later one once the one before was `held`
/// for its hold time and every guardrail holds.
pub(super) fn next_step(
    experiment: &Experiment,
    change: &Change,
    guardrails: &[GuardrailStatus],
    (time, held): (u64, Duration),
) -> Next {
    let Kind::Canary { steps } = &experiment.kind else { return None };
    if !change.rolled_back.is_empty() {
        return None;
    }
    let index = match change.step {
        None => 0,
        Some(step) => {
            let is_held = held >= steps.get(step.index)?.hold;
            let holds = guardrails.iter().all(|status| status.state == GuardrailState::Holds);
            if !is_held || !holds {
                return None;
            }
            step.index + 1
        }
    };
    let progress = Some(StepProgress { index, since: time });
    let Some(step) = steps.get(index) else {
        let detail = format!("complete after {} steps", steps.len());
        return Some((Change { step: progress, ..change.clone() }, EventKind::Advanced, detail));
    };
    let (_, treatment) = experiment.assignable().find(|(_, variant)| variant.name != CONTROL)?;
    let shares = BTreeMap::from([(treatment.name.clone(), step.allocation)]);
    let after = Change { step: progress, ..change.ramp(experiment, &shares).ok()? };
    let detail = format!(
        "step {} of {}: {} {}, held for {}",
        index + 1,
        steps.len(),
        treatment.name,
        percent(step.allocation),
        duration_text(step.hold)
    );
    Some((after, EventKind::Advanced, detail))
}
