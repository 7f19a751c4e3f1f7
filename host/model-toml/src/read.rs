//! Reads `model.toml` key by key. A derived decoder would add 40 kB to every component, for few keys.

use std::cell::RefCell;

use toml_parser::decoder::ScalarKind;

use crate::document::{Document, Node, ROOT, TomlValue, line};
use crate::{CACHE_SECONDS, DATATYPES, ModelToml, TensorEntry};

/// Reads `model.toml`.
///
/// # Errors
/// Every problem: the line, the key if there is one, and what is wrong.
pub(crate) fn read(text: &str) -> Result<ModelToml, Vec<String>> {
    let document =
        Document::parse(text).map_err(|(start, problem)| vec![at(text, start, &problem)])?;
    let problems = RefCell::default();
    let root =
        Table { document: &document, problems: &problems, path: String::new(), position: ROOT };
    let (labels, classes) = root.labels("labels");
    let model = ModelToml {
        name: root.string("name"),
        version: root.string("version"),
        labels,
        classes,
        inputs: root.tensors("inputs"),
        outputs: root.tensors("outputs"),
        cache_seconds: root.number(
            "cache_seconds",
            CACHE_SECONDS,
            "a number of seconds, 0 or more",
        ),
        mapped: root.boolean("mapped"),
    };
    let problems = problems.into_inner();
    if problems.is_empty() { Ok(model) } else { Err(problems) }
}

/// A table of the document. Its methods add what is wrong to the problems, and then return an empty value.
struct Table<'a> {
    document: &'a Document<'a>,
    problems: &'a RefCell<Vec<String>>,
    /// Prefix of its keys in messages, as `inputs[0].`.
    path: String,
    position: usize,
}

impl<'a> Table<'a> {
    fn string(&self, key: &str) -> String {
        let value = self.required(key).and_then(|value| self.string_in(key, value));
        value.unwrap_or_default()
    }

    /// Labels, and the same as numbers if they are numbers.
    fn labels(&self, key: &str) -> (Vec<String>, Vec<i64>) {
        let array = self.document.get(self.position, key);
        let first = array.and_then(|array| self.document.within(array).next());
        let first = first.map(|item| &self.document.node(item).value);
        if !matches!(first, Some(TomlValue::Scalar(ScalarKind::Integer(_), _))) {
            return (self.strings(key), Vec::new());
        }
        let classes = self.integers(key);
        (classes.iter().map(i64::to_string).collect(), classes)
    }

    /// Empty if the key is absent.
    fn strings(&self, key: &str) -> Vec<String> {
        let Some(array) = self.document.get(self.position, key) else { return Vec::new() };
        let items = self.items(key, array, "an array of strings").into_iter();
        items.map_while(|item| self.string_in(key, self.document.node(item))).collect()
    }

    fn tensors(&self, key: &str) -> Vec<TensorEntry> {
        let expected = "an array of tables";
        let mut tensors = Vec::new();
        let Some(array) = self.position_of(key) else { return tensors };
        for position in self.items(key, array, expected) {
            let item = self.document.node(position);
            if !matches!(item.value, TomlValue::Table) {
                self.unexpected(key, item, expected);
                break;
            }
            let path = format!("{}{key}[{}].", self.path, tensors.len());
            tensors.push(Table { path, position, ..*self }.tensor());
        }
        tensors
    }

    fn tensor(&self) -> TensorEntry {
        TensorEntry {
            name: self.string("name"),
            datatype: self.datatype("datatype"),
            shape: self.integers("shape"),
            batch_axis: self.number("batch_axis", 0, "the index of an axis, 0 or more") as usize,
            fields: self.strings("fields"),
        }
    }

    fn datatype(&self, key: &str) -> &'static str {
        let Some(value) = self.required(key) else { return "" };
        let Some(name) = self.string_in(key, value) else { return "" };
        if let Some(known) = DATATYPES.iter().find(|known| **known == name) {
            return known;
        }
        let names = DATATYPES.join(", ");
        self.wrong(key, value, &format!("expected one of {names}, got {name:?}"));
        ""
    }

    fn integers(&self, key: &str) -> Vec<i64> {
        let expected = "an array of 64-bit integers";
        let mut integers = Vec::new();
        let Some(array) = self.position_of(key) else { return integers };
        for item in self.items(key, array, expected) {
            let item = self.document.node(item);
            let Some(integer) = integer(&item.value) else {
                self.unexpected(key, item, expected);
                break;
            };
            integers.push(integer);
        }
        integers
    }

    /// `default` if the key is absent.
    fn number(&self, key: &str, default: u32, expected: &str) -> u32 {
        let Some(position) = self.document.get(self.position, key) else { return default };
        let node = self.document.node(position);
        let number = integer(&node.value).and_then(|number| u32::try_from(number).ok());
        number.unwrap_or_else(|| {
            self.unexpected(key, node, expected);
            default
        })
    }

    /// False if the key is absent.
    fn boolean(&self, key: &str) -> bool {
        let Some(position) = self.document.get(self.position, key) else { return false };
        let node = self.document.node(position);
        match &node.value {
            TomlValue::Scalar(ScalarKind::Boolean(value), _) => *value,
            _ => {
                self.unexpected(key, node, "true or false");
                false
            }
        }
    }

    fn string_in(&self, key: &str, node: &Node<'_>) -> Option<String> {
        if let TomlValue::Scalar(ScalarKind::String, text) = &node.value {
            return Some(text.clone().into_owned());
        }
        self.unexpected(key, node, "a string");
        None
    }

    /// The indices of the items of an array.
    fn items(&self, key: &str, position: usize, expected: &str) -> Vec<usize> {
        let array = self.document.node(position);
        if !matches!(array.value, TomlValue::Array) {
            self.unexpected(key, array, expected);
            return Vec::new();
        }
        self.document.within(position).collect()
    }

    fn required(&self, key: &str) -> Option<&'a Node<'a>> {
        self.position_of(key).map(|position| self.document.node(position))
    }

    fn position_of(&self, key: &str) -> Option<usize> {
        let found = self.document.get(self.position, key);
        if found.is_none() {
            let start = self.document.node(self.position).start;
            let problem = format!("`{}{key}` is missing", self.path);
            self.problems.borrow_mut().push(at(self.document.text, start, &problem));
        }
        found
    }

    fn unexpected(&self, key: &str, node: &Node<'_>, expected: &str) {
        let got = node.value.kind();
        self.wrong(key, node, &format!("expected {expected}, got {got}"));
    }

    fn wrong(&self, key: &str, node: &Node<'_>, problem: &str) {
        let problem = format!("`{}{key}`: {problem}", self.path);
        self.problems.borrow_mut().push(at(self.document.text, node.start, &problem));
    }
}

fn integer(value: &TomlValue<'_>) -> Option<i64> {
    match value {
        TomlValue::Scalar(ScalarKind::Integer(radix), digits) => {
            i64::from_str_radix(digits, radix.value()).ok()
        }
        _ => None,
    }
}

fn at(text: &str, position: usize, problem: &str) -> String {
    format!("line {}: {problem}", line(text, position))
}
