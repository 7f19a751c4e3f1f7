//! Reads `model.toml` key by key. A derived decoder would add 40 kB to every component, for few keys.

use toml_parser::decoder::ScalarKind;

use super::document::{Document, Node, ROOT, TomlValue};
use super::{Signature, TensorSignature};
use crate::datatype::Datatype;
use crate::shape::Shape;

/// Default of `cache_seconds`. The host never serves cached predictions of another version. Caches between the
/// host and a client do not know versions: after a rollout they may serve those of the old one for this long.
const CACHE_SECONDS: u32 = 300;

/// Reads `model.toml`.
///
/// # Errors
/// With the line, the key if there is one, and what is wrong.
pub(super) fn read(text: &str) -> Result<Signature, String> {
    let document = Document::parse(text).map_err(|(start, problem)| at(text, start, &problem))?;
    let root = Table { document: &document, path: String::new(), position: ROOT };
    let (labels, classes) = root.labels("labels")?;
    Ok(Signature {
        name: root.string("name")?,
        version: root.string("version")?,
        labels,
        classes,
        inputs: root.tensors("inputs")?,
        outputs: root.tensors("outputs")?,
        cache_seconds: root.number(
            "cache_seconds",
            CACHE_SECONDS,
            "a number of seconds, 0 or more",
        )?,
        row: Vec::new(),
        slots: Vec::new(),
    })
}

/// A table of the document.
struct Table<'a> {
    document: &'a Document<'a>,
    /// Prefix of its keys in messages, as `inputs[0].`.
    path: String,
    position: usize,
}

impl<'a> Table<'a> {
    fn string(&self, key: &str) -> Result<String, String> {
        self.string_in(key, self.document.node(self.required(key)?))
    }

    /// Labels, and the same as numbers if they are numbers.
    fn labels(&self, key: &str) -> Result<(Vec<String>, Vec<i64>), String> {
        let array = self.document.get(self.position, key);
        let first = array.and_then(|array| self.document.within(array).next());
        let first = first.map(|item| &self.document.node(item).value);
        if !matches!(first, Some(TomlValue::Scalar(ScalarKind::Integer(_), _))) {
            return Ok((self.strings(key)?, Vec::new()));
        }
        let classes = self.integers(key)?;
        Ok((classes.iter().map(i64::to_string).collect(), classes))
    }

    /// Empty if the key is absent.
    fn strings(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(array) = self.document.get(self.position, key) else {
            return Ok(Vec::new());
        };
        let mut strings = Vec::new();
        for item in self.items(key, array, "an array of strings")? {
            strings.push(self.string_in(key, self.document.node(item))?);
        }
        Ok(strings)
    }

    fn tensors(&self, key: &str) -> Result<Vec<TensorSignature>, String> {
        let expected = "an array of tables";
        let mut tensors = Vec::new();
        for position in self.items(key, self.required(key)?, expected)? {
            let item = self.document.node(position);
            if !matches!(item.value, TomlValue::Table) {
                return Err(self.unexpected(key, item, expected));
            }
            let path = format!("{}{key}[{}].", self.path, tensors.len());
            tensors.push(Table { document: self.document, path, position }.tensor()?);
        }
        Ok(tensors)
    }

    fn tensor(&self) -> Result<TensorSignature, String> {
        Ok(TensorSignature {
            columns: Vec::new(),
            name: self.string("name")?,
            datatype: self.datatype("datatype")?,
            shape: Shape(self.integers("shape")?),
            batch_axis: self.number("batch_axis", 0, "the index of an axis, 0 or more")? as usize,
            fields: self.strings("fields")?,
        })
    }

    fn datatype(&self, key: &str) -> Result<Datatype, String> {
        let value = self.document.node(self.required(key)?);
        let name = self.string_in(key, value)?;
        Datatype::named(&name).ok_or_else(|| {
            let names = Datatype::ALL.map(Datatype::name).join(", ");
            self.wrong(key, value, &format!("expected one of {names}, got {name:?}"))
        })
    }

    fn integers(&self, key: &str) -> Result<Vec<i64>, String> {
        let expected = "an array of 64-bit integers";
        let mut integers = Vec::new();
        for item in self.items(key, self.required(key)?, expected)? {
            let item = self.document.node(item);
            integers
                .push(integer(&item.value).ok_or_else(|| self.unexpected(key, item, expected))?);
        }
        Ok(integers)
    }

    /// `default` if the key is absent.
    fn number(&self, key: &str, default: u32, expected: &str) -> Result<u32, String> {
        let Some(position) = self.document.get(self.position, key) else {
            return Ok(default);
        };
        let node = self.document.node(position);
        let number = integer(&node.value).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| self.unexpected(key, node, expected))
    }

    fn string_in(&self, key: &str, node: &Node<'_>) -> Result<String, String> {
        match &node.value {
            TomlValue::Scalar(ScalarKind::String, text) => Ok(text.clone().into_owned()),
            _ => Err(self.unexpected(key, node, "a string")),
        }
    }

    /// The indices of the items of an array.
    fn items(&self, key: &str, position: usize, expected: &str) -> Result<Vec<usize>, String> {
        let array = self.document.node(position);
        if !matches!(array.value, TomlValue::Array) {
            return Err(self.unexpected(key, array, expected));
        }
        Ok(self.document.within(position).collect())
    }

    fn required(&self, key: &str) -> Result<usize, String> {
        self.document.get(self.position, key).ok_or_else(|| {
            let start = self.document.node(self.position).start;
            at(self.document.text, start, &format!("`{}{key}` is missing", self.path))
        })
    }

    fn unexpected(&self, key: &str, node: &Node<'_>, expected: &str) -> String {
        let got = node.value.kind();
        self.wrong(key, node, &format!("expected {expected}, got {got}"))
    }

    fn wrong(&self, key: &str, node: &Node<'_>, problem: &str) -> String {
        at(self.document.text, node.start, &format!("`{}{key}`: {problem}", self.path))
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
    let before = text.get(..position).unwrap_or_default();
    format!("line {}: {problem}", before.matches('\n').count() + 1)
}
