//! Which requests are in an experiment: started, holdout, namespace, target.

use toml::Value;

use super::check::{check_header, check_name};
use super::keys::{Keys, Problems, shown};
use super::{Experiment, Start};
use crate::hash::NAMESPACE_BUCKETS;

/// Maximum number of values of a target.
pub const MAX_TARGET_VALUES: usize = 1000;

/// A part of a namespace. The units whose place in the namespace is outside of it are not in the
/// experiment, so experiments with disjoint parts of one namespace have no unit in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    pub name: String,
    /// Start of the part, 0 to 1, included.
    pub from: f64,
    /// End of the part, above `from` and at most 1, excluded.
    pub to: f64,
}

/// The requests that an experiment is about; control serves all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Lower-case name of a header.
    pub header: String,
    /// The header has to have one of these values, in the same case. At least one.
    pub values: Vec<String>,
}

impl Namespace {
    /// Whether a unit can be in both parts.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.name == other.name && self.from < other.to && other.from < self.to
    }
}

impl Target {
    /// Whether the value of a header is one of the target's, without spaces around it.
    #[must_use]
    pub fn includes(&self, value: &[u8]) -> bool {
        self.values.iter().any(|wanted| wanted.as_bytes() == value.trim_ascii())
    }
}

/// The problem that experiments overlap in a namespace, if `one` and `other` do.
#[must_use]
pub fn overlap(one: &Experiment, other: &Experiment) -> Option<String> {
    let (part, others) = (one.namespace.as_ref()?, other.namespace.as_ref()?);
    part.overlaps(others).then(|| {
        let Namespace { name, from, to } = part;
        format!(
            "from {from} to {to} of namespace \"{name}\" overlaps {} to {} of experiment `{}`; their \
             parts have to be disjoint",
            others.from, others.to, other.name
        )
    })
}

pub(super) fn start(experiment: &Keys<'_>, problems: &mut Problems) -> Start {
    match experiment.choice("start", &["automatic", "manual"], problems) {
        Some("manual") => Start::Manual,
        _ => Start::Automatic,
    }
}

pub(super) fn holdout(experiment: &Keys<'_>, problems: &mut Problems) -> f64 {
    let share = "a share of the units, at least 0 and less than 1";
    let holdout =
        experiment.number("holdout", share, problems, |share| (0.0..1.0).contains(&share));
    holdout.unwrap_or(0.0)
}

pub(super) fn namespace(experiment: &Keys<'_>, problems: &mut Problems) -> Option<Namespace> {
    const WRITE: &str = "write { name = \"ranking\", from = 0.0, to = 0.5 }";
    let value = experiment.table.get("namespace")?;
    let keys = Keys::of(experiment.key("namespace"), value, problems)?;
    keys.known(&["name", "from", "to"], problems);
    let name = keys.required("name", check_name, problems);
    let mut bound = |key: &str| {
        if !keys.table.contains_key(key) {
            problems.add(keys.key(key), format_args!("is missing; {WRITE}"));
        }
        // A finer bound would promise units that the hash does not tell apart.
        let expected = "a number from 0 to 1 with at most three decimals";
        keys.number(key, expected, problems, |bound| {
            let buckets = bound * f64::from(NAMESPACE_BUCKETS);
            (0.0..=1.0).contains(&bound) && (buckets - buckets.round()).abs() < 1e-9
        })
    };
    let (from, to) = (bound("from")?, bound("to")?);
    if from >= to {
        let problem = format_args!("from {from} to {to} is empty; `from` has to be less than `to`");
        problems.add(&keys.at, problem);
    }
    Some(Namespace { name: name?, from, to })
}

pub(super) fn target(experiment: &Keys<'_>, problems: &mut Problems) -> Option<Target> {
    const WRITE: &str = "write { header = \"x-country\", values = [\"NL\"] }";
    let value = experiment.table.get("target")?;
    let keys = Keys::of(experiment.key("target"), value, problems)?;
    keys.known(&["header", "values"], problems);
    let header = keys.required("header", check_header, problems);
    let at = keys.key("values");
    let Some(Value::Array(values)) = keys.table.get("values").filter(|v| is_filled(v)) else {
        problems.add(at, format_args!("expected a list with at least one value; {WRITE}"));
        return None;
    };
    if values.len() > MAX_TARGET_VALUES {
        let count = values.len();
        problems.add(&at, format_args!("has {count} values; the maximum is {MAX_TARGET_VALUES}"));
    }
    let mut texts = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let text = value.as_str().filter(|text| !text.is_empty() && text.trim() == *text);
        let text = text.filter(|text| text.chars().all(|c| matches!(c, ' '..='~')));
        match text {
            Some(text) => texts.push(text.to_owned()),
            None => problems.add(
                format_args!("{at}[{index}]"),
                format_args!(
                    "{} is not the value of a header: ASCII without spaces around it",
                    shown(value)
                ),
            ),
        }
    }
    Some(Target { header: header?.to_ascii_lowercase(), values: texts })
}

fn is_filled(value: &Value) -> bool {
    value.as_array().is_some_and(|values| !values.is_empty())
}
