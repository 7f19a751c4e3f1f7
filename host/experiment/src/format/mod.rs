//! `experiments.toml`: read, and checked with every problem found at once.

use std::fmt;

use toml::{Table, Value};

use crate::unit::Unit;

/// The name of the variant everything is compared with, and that serves what is not assigned.
pub const CONTROL: &str = "control";
/// How far the sum of allocations may be from one: what is lost where tenths are added.
pub const SUM_TOLERANCE: f64 = 1e-9;
/// Variants of one experiment.
pub const MAX_VARIANTS: usize = 100;
/// Bytes of a name: it stands in headers, labels and keys.
pub const MAX_NAME: usize = 64;

/// The experiments of a file, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experiments(Vec<Experiment>);

/// A model that several variants serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    pub name: String,
    /// The public name: the experiment takes `/v2/models/<model>/...`.
    pub model: String,
    pub unit: Unit,
    /// The lower-case name of the header by which testers choose a variant.
    pub force: Option<String>,
    /// In the file's order. One is called [`CONTROL`].
    pub variants: Vec<Variant>,
}

/// One arm of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub name: String,
    /// The component that serves it, by its id in the manifest.
    pub component: String,
    /// The name in the path the component is called with, if it is not the public one.
    pub model: Option<String>,
    /// Its share of the units, from 0 to 1.
    pub allocation: f64,
    /// Whether it receives copies, and its responses are discarded.
    pub shadow: bool,
}

/// Every problem of a file, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Invalid {}

impl Experiments {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
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
                problems.add("experiments", "there is none; write [experiments.<name>]");
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
        if problems.0.is_empty() { Ok(Self(experiments)) } else { Err(Invalid(problems.0)) }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Experiment> {
        self.0.iter()
    }

    /// The experiment `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Experiment> {
        self.0.iter().find(|experiment| experiment.name == name)
    }
}

impl<'a> IntoIterator for &'a Experiments {
    type Item = &'a Experiment;
    type IntoIter = std::slice::Iter<'a, Experiment>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Experiment {
    /// The variants that units are assigned to, and their places in [`Self::variants`].
    pub fn assignable(&self) -> impl Iterator<Item = (usize, &Variant)> {
        self.variants.iter().enumerate().filter(|(_, variant)| !variant.shadow)
    }

    /// The names of the variants that units are assigned to: `control, treatment`.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.assignable().map(|(_, variant)| variant.name.as_str()).collect();
        names.join(", ")
    }

    /// The path `variant` is called with in place of `path`, if it is another.
    #[must_use]
    pub fn path_of(&self, variant: &Variant, path: &str) -> Option<String> {
        let model = variant.model.as_ref().filter(|model| **model != self.model)?;
        let rest = crate::router::rest(path, &self.model)?;
        Some(format!("{}{model}{rest}", crate::router::MODELS))
    }
}

struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, key: impl fmt::Display, problem: impl fmt::Display) {
        self.0.push(format!("{key}: {problem}"));
    }
}

/// A table, and where it stands.
struct Keys<'a> {
    /// As in `experiments.iris`; empty for the file.
    at: String,
    table: &'a Table,
}

impl<'a> Keys<'a> {
    fn of(at: String, value: &'a Value, problems: &mut Problems) -> Option<Self> {
        match value {
            Value::Table(table) => Some(Self { at, table }),
            _ => {
                problems.add(at, "is not a table");
                None
            }
        }
    }

    fn key(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Reports every key that is not among `known`.
    fn known(&self, known: &[&str], problems: &mut Problems) {
        for key in self.table.keys().filter(|key| !known.contains(&key.as_str())) {
            let there_are = known.join(", ");
            let problem = format!("unknown key; there are {there_are}");
            problems.add(self.key(&key.escape_debug().to_string()), problem);
        }
    }

    fn text(&self, key: &str, problems: &mut Problems) -> Option<&'a str> {
        match self.table.get(key)? {
            Value::String(text) => Some(text),
            other => {
                let problem = format!("is {}; write text: \"...\"", other.type_str());
                problems.add(self.key(key), problem);
                None
            }
        }
    }

    /// A text there has to be, which `check` allows.
    fn required(
        &self,
        key: &str,
        check: fn(&str) -> Result<(), String>,
        problems: &mut Problems,
    ) -> Option<String> {
        if !self.table.contains_key(key) {
            problems.add(self.key(key), "is missing");
        }
        self.optional(key, check, problems)
    }

