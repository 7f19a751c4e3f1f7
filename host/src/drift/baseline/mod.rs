//! `baseline.json`: the distribution of reference data, field by field (`models/README.md`
//! documents the format), read and checked against the `model.toml` next to it.

mod categories;
mod file;
mod moments;
mod summarize;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use spinfer_model_toml::{ModelToml, TensorEntry};
use spinfer_statistics::expected_accuracy::Calibration;

pub use categories::Categories;
pub use file::{BaselineFile, CalibrationEntry, Summary};
pub use moments::ReferenceMoments;
pub use summarize::{PresentValues, summarize_categories, summarize_numbers};

use super::signature;
use crate::inference::{self, SIGNATURE};
use crate::process::read_file::read_file;
use crate::process::text::shortened;

/// Name of the file in a version's folder.
pub const BASELINE: &str = "baseline.json";

/// Maximum size of the file, in bytes: enough for some ten thousand fields.
const MAX_BYTES: u64 = 16 << 20;
/// Maximum number of bins of all fields together: a window has 20 counters of 4 bytes, and two sums
/// of 8 bytes, for each.
pub const MAX_BINS: usize = 65_536;

/// A baseline that matches its model version.
#[derive(Debug, PartialEq)]
pub struct Baseline {
    pub model: String,
    pub version: String,
    /// Number of rows of the reference data.
    pub rows: u64,
    /// Features, in the order of `model.toml`, then outputs.
    pub fields: Vec<BaselineField>,
    pub calibration: Option<CalibratedClasses>,
    /// Hash of the file's contents: windows of different baselines cannot be merged.
    pub fingerprint: String,
}

/// How accuracy is expected from the probabilities of the classes.
#[derive(Debug, PartialEq)]
pub struct CalibratedClasses {
    /// Index of the output of classes in [`Baseline::fields`].
    pub class: usize,
    /// Name of the probability of each class.
    pub probabilities: Vec<String>,
    pub calibration: Calibration,
}

/// A feature or an output.
#[derive(Debug, PartialEq)]
pub struct BaselineField {
    pub name: String,
    pub role: Role,
    pub bins: Bins,
    /// Number of reference values in each bin. Categories have one more bin, for other values.
    pub counts: Vec<u64>,
    /// Number of missing reference values.
    pub missing: u64,
    /// Of numbers, if the file has them and the reference is not constant.
    pub moments: Option<ReferenceMoments>,
    /// Whether all reference values are equal.
    pub constant: bool,
    /// Alternative name in records. Outputs only.
    pub alias: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Feature,
    Output,
}

/// The bins of a field's values.
#[derive(Debug, PartialEq)]
pub enum Bins {
    /// Between ascending edges: bin `i` is `edges[i-1] <= x < edges[i]`.
    Number {
        edges: Vec<f64>,
    },
    Category(Categories),
}

/// Name of the predicted output in responses of the short form, and so in records.
const PREDICTION: &str = "prediction";

impl Baseline {
    /// Reads the baseline of the version in `folder`; `None` if it has none.
    ///
    /// # Errors
    /// Names the file, and the key that is invalid or does not match `model.toml`.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(BASELINE);
        if !path.exists() {
            return Ok(None);
        }
        ensure!(
            folder.join(SIGNATURE).exists(),
            "{}: there is no {SIGNATURE} next to it, which it must match",
            path.display()
        );
        let model = inference::declared(folder)?;
        let text = read_file(&path, MAX_BYTES).and_then(|bytes| Ok(String::from_utf8(bytes)?));
        let baseline = text.and_then(|text| Self::parse(&text, &model));
        baseline.map(Some).with_context(|| path.display().to_string())
    }

    /// Parses the baseline of a version with the `model.toml` in `declared`.
    ///
    /// # Errors
    /// Names the key that is invalid or does not match.
    pub fn parse(text: &str, declared: &ModelToml) -> Result<Self> {
        let file: BaselineFile<Value> = serde_json::from_str(text)?;
        let fingerprint = fingerprint(&file)?;
        let BaselineFile { model, version, rows, features, outputs, calibration } = file;
        let same = |key: &str, given: &str, expected: &str| {
            ensure!(
                given == expected,
                "{key}: is \"{}\", but {SIGNATURE} next to it has \"{expected}\"",
                shortened(given)
            );
            Ok(())
        };
        same("model", &model, &declared.name)?;
        same("version", &version, &declared.version)?;
        let classes = signature::classes(declared);
        let class_names = if declared.classes.is_empty() { &*declared.labels } else { &[] };
        let mut fields = Vec::new();
        for (role, tensors, mut summaries) in [
            (Role::Feature, &declared.inputs, features),
            (Role::Output, &declared.outputs, outputs),
        ] {
            let key = role.key();
            for name in names(tensors, &summaries, role)? {
                // `names` returns keys of `summaries`.
                let Some(summary) = summaries.remove(&name) else { continue };
                let at = || format!("{key}.{name}");
                let summary: Summary = serde_json::from_value(summary).with_context(at)?;
                let labels = if role == Role::Output { class_names } else { &[] };
                let field = BaselineField::new(name.clone(), role, summary, rows, labels, &classes);
                fields.push(field.with_context(at)?);
            }
        }
        let bins: usize = fields.iter().map(|field: &BaselineField| field.counts.len()).sum();
        ensure!(bins <= MAX_BINS, "{bins} bins in all fields; the maximum is {MAX_BINS}");
        name_predictions(&mut fields);
        let calibration = calibration
            .map(|entry| CalibratedClasses::new(entry, &fields, &classes))
            .transpose()
            .context("calibration")?;
        Ok(Self { model, version, rows, fields, calibration, fingerprint })
    }
}

