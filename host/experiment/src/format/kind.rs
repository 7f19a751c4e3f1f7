//! The kind of an experiment: what decides its allocations.

use std::fmt;
use std::time::Duration;

use toml::Value;

use super::keys::{Keys, Problems};

/// Minimum allocation of a bandit's variants, if the file names none.
pub const MINIMUM_ALLOCATION: f64 = 0.05;
/// Maximum number of steps of a canary.
pub const MAX_STEPS: usize = 50;
/// Maximum hold time of a step.
pub const MAX_HOLD: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What decides the allocations of an experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kind {
    /// The file, and changes by an operator (A/B/n).
    #[default]
    Experiment,
    /// Steps, each of which is held while no guardrail is breached. There are two variants: control
    /// and one treatment.
    Canary {
        /// With ascending allocations; at least one.
        steps: Vec<CanaryStep>,
    },
    /// Control serves every unit; the other variants are shadows.
    Shadow,
    /// Rewards: a better variant receives a larger share of the units.
    Bandit {
        /// The smallest share of any variant, above 0, so that each of them can still be measured.
        minimum_allocation: f64,
    },
}

/// A step of a canary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CanaryStep {
    /// The share of the treatment, above 0 and at most 1.
    pub allocation: f64,
    /// Time until the next step; after the last one, until the canary is complete.
    pub hold: Duration,
}

impl Kind {
    /// The value of the key `kind`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Experiment => "experiment",
            Self::Canary { .. } => "canary",
            Self::Shadow => "shadow",
            Self::Bandit { .. } => "bandit",
        }
    }

    /// Whether there is more than one variant that units are assigned to, which a verdict compares.
    #[must_use]
    pub fn compares(&self) -> bool {
        *self != Self::Shadow
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kind of `experiment`; `None` for an invalid one. A key of another kind is a problem.
pub(super) fn kind(experiment: &Keys<'_>, problems: &mut Problems) -> Option<Kind> {
    let kinds = ["experiment", "canary", "shadow", "bandit"];
    let name = match experiment.choice("kind", &kinds, problems) {
        Some(name) => name,
        // What the keys mean depends on the kind.
        None if experiment.table.contains_key("kind") => return None,
        None => "experiment",
    };
    for (key, owner) in [("steps", "canary"), ("minimum_allocation", "bandit")] {
        if name != owner && experiment.table.contains_key(key) {
            let problem =
                format_args!("only a {owner} has it; write kind = \"{owner}\", or remove it");
            problems.add(experiment.key(key), problem);
        }
    }
    if name == "shadow" {
        let keys = ["unavailable", "alpha", "minimum_sample", "metric", "guardrails"];
        for key in keys.into_iter().filter(|key| experiment.table.contains_key(*key)) {
            let problem = "an experiment of kind \"shadow\" assigns all units to control, so there \
                           is nothing to compare; remove it";
            problems.add(experiment.key(key), problem);
        }
    }
    Some(match name {
        "canary" => Kind::Canary { steps: steps(experiment, problems) },
        "shadow" => Kind::Shadow,
        "bandit" => {
            let shares = "a share above 0 and at most 1";
            let share =
                experiment.number("minimum_allocation", shares, problems, |n| n > 0.0 && n <= 1.0);
            Kind::Bandit { minimum_allocation: share.unwrap_or(MINIMUM_ALLOCATION) }
        }
        _ => Kind::Experiment,
    })
}

fn steps(experiment: &Keys<'_>, problems: &mut Problems) -> Vec<CanaryStep> {
    const WRITE: &str = "write steps = [{ allocation = 0.01, hold = \"10m\" }, ...]";
    let at = experiment.key("steps");
    let values = match experiment.table.get("steps") {
        Some(Value::Array(values)) if !values.is_empty() => values,
        Some(_) => {
            problems.add(at, format_args!("is not a list of steps; {WRITE}"));
            return Vec::new();
        }
        None => {
            problems.add(at, format_args!("is missing; {WRITE}"));
            return Vec::new();
        }
    };
    if values.len() > MAX_STEPS {
        let count = values.len();
        problems.add(at, format_args!("has {count} steps; the maximum is {MAX_STEPS}"));
        return Vec::new();
    }
    let mut steps: Vec<CanaryStep> = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let Some(keys) = Keys::of(format!("{at}[{index}]"), value, problems) else { continue };
        keys.known(&["allocation", "hold"], problems);
        let share = "a share above 0 and at most 1";
        let allocation = keys.number("allocation", share, problems, |n| n > 0.0 && n <= 1.0);
        let hold = keys.duration("hold", Duration::from_millis(1)..=MAX_HOLD, problems);
        for (key, is_missing) in [
            ("allocation", !keys.table.contains_key("allocation")),
            ("hold", !keys.table.contains_key("hold")),
        ] {
            if is_missing {
                problems.add(keys.key(key), format_args!("is missing; {WRITE}"));
            }
        }
        let (Some(allocation), Some(hold)) = (allocation, hold) else { continue };
        if let Some(before) = steps.last().filter(|before| before.allocation >= allocation) {
            let before = before.allocation;
            let problem = format_args!(
                "{allocation} is not above {before} of the step before; sort the steps"
            );
            problems.add(keys.key("allocation"), problem);
        }
        steps.push(CanaryStep { allocation, hold });
    }
    steps
}
