//! Parses the text of a file.

use toml::{Table, Value};

use super::check::{
    check_allocation, check_component, check_header, check_name, check_path, check_sum, check_token,
};
use super::keys::{Keys, Problems};
use super::{CONTROL, Experiment, Invalid, MAX_VARIANTS, Variant};
use crate::unit::Unit;

pub(super) fn experiments(text: &str) -> Result<Vec<Experiment>, Invalid> {
    let file: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |at| 1 + text[..at.start].matches('\n').count());
        Invalid(vec![format!("line {line}: {}", error.message())])
    })?;
    let mut problems = Problems(Vec::new());
    let root = Keys { at: String::new(), table: &file };
    root.known(&["experiments"], &mut problems);
    let mut experiments = Vec::new();
    match file.get("experiments") {
        Some(Value::Table(tables)) if !tables.is_empty() => {
            for (name, value) in tables {
                experiments.extend(experiment(name, value, &mut problems));
            }
        }
        Some(Value::Table(_)) | None => {
            problems.add("experiments", "is missing; write [experiments.<name>]");
        }
        Some(_) => problems.add("experiments", "is not a table; write [experiments.<name>]"),
    }
    experiments.sort_by(|a, b| a.name.cmp(&b.name));
    for (index, Experiment { name, model, .. }) in experiments.iter().enumerate() {
        if let Some(first) = experiments[..index].iter().find(|other| other.model == *model) {
            problems.add(
                format_args!("experiments.{name}.model"),
                format_args!(
                    "\"{model}\" is the model of experiment `{}`; a model has one experiment",
                    first.name
                ),
            );
        }
    }
    if problems.0.is_empty() { Ok(experiments) } else { Err(Invalid(problems.0)) }
}

pub(super) fn experiment(name: &str, value: &Value, problems: &mut Problems) -> Option<Experiment> {
    if let Err(problem) = check_name(name) {
        problems.add("experiments", problem);
    }
    let at = format!("experiments.{}", name.escape_debug());
    let keys = Keys::of(at, value, problems)?;
    keys.known(&["model", "unit", "force", "variants"], problems);
    let model = keys.required("model", check_name, problems);
    let unit = unit(&keys, problems);
    let force = keys.optional("force", check_header, problems);
    let variants = variants(&keys, problems);
    let force = force.map(|name| name.to_ascii_lowercase());
    Some(Experiment { name: name.to_owned(), model: model?, unit: unit?, force, variants })
}

/// How to write a unit.
const UNIT: &str =
    "write { header = \"x-user-id\" }, { cookie = \"uid\" } or { json = \"user.id\" }";

fn unit(experiment: &Keys<'_>, problems: &mut Problems) -> Option<Unit> {
    let at = experiment.key("unit");
    let Some(value) = experiment.table.get("unit") else {
        problems.add(at, format_args!("is missing; {UNIT}"));
        return None;
    };
    let keys = Keys::of(at, value, problems)?;
    keys.known(&["header", "cookie", "json"], problems);
    if keys.table.len() != 1 {
        problems.add(&keys.at, format_args!("must have one key; {UNIT}"));
        return None;
    }
    if let Some(name) = keys.optional("header", check_header, problems) {
        return Some(Unit::Header(name.to_ascii_lowercase()));
    }
    if let Some(name) = keys.optional("cookie", check_token, problems) {
        return Some(Unit::Cookie(name));
    }
    let path = keys.optional("json", check_path, problems)?;
    Some(Unit::Json(path.split('.').map(str::to_owned).collect()))
}

fn variants(experiment: &Keys<'_>, problems: &mut Problems) -> Vec<Variant> {
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
        variants.extend(variant(at, value, problems));
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
    let allocations = variants.iter().filter(|variant| !variant.shadow);
    if let Err(problem) = check_sum(allocations.map(|variant| variant.allocation)) {
        problems.add(&at, problem);
    }
    variants
}

fn variant(at: String, value: &Value, problems: &mut Problems) -> Option<Variant> {
    let keys = Keys::of(at, value, problems)?;
    keys.known(&["name", "component", "model", "allocation", "shadow"], problems);
    let name = keys.required("name", check_name, problems);
    let component = keys.required("component", check_component, problems);
    let model = keys.optional("model", check_name, problems);
    let shadow = match keys.table.get("shadow") {
        None => false,
        Some(Value::Boolean(shadow)) => *shadow,
        Some(_) => {
            problems.add(keys.key("shadow"), "write true or false");
            false
        }
    };
    let allocation = match keys.table.get("allocation") {
        None if shadow => Some(0.0),
        None => {
            problems.add(keys.key("allocation"), "is missing; write a share from 0 to 1");
            None
        }
        Some(value) => match number(value).map(check_allocation) {
            Some(Ok(share)) if share > 0.0 && shadow => {
                let problem = "a shadow has no share of the units; remove `allocation` or `shadow`";
                problems.add(keys.key("allocation"), problem);
                None
            }
            Some(Ok(share)) => Some(share),
            Some(Err(problem)) => {
                problems.add(keys.key("allocation"), problem);
                None
            }
            None => {
                let problem = format!("expected a share from 0 to 1, got {}", value.type_str());
                problems.add(keys.key("allocation"), problem);
                None
            }
        },
    };
    Some(Variant { name: name?, component: component?, model, allocation: allocation?, shadow })
}

#[expect(clippy::cast_precision_loss, reason = "valid shares, 0 and 1, are exact")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}
