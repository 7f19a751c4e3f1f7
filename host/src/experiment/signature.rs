//! Whether two versions of a model can stand for one another: clients must not see which serves them.

use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::process::read_file::read_file;
use crate::inference::SIGNATURE;

/// Bytes of a `model.toml`.
const MAX_SIGNATURE: u64 = 1 << 20;

/// The parts of a signature that clients see.
const TENSORS: [&str; 2] = ["inputs", "outputs"];
const LABELS: &str = "labels";

/// Reads the signature in a model's folder; `None` if there is no such file.
pub(super) fn read(folder: &Path) -> Result<Option<Table>> {
    let path = folder.join(SIGNATURE);
    if !path.exists() {
        return Ok(None);
    }
    let parsed = read_file(&path, MAX_SIGNATURE)
        .and_then(|bytes| Ok(toml::from_str(&String::from_utf8(bytes)?)?));
    parsed.map(Some).with_context(|| path.display().to_string())
}

/// The first difference between two signatures that a client would see:
/// `inputs[0].shape is [-1,4], and [-1,10]`.
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
        return Some(format!("{key} are {}, and {}", names(&one), names(&other)));
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
    (one != other).then(|| format!("{path} is {}, and {}", shown(one), shown(other)))
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
    fn what_a_client_would_see_is_a_difference() {
        let iris: Table = toml::from_str(IRIS).unwrap();
        for (find, replace, expected) in [
            ("\"one\"", "\"another\"", None),
            ("[-1, 4]", "[-1, 10]", Some("inputs[0].shape is [-1,4], and [-1,10]")),
            ("\"FP32\"", "\"FP64\"", Some("inputs[0].datatype is \"FP32\", and \"FP64\"")),
            (
                "shape = [-1]\n",
                "shape = [-1]\nfields = [\"a\"]\n",
                Some("outputs[0].fields is absent, and [\"a\"]"),
            ),
            (
                "virginica",
                "versicolor",
                Some("labels is [\"setosa\",\"virginica\"], and [\"setosa\",\"versicolor\"]"),
            ),
            (
                "[provenance]",
                "[[outputs]]\nname = \"p\"\n[provenance]",
                Some("outputs are `label`, and `label`, `p`"),
            ),
        ] {
            let other: Table = toml::from_str(&IRIS.replacen(find, replace, 1)).unwrap();
            assert_eq!(difference(&iris, &other).as_deref(), expected, "{replace}");
        }
    }
}
