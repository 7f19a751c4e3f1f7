//! Checks that the fields that `prediction_log` has rules for exist: a misspelt name would leave its
//! field in the log, or out of it.

use std::path::Path;

use spinfer_model_toml::ModelToml;
use tracing::warn;

use crate::inference::SIGNATURE;
use crate::prediction_log::settings::{LogSettings, base_name};

/// Outputs that `model-sdk` logs in addition to those of a model.
const APPENDED_OUTPUTS: [&str; 2] = ["prediction", "probability"];
/// Attributes that `model-sdk` logs.
const ATTRIBUTES: [&str; 4] = ["operation", "id", "content_type", "content_length"];
/// The rule that attributes cannot have.
const ROUND: &str = "round";

/// Warns about names that no model in `folders` has. Only where every model has a signature.
pub(super) fn check<'a>(
    component: &str,
    settings: &LogSettings,
    folders: impl Iterator<Item = &'a Path>,
) {
    let rules = settings.rules();
    if rules.iter().all(|(_, names)| names.is_empty()) {
        return;
    }
    let mut known = Vec::new();
    for folder in folders {
        let Some(names) = names(folder) else { return };
        known.extend(names);
    }
    if known.is_empty() {
        return;
    }
    for (key, fields) in rules {
        for field in unknown(&fields, &known) {
            let available = available(key, &known);
            warn!(
                component,
                "prediction_log.{key}: no mounted model has a field {field:?}; available fields: \
                 {available}"
            );
        }
    }
}

/// The fields that the rule `key` can name.
fn available(key: &str, known: &[String]) -> String {
    let names: Vec<_> = known.iter().map(String::as_str).chain(APPENDED_OUTPUTS).collect();
    let fields = names.join(", ");
    if key == ROUND { fields } else { format!("{fields}; attributes: {}", ATTRIBUTES.join(", ")) }
}

fn unknown<'a>(fields: &[&'a String], known: &[String]) -> impl Iterator<Item = &'a String> {
    fields.iter().copied().filter(|field| {
        let is = |known: &str| known == field.as_str() || known == base_name(field);
        let mut names = known.iter().map(String::as_str).chain(APPENDED_OUTPUTS).chain(ATTRIBUTES);
        !names.any(is)
    })
}

/// The names of the features (of the input, where it has none) and of the outputs in the signature
/// of `folder`. `None` if it has no valid signature.
fn names(folder: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(folder.join(SIGNATURE)).ok()?;
    let ModelToml { inputs, outputs, .. } = ModelToml::parse(&text).ok()?;
    let mut names = Vec::new();
    for input in inputs {
        if input.fields.is_empty() {
            names.push(input.name);
        } else {
            names.extend(input.fields);
        }
    }
    names.extend(outputs.into_iter().map(|output| output.name));
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_those_that_the_signature_lacks() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/iris-classifier/1");
        let known = names(&folder).unwrap();
        let expected = [
            "sepal_length",
            "sepal_width",
            "petal_length",
            "petal_width",
            "label",
            "probabilities",
        ];
        assert_eq!(known, expected);
        let fields = ["petal_width", "probabilities[1]", "label", "id", "petal", "x[1]"];
        let fields = fields.map(str::to_owned);
        let unknown: Vec<_> = unknown(&fields.each_ref(), &known).collect();
        assert_eq!(unknown, ["petal", "x[1]"]);
        let outputs = "sepal_length, sepal_width, petal_length, petal_width, label, probabilities, \
                       prediction, probability";
        assert_eq!(available("round", &known), outputs);
        let attributes = "attributes: operation, id, content_type, content_length";
        assert_eq!(available("drop", &known), format!("{outputs}; {attributes}"));
        assert_eq!(names(Path::new("nowhere")), None);
    }
}