    fn optional(
        &self,
        key: &str,
        check: fn(&str) -> Result<(), String>,
        problems: &mut Problems,
    ) -> Option<String> {
        let text = self.text(key, problems)?;
        if let Err(problem) = check(text) {
            problems.add(self.key(key), problem);
        }
        Some(text.to_owned())
    }
}

fn experiment(name: &str, value: &Value, problems: &mut Problems) -> Option<Experiment> {
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
        problems.add(&keys.at, format_args!("has to have one key; {UNIT}"));
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
        problems.add(at, format_args!("has {}; at most {MAX_VARIANTS}", values.len()));
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
            problems.add(&at, format_args!("two are called `{name}`; rename one"));
        }
    }
    if problems.0.len() > before {
        // The rest would follow from what is reported already.
        return variants;
    }
    if !variants.iter().any(|variant| variant.name == CONTROL && !variant.shadow) {
        problems.add(
            &at,
            format_args!("none is called `{CONTROL}`, which serves what is not assigned; name one"),
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
                let problem = "a shadow has no share of the units; remove it, or `shadow`";
                problems.add(keys.key("allocation"), problem);
                None
            }
            Some(Ok(share)) => Some(share),
            Some(Err(problem)) => {
                problems.add(keys.key("allocation"), problem);
                None
            }
            None => {
                let problem = format!("is {}; write a share from 0 to 1", value.type_str());
                problems.add(keys.key("allocation"), problem);
                None
            }
        },
    };
    Some(Variant { name: name?, component: component?, model, allocation: allocation?, shadow })
}

#[expect(clippy::cast_precision_loss, reason = "what is allowed is exact: 0 and 1")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}

/// A share of the units.
pub(crate) fn check_allocation(share: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&share) {
        // Without the sign that a zero may have.
        Ok(share.abs())
    } else {
        Err(format!("{share} is not a share; write one from 0 to 1"))
    }
}

/// Shares of all units.
pub(crate) fn check_sum(shares: impl Iterator<Item = f64>) -> Result<(), String> {
    let shares: Vec<_> = shares.collect();
    let sum: f64 = shares.iter().sum();
    if (sum - 1.0).abs() <= SUM_TOLERANCE {
        return Ok(());
    }
    // As much of it as is compared.
    let sum = format!("{sum:.9}");
    let sum = sum.trim_end_matches('0').trim_end_matches('.');
    let terms: Vec<_> = shares.iter().map(ToString::to_string).collect();
    Err(format!("the allocations {} sum to {sum}; they have to sum to 1", terms.join(" + ")))
}

/// The name of an experiment, a variant or a model.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let problem = match (name.chars().next(), name.chars().find(|c| !allowed(*c))) {
        (None, _) => "is empty".to_owned(),
        _ if name.len() > MAX_NAME => format!("has {} bytes", name.len()),
        (_, Some(other)) => format!("holds {other:?}"),
        (Some(first), None) if !first.is_ascii_alphanumeric() => format!("begins with {first:?}"),
        (Some(_), None) => return Ok(()),
    };
    Err(format!(
        "\"{}\" {problem}; a name has at most {MAX_NAME} letters, digits, `-`, `_` and `.`, and \
         begins with a letter or a digit",
        name.escape_debug()
    ))
}

fn check_component(id: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == ':';
    if !id.is_empty() && id.chars().all(fits) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is not the id of a component, as in [component.iris-classifier-1]",
        id.escape_debug()
    ))
}

/// A token of HTTP (RFC 9110, 5.6.2).
fn check_token(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(());
    }
    Err(format!("\"{}\" is not the name of a header or a cookie", name.escape_debug()))
}

fn check_header(name: &str) -> Result<(), String> {
    check_token(name)?;
    // The host sets these on every request, or on the response.
    let reserved = ["spin-", "spinfer-"]
        .iter()
        .any(|own| name.get(..own.len()).is_some_and(|start| start.eq_ignore_ascii_case(own)));
    if reserved {
        Err(format!("\"{name}\" is a header of the host; choose another"))
    } else {
        Ok(())
    }
}

fn check_path(path: &str) -> Result<(), String> {
    if path.split('.').all(|step| !step.is_empty()) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is not a path to a field: \"user.id\", or \"rows.0.id\" within an array",
        path.escape_debug()
    ))
}

#[cfg(test)]
mod tests;
