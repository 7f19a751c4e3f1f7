//! `baseline.json`: the distribution of reference data, field by field (`models/README.md` has the
//! format), read and held to the `model.toml` beside it.

mod categories;
mod file;
mod summarize;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use categories::Categories;
pub use file::{BaselineFile, Summary};
pub use summarize::{Values, summarize_categories, summarize_numbers};

use super::signature::{Label, Signature, SignatureTensor};
use crate::process::read_file::read_file;
use crate::process::text::shortened;
use crate::inference::{SIGNATURE};

/// The file, in a version's folder.
pub const BASELINE: &str = "baseline.json";

/// Maximum size of the file, in bytes: some ten thousand fields.
const MAX_BYTES: u64 = 16 << 20;
/// Maximum number of bins of all fields together: a window keeps a count of each in 20 parts, of 4
/// bytes.
pub const MAX_BINS: usize = 65_536;

/// A baseline that fits its model.
#[derive(Debug, PartialEq)]
pub struct Baseline {
    pub model: String,
    pub version: String,
    /// Rows of reference data.
    pub rows: u64,
    /// Features, in the order of the signature, then outputs.
    pub fields: Vec<Field>,
}

/// A feature or an output.
#[derive(Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub role: Role,
    pub bins: Bins,
    /// Values of the reference data in each bin; one more than there are categories, for others.
    pub counts: Vec<u64>,
    pub missing: u64,
    /// Another name it may have in records: outputs only.
    pub alias: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Feature,
    Output,
}

/// Into what values are sorted.
#[derive(Debug, PartialEq)]
pub enum Bins {
    /// Between ascending edges: bin `i` is `edges[i-1] <= x < edges[i]`.
    Number {
        edges: Vec<f64>,
    },
    Category(Categories),
}

/// What a prediction is called in the short form, and so in records.
const PREDICTION: &str = "prediction";

impl Baseline {
    /// Of the version in `folder`, if it has one.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(BASELINE);
        if !path.exists() {
            return Ok(None);
        }
        ensure!(
            folder.join(SIGNATURE).exists(),
            "{}: there is no {SIGNATURE} beside it, which it has to fit",
            path.display()
        );
        let signature = Signature::read(folder)?;
        let text = read_file(&path, MAX_BYTES).and_then(|bytes| Ok(String::from_utf8(bytes)?));
        let baseline = text.and_then(|text| Self::parse(&text, &signature));
        baseline.map(Some).with_context(|| path.display().to_string())
    }

    /// Reads the text of a baseline, which has to be of the version with this `signature`.
    pub fn parse(text: &str, signature: &Signature) -> Result<Self> {
        let file: BaselineFile<Value> = serde_json::from_str(text)?;
        let BaselineFile { model, version, rows, features, outputs } = file;
        let same = |key: &str, given: &str, expected: &Option<String>| {
            let expected = expected.as_deref().unwrap_or_default();
            ensure!(
                given == expected,
                "{key}: it is of \"{}\", and {SIGNATURE} beside it of \"{expected}\"",
                shortened(given)
            );
            Ok(())
        };
        same("model", &model, &signature.name)?;
        same("version", &version, &signature.version)?;
        let classes = signature.classes();
        let mut fields = Vec::new();
        for (role, tensors, mut summaries) in [
            (Role::Feature, &signature.inputs, features),
            (Role::Output, &signature.outputs, outputs),
        ] {
            let key = role.key();
            for name in names(tensors, &summaries, role)? {
                // Every one of them has it.
                let Some(summary) = summaries.remove(&name) else { continue };
                let at = || format!("{key}.{name}");
                let summary: Summary = serde_json::from_value(summary).with_context(at)?;
                let labels = if role == Role::Output { &*signature.labels } else { &[] };
                let field = Field::new(name.clone(), role, summary, rows, labels, &classes);
                fields.push(field.with_context(at)?);
            }
        }
        let bins: usize = fields.iter().map(|field: &Field| field.counts.len()).sum();
        ensure!(bins <= MAX_BINS, "{bins} bins in all fields; at most {MAX_BINS} are counted");
        name_predictions(&mut fields);
        Ok(Self { model, version, rows, fields })
    }
}

