//! The variants of an experiment.

use toml::Value;

use super::check::{check_allocation, check_component, check_name, check_sum};
use super::keys::{Keys, Problems};
use super::number::number;
use super::{CONTROL, CanaryStep, Kind, MAX_VARIANTS, SUM_TOLERANCE, Variant};

/// The variants of `experiment`, and the problems that they have in an experiment of this kind.
pub(super) fn variants(
    experiment: &Keys<'_>,
    kind: &Kind,
    problems: &mut Problems,
) -> Vec<Variant> {
    let at = experiment.key("variants");
    let Some(Value::Array(values)) = experiment.table.get("variants") else {
        problems.add(at, format_args!("is missing; write [[{}.variants]]", experiment.at));
        return Vec::new();
    };
    if values.len() > MAX_VARIANTS {
        problems
            .add(at, format_args!("has {} variants; the maximum is {MAX_VARIANTS}", values.len()));
        return Vec::new();
    }
    let mut variants: Vec<Variant> = Vec::new();
    let before = problems.0.len();
    for (index, value) in values.iter().enumerate() {
        let name = value.get("name").and_then(Value::as_str).unwrap_or("no name");
        let at = format!("{at}[{index}] ({})", name.escape_debug());
        variants.extend(variant(at, value, kind, problems));
    }
    for (index, Variant { name, .. }) in variants.iter().enumerate() {
        if variants[..index].iter().any(|other| other.name == *name) {
            problems.add(&at, format_args!("two variants are named `{name}`; rename one"));
        }
    }
    if problems.0.len() > before {
        // Other problems would be consequences of these.
        return variants;
    }
    if !variants.iter().any(|variant| variant.name == CONTROL && !variant.shadow) {
        problems.add(
            &at,
            format_args!(
                "no variant is named `{CONTROL}`, which serves requests without a unit; name one so"
            ),
        );
    }
    if let Kind::Canary { steps } = kind {
        set_first_step(&mut variants, steps);
    }
    if let Err(problem) = check_kind(&variants, kind) {
        problems.add(&at, problem);
        return variants;
    }
    let allocations = variants.iter().filter(|variant| !variant.shadow);
    if let Err(problem) = check_sum(allocations.map(|variant| variant.allocation)) {
        problems.add(&at, problem);
    }
    variants
}

/// Sets the allocations of a canary to those of its first step.
fn set_first_step(variants: &mut [Variant], steps: &[CanaryStep]) {
    let first = steps.first().map_or(0.0, |step| step.allocation);
    for variant in variants.iter_mut().filter(|variant| !variant.shadow) {
        variant.allocation = if variant.name == CONTROL { 1.0 - first } else { first };
    }
}

/// Checks the number of variants and their allocations by the kind of the experiment.
fn check_kind(variants: &[Variant], kind: &Kind) -> Result<(), String> {
    let assignable = variants.iter().filter(|variant| !variant.shadow);
    let count = assignable.clone().count();
    match kind {
        Kind::Experiment => Ok(()),
        Kind::Canary { .. } if count != 2 => Err(format!(
            "a canary has `{CONTROL}` and one treatment, next to shadows; this has {} treatments",
            count.saturating_sub(1)
        )),
        Kind::Canary { .. } => Ok(()),
        Kind::Shadow if count != 1 => Err(format!(
            "an experiment of kind \"shadow\" assigns all units to `{CONTROL}`; write shadow = true \
             in the other variants, or another kind"
        )),
        Kind::Shadow if variants.len() == 1 => {
            Err("an experiment of kind \"shadow\" has at least one variant with shadow = true"
                .to_owned())
        }
        Kind::Shadow => Ok(()),
        Kind::Bandit { minimum_allocation: minimum } => {
            let sum = minimum * f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            if sum > 1.0 + SUM_TOLERANCE {
                return Err(format!(
                    "{count} variants with a minimum_allocation of {minimum} need more than all \
                     units; write a minimum_allocation of at most 1/{count}"
                ));
            }
            match assignable.clone().find(|variant| variant.allocation < minimum - SUM_TOLERANCE) {
                Some(Variant { name, allocation, .. }) => Err(format!(
                    "the allocation {allocation} of `{name}` is less than the minimum_allocation of \
                     {minimum}"
                )),
                None => Ok(()),
            }
        }
    }
}

fn variant(at: String, value: &Value, kind: &Kind, problems: &mut Problems) -> Option<Variant> {
    let keys = Keys::of(at, value, problems)?;
    keys.known(&["name", "component", "model", "allocation", "shadow"], problems);
    let name = keys.required("name", check_name, problems);
    let component = keys.required("component", check_component, problems);
    let model = keys.optional("model", check_name, problems);
    let shadow = keys.flag("shadow", problems).unwrap_or(false);
    let allocation = allocation(&keys, kind, shadow, problems);
    Some(Variant { name: name?, component: component?, model, allocation: allocation?, shadow })
}

fn allocation(
    variant: &Keys<'_>,
    kind: &Kind,
    shadow: bool,
    problems: &mut Problems,
) -> Option<f64> {
    let at = variant.key("allocation");
    let Some(value) = variant.table.get("allocation") else {
        return match kind {
            _ if shadow => Some(0.0),
            // The first step's is set later.
            Kind::Canary { .. } => Some(0.0),
            Kind::Shadow => Some(1.0),
            Kind::Experiment | Kind::Bandit { .. } => {
                problems.add(at, "is missing; write a share from 0 to 1");
                None
            }
        };
    };
    let problem = match number(value).map(check_allocation) {
        Some(Ok(share)) if share > 0.0 && shadow => {
            "a shadow has no share of the units; remove `allocation` or `shadow`".to_owned()
        }
        Some(Ok(_)) if matches!(kind, Kind::Canary { .. }) => {
            "the steps of a canary decide its allocations; remove it".to_owned()
        }
        Some(Ok(share)) => return Some(share),
        Some(Err(problem)) => problem,
        None => format!("expected a share from 0 to 1, got {}", value.type_str()),
    };
    problems.add(at, problem);
    None
}
