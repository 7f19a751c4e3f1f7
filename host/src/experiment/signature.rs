//! Compares the signatures of model versions: clients must not notice which variant serves them.

use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::inference::SIGNATURE;
use crate::process::read_file::read_file;

/// Maximum size of a `model.toml`, in bytes.
const MAX_SIGNATURE: u64 = 1 << 20;

/// Maximum number of names in a message.
const MAX_SHOWN: usize = 20;

/// The parts of a signature that clients see.
const TENSORS: [&str; 2] = ["inputs", "outputs"];
const LABELS: &str = "labels";

/// Reads the signature in a model's folder; `None` if it has none.
pub(super) fn read(folder: &Path) -> Result<Option<Table>> {
    let path = folder.join(SIGNATURE);
    if !path.exists() {
        return Ok(None);
    }
    let parsed = read_file(&path, MAX_SIGNATURE)
        .and_then(|bytes| Ok(toml::from_str(&String::from_utf8(bytes)?)?));
    parsed.map(Some).with_context(|| path.display().to_string())
}

/// The problem that the model has no input `name` to record, with the names of those it has, if so. A
/// signature without inputs has none to compare with.
pub(super) fn unknown_input(signature: &Table, name: &str) -> Option<String> {
    let inputs = signature.get("inputs").and_then(Value::as_array)?;
    let text = |input: &Value, key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut known = Vec::new();
    for input in inputs {
        let fields = input.get("fields").and_then(Value::as_array);
        match fields {
            Some(fields) => {
                known.extend(fields.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            None => known.extend(text(input, "name")),
        }
    }
    let is_known = |known: &String| {
        // A tensor without names of its fields is recorded as `pixels[0]`, `pixels[1]`.
        let rest = name.strip_prefix(known.as_str());
        rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('[') && rest.ends_with(']')))
    };
    if known.is_empty() || known.iter().any(is_known) {
        return None;
    }
    let more = known.len().saturating_sub(MAX_SHOWN);
    known.truncate(MAX_SHOWN);
    let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("has no input `{}`; it has {}{more}", name.escape_debug(), names.join(", ")))
}

/// The first difference of `other` from `one` that a client would notice:
/// `inputs[0].shape is [-1,10] instead of [-1,4]`.
pub(super) fn difference(one: &Table, other: &Table) -> Option<String> {
    let lists = TENSORS.iter().find_map(|key| tensors(key, one.get(*key), other.get(*key)));
    lists.or_else(|| differ(LABELS, one.get(LABELS), other.get(LABELS)))
}

fn tensors(key: &str, one: Option<&Value>, other: Option<&Value>) -> Option<String> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (one, other) = (list(one), list(other));
    let names = |list: &[Value]| {
        let names = list.iter().map(|tensor| tensor.get("name").and_then(Value::as_str));
        names.map(|name| format!("`{}`", name.unwrap_or("?"))).collect::<Vec<_>>().join(", ")
    };
    if one.len() != other.len() {
        return Some(format!("{key} are {} instead of {}", names(&other), names(&one)));
    }
    one.iter().zip(&other).enumerate().find_map(|(index, (one, other))| {
        let empty = Table::new();
        let [one, other] = [one, other].map(|value| value.as_table().unwrap_or(&empty));
        let keys = one.keys().chain(other.keys());
        let mut keys = keys.map(|name| (format!("{key}[{index}].{name}"), name));
        keys.find_map(|(path, name)| differ(&path, one.get(name), other.get(name)))
    })
}

fn differ(path: &str, one: Option<&Value>, other: Option<&Value>) -> Option<String> {
    let shown = |value: Option<&Value>| match value {
        Some(value) => serde_json::to_string(value).unwrap_or_default(),
        None => "absent".to_owned(),
    };
    (one != other).then(|| format!("{path} is {} instead of {}", shown(other), shown(one)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IRIS: &str = r#"
        labels = ["setosa", "virginica"]
        [[inputs]]
        name = "features"
        datatype = "FP32"
        shape = [-1, 4]
        [[outputs]]
        name = "label"
        datatype = "INT64"
        shape = [-1]
        [provenance]
        estimator = "one"
    "#;

    #[test]
    fn input_that_a_model_does_not_have_is_named_with_those_it_has() {
        let iris: Table = toml::from_str(IRIS).unwrap();
        assert_eq!(unknown_input(&iris, "features[3]"), None);
        let problem = unknown_input(&iris, "age").unwrap();
        assert_eq!(problem, "has no input `age`; it has `features`");
        let named = IRIS.replacen("shape", "fields = [\"length\", \"width\"]\nshape", 1);
        let named: Table = toml::from_str(&named).unwrap();
        assert_eq!(unknown_input(&named, "width"), None);
        assert!(unknown_input(&named, "features").unwrap().ends_with("it has `length`, `width`"));
        assert_eq!(unknown_input(&Table::new(), "age"), None);
    }

    #[test]
    fn difference_is_what_a_client_would_notice() {
        let iris: Table = toml::from_str(IRIS).unwrap();
        for (find, replace, expected) in [
            ("\"one\"", "\"another\"", None),
            ("[-1, 4]", "[-1, 10]", Some("inputs[0].shape is [-1,10] instead of [-1,4]")),
            ("\"FP32\"", "\"FP64\"", Some("inputs[0].datatype is \"FP64\" instead of \"FP32\"")),
            (
                "shape = [-1]\n",
                "shape = [-1]\nfields = [\"a\"]\n",
                Some("outputs[0].fields is [\"a\"] instead of absent"),
            ),
            (
                "virginica",
                "versicolor",
                Some("labels is [\"setosa\",\"versicolor\"] instead of [\"setosa\",\"virginica\"]"),
            ),
            (
                "[provenance]",
                "[[outputs]]\nname = \"p\"\n[provenance]",
                Some("outputs are `label`, `p` instead of `label`"),
            ),
        ] {
            let other: Table = toml::from_str(&IRIS.replacen(find, replace, 1)).unwrap();
            assert_eq!(difference(&iris, &other).as_deref(), expected, "{replace}");
        }
    }
}
