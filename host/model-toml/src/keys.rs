//! All keys of `model.toml`.

use crate::document::{Document, ROOT, TomlValue};

/// Keys of the file.
pub const ROOT_KEYS: [&str; 14] = [
    "name",
    "version",
    "description",
    "sha256",
    "labels",
    "cache_seconds",
    "inputs",
    "outputs",
    "mapped",
    "backend",
    "threads",
    "placement",
    "batching",
    "provenance",
];
/// Keys of `[[inputs]]` and `[[outputs]]`.
pub const TENSOR_KEYS: [&str; 5] = ["name", "datatype", "shape", "batch_axis", "fields"];
/// Keys of `[batching]`.
pub const BATCHING_KEYS: [&str; 2] = ["max_batch_size", "max_queue_delay"];

/// A key that nothing reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Line of its value, from 1.
    pub line: usize,
    /// The table that it is in, such as `inputs[0].`, or empty.
    pub table: String,
    pub key: String,
    /// The keys that the table can have.
    pub known: &'static [&'static str],
}

/// The unknown keys of a `model.toml`, in order; none if it is not valid TOML. `[provenance]` can have any keys.
#[must_use]
pub fn unknown_keys(text: &str) -> Vec<UnknownKey> {
    let Ok(document) = Document::parse(text) else { return Vec::new() };
    let mut unknown = Vec::new();
    let mut check = |table: usize, path: String, known: &'static [&'static str]| {
        for child in document.within(table) {
            let node = document.node(child);
            if !known.contains(&node.key()) {
                let (line, key) = (document.line(node.start), node.key().to_owned());
                unknown.push(UnknownKey { line, table: path.clone(), key, known });
            }
        }
    };
    check(ROOT, String::new(), &ROOT_KEYS);
    for (key, known) in
        [("inputs", &TENSOR_KEYS[..]), ("outputs", &TENSOR_KEYS), ("batching", &BATCHING_KEYS)]
    {
        let Some(value) = document.get(ROOT, key) else { continue };
        match document.node(value).value {
            TomlValue::Table => check(value, format!("{key}."), known),
            TomlValue::Array => {
                for (index, item) in document.within(value).enumerate() {
                    if matches!(document.node(item).value, TomlValue::Table) {
                        check(item, format!("{key}[{index}]."), known);
                    }
                }
            }
            TomlValue::Scalar(..) => {}
        }
    }
    unknown
}