/// A hash of the contents, whatever the order of keys and the white space.
fn fingerprint(file: &BaselineFile<Value>) -> Result<String> {
    let hash = Sha256::digest(serde_json::to_vec(file)?);
    Ok(hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

impl CalibratedClasses {
    fn new(entry: CalibrationEntry, fields: &[BaselineField], classes: &[i64]) -> Result<Self> {
        let CalibrationEntry { class, probabilities, fitted } = entry;
        let mut outputs = fields.iter().enumerate().filter(|(_, f)| f.role == Role::Output);
        let found = outputs.find(|(_, field)| field.name == class);
        let Some((index, Bins::Category(categories))) = found.map(|(i, field)| (i, &field.bins))
        else {
            bail!("class: `{}` is no output with categories", shortened(&class));
        };
        let in_order = classes.iter().enumerate().all(|(at, &c)| categories.of_number(c) == at);
        ensure!(
            in_order && categories.other() == classes.len(),
            "class: the values of outputs.{class} must be the classes, in the order of `labels` in \
             {SIGNATURE}"
        );
        ensure!(
            fitted.is_valid(classes.len()),
            "classes: must have, for each of the {} labels, ascending x, and y that do not descend",
            classes.len()
        );
        let names = (0..classes.len()).map(|at| format!("{probabilities}[{at}]"));
        Ok(Self { class: index, probabilities: names.collect(), calibration: fitted })
    }
}

/// Sets the alias of the output that records of the short form call `prediction`: the class by its
/// name, or the number.
fn name_predictions(fields: &mut [BaselineField]) {
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

/// The names of the fields in `given`, in the order of `model.toml`. Fails if that lacks one of them,
/// or `given` lacks one of its named fields.
fn names(
    tensors: &[TensorEntry],
    given: &BTreeMap<String, Value>,
    role: Role,
) -> Result<Vec<String>> {
    let key = role.key();
    let mut order = Vec::new();
    for tensor in tensors {
        match signature::names_of(tensor) {
            Some(names) => order.extend(names),
            // The shape leaves the number of elements open: take those of the file.
            None => {
                order.extend(given.keys().filter(|name| is_element(name, &tensor.name)).cloned());
            }
        }
        // Strings have no baseline.
        let fields = if tensor.datatype == "BYTES" { &[][..] } else { &tensor.fields };
        for field in fields {
            ensure!(
                given.contains_key(field),
                "{key}: `{field}` is missing, which {SIGNATURE} has; create the baseline again with \
                 `spinfer baseline <data.csv> --model <name> --force`"
            );
        }
    }
    let known: HashSet<&str> = order.iter().map(String::as_str).collect();
    if let Some(unknown) = given.keys().find(|name| !known.contains(name.as_str())) {
        const SHOWN: usize = 8;
        let mut available: Vec<_> =
            order.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        if order.len() > SHOWN {
            available.push(format!("and {} more", order.len() - SHOWN));
        }
        let available = if available.is_empty() { "none".to_owned() } else { available.join(", ") };
        bail!("{key}: {SIGNATURE} has no `{}`; it has {available}", shortened(unknown));
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

impl BaselineField {
    fn new(
        name: String,
        role: Role,
        summary: Summary,
        rows: u64,
        labels: &[String],
        classes: &[i64],
    ) -> Result<Self> {
        let (mut moments, mut constant) = (None, false);
        let (bins, mut counts, count, missing, expected) = match summary {
            Summary::Number {
                edges,
                counts,
                count,
                missing,
                mean,
                std,
                min,
                max,
                means,
                deviations,
            } => {
                let ascend = edges.is_sorted_by(|a, b| a < b);
                ensure!(ascend && edges.iter().all(|e| e.is_finite()), "edges: must ascend");
                let expected = edges.len() + 1;
                constant = min.is_some() && min == max;
                let given = means.zip(deviations).zip(mean.zip(std)).filter(|_| !constant);
                moments = given
                    .map(|((means, deviations), (mean, std))| {
                        ReferenceMoments::new(mean, std, &means, &deviations, &counts)
                    })
                    .transpose()?;
                (Bins::Number { edges }, counts, count, missing, expected)
            }
            Summary::Category { values, counts, count, missing } => {
                let expected = values.len();
                let categories = Categories::new(&values, labels, classes)?;
                (Bins::Category(categories), counts, count, missing, expected)
            }
        };
        ensure!(
            counts.len() == expected,
            "counts: has {} values for {expected} bins",
            counts.len()
        );
        let sum = counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count));
        ensure!(sum == Some(count), "counts: must add up to `count`, {count}");
        ensure!(
            count.checked_add(missing) == Some(rows),
            "count: {count} and `missing` {missing} do not add up to `rows`, {rows}"
        );
        if let Bins::Category(_) = bins {
            counts.push(0);
        }
        Ok(Self { name, role, bins, counts, missing, moments, constant, alias: None })
    }
}

#[cfg(test)]
mod tests;