/// Records of the short form have a `prediction`: the class by its name, or the number.
fn name_predictions(fields: &mut [Field]) {
    let mut outputs: Vec<_> =
        fields.iter_mut().filter(|field| field.role == Role::Output).collect();
    let classes = outputs.iter().filter(|output| matches!(output.bins, Bins::Category(_))).count();
    let only = outputs.len() == 1;
    for output in &mut outputs {
        if only || classes == 1 && matches!(output.bins, Bins::Category(_)) {
            output.alias = Some(PREDICTION);
        }
    }
}

impl Role {
    /// The key in the file.
    fn key(self) -> &'static str {
        match self {
            Self::Feature => "features",
            Self::Output => "outputs",
        }
    }
}

/// The names of `given`, in the order of the signature, which has to have them all; and all that
/// have a name there have to be given.
fn names(
    tensors: &[SignatureTensor],
    given: &BTreeMap<String, Value>,
    role: Role,
) -> Result<Vec<String>> {
    let key = role.key();
    let mut order = Vec::new();
    for tensor in tensors {
        match tensor.element_names() {
            Some(names) => order.extend(names),
            // As many as there are.
            None => {
                order.extend(given.keys().filter(|name| is_element(name, &tensor.name)).cloned());
            }
        }
        // Strings have no baseline.
        let fields = if tensor.datatype == "BYTES" { &[][..] } else { &tensor.fields };
        for field in fields {
            ensure!(
                given.contains_key(field),
                "{key}: `{field}` is missing, which {SIGNATURE} has; make it again: `spinfer \
                 baseline <data.csv> --model <name> --force`"
            );
        }
    }
    let known: HashSet<&str> = order.iter().map(String::as_str).collect();
    if let Some(unknown) = given.keys().find(|name| !known.contains(name.as_str())) {
        const SHOWN: usize = 8;
        let mut there: Vec<_> = order.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        if order.len() > SHOWN {
            there.push(format!("and {} more", order.len() - SHOWN));
        }
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        bail!("{key}: {SIGNATURE} has no `{}`; it has {there}", shortened(unknown));
    }
    order.retain(|name| given.contains_key(name));
    Ok(order)
}

/// Whether `name` is `tensor` or `tensor[i]`.
fn is_element(name: &str, tensor: &str) -> bool {
    let Some(rest) = name.strip_prefix(tensor) else { return false };
    let index = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    rest.is_empty() || index.is_some_and(|index| index.parse::<usize>().is_ok())
}

impl Field {
    fn new(
        name: String,
        role: Role,
        summary: Summary,
        rows: u64,
        labels: &[Label],
        classes: &[i64],
    ) -> Result<Self> {
        let (bins, mut counts, count, missing, expected) = match summary {
            Summary::Number { edges, counts, count, missing, .. } => {
                let ascend = edges.is_sorted_by(|a, b| a < b);
                ensure!(ascend && edges.iter().all(|e| e.is_finite()), "edges: they do not ascend");
                let expected = edges.len() + 1;
                (Bins::Number { edges }, counts, count, missing, expected)
            }
            Summary::Category { values, counts, count, missing } => {
                let expected = values.len();
                let categories = Categories::new(&values, labels, classes)?;
                (Bins::Category(categories), counts, count, missing, expected)
            }
        };
        ensure!(counts.len() == expected, "counts: {} for {expected} bins", counts.len());
        let sum = counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count));
        ensure!(sum == Some(count), "counts: they do not add up to `count`, {count}");
        ensure!(
            count.checked_add(missing) == Some(rows),
            "count: {count} and {missing} missing are not the {rows} `rows`"
        );
        if let Bins::Category(_) = bins {
            counts.push(0);
        }
        Ok(Self { name, role, bins, counts, missing, alias: None })
    }
}

#[cfg(test)]
mod tests;
