//! `model.toml` as text, read key by key. A derived decoder would take what serde and TOML can express
//! between them into every component: 40 kB, for five keys.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Shape, Signature, TensorSignature};
use crate::tensor::Datatype;

/// A problem is told with the line, and with the key where it has one.
pub(super) fn read(text: &str) -> Result<Signature, String> {
    let root = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        at(text, start, error.message())
    })?;
    let root = Table { text, path: String::new(), start: 0, entries: root.get_ref() };
    Ok(Signature {
        name: root.string("name")?,
        version: root.string("version")?,
        labels: root.strings("labels")?,
        inputs: root.tensors("inputs")?,
        outputs: root.tensors("outputs")?,
        row: Vec::new(),
    })
}

type Value<'a> = Spanned<DeValue<'a>>;

struct Table<'a> {
    text: &'a str,
    /// Before its keys in messages: `inputs[0].`
    path: String,
    start: usize,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    fn string(&self, key: &str) -> Result<String, String> {
        self.string_in(key, self.required(key)?)
    }

    /// Empty if the key is absent.
    fn strings(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(value) = self.entries.get(key) else {
            return Ok(Vec::new());
        };
        self.array(key, value, "an array of strings", Self::string_in)
    }

    fn tensors(&self, key: &str) -> Result<Vec<TensorSignature>, String> {
        let expected = "an array of tables";
        let mut index = 0;
        self.array(key, self.required(key)?, expected, |_, _, value| {
            let DeValue::Table(entries) = value.get_ref() else {
                return Err(self.unexpected(key, value, expected));
            };
            let path = format!("{}{key}[{index}].", self.path);
            index += 1;
            Table { text: self.text, path, start: value.span().start, entries }.tensor()
        })
    }

    fn tensor(&self) -> Result<TensorSignature, String> {
        Ok(TensorSignature {
            name: self.string("name")?,
            datatype: self.datatype("datatype")?,
            shape: Shape(self.integers("shape")?),
            fields: self.strings("fields")?,
        })
    }

    fn datatype(&self, key: &str) -> Result<Datatype, String> {
        let value = self.required(key)?;
        let name = self.string_in(key, value)?;
        Datatype::named(&name).ok_or_else(|| {
            let names = Datatype::ALL.map(Datatype::name).join(", ");
            self.wrong(key, value, &format!("expected one of {names}, got {name:?}"))
        })
    }

    fn integers(&self, key: &str) -> Result<Vec<i64>, String> {
        let expected = "an array of integers of 64 bits";
        self.array(key, self.required(key)?, expected, |_, _, value| {
            let integer = value.get_ref().as_integer();
            let integer = integer.and_then(|i| i64::from_str_radix(i.as_str(), i.radix()).ok());
            integer.ok_or_else(|| self.unexpected(key, value, expected))
        })
    }

    fn string_in(&self, key: &str, value: &Value<'_>) -> Result<String, String> {
        let string = value.get_ref().as_str().map(str::to_owned);
        string.ok_or_else(|| self.unexpected(key, value, "a string"))
    }

    fn array<T>(
        &self,
        key: &str,
        value: &'a Value<'a>,
        expected: &str,
        mut item: impl FnMut(&Self, &str, &'a Value<'a>) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.unexpected(key, value, expected));
        };
        items.iter().map(|value| item(self, key, value)).collect()
    }

    fn required(&self, key: &str) -> Result<&'a Value<'a>, String> {
        let missing = || at(self.text, self.start, &format!("`{}{key}` is missing", self.path));
        self.entries.get(key).ok_or_else(missing)
    }

    fn unexpected(&self, key: &str, value: &Value<'_>, expected: &str) -> String {
        let got = value.get_ref().type_str();
        self.wrong(key, value, &format!("expected {expected}, got {got}"))
    }

    fn wrong(&self, key: &str, value: &Value<'_>, problem: &str) -> String {
        at(self.text, value.span().start, &format!("`{}{key}`: {problem}", self.path))
    }
}

fn at(text: &str, position: usize, problem: &str) -> String {
    let before = text.get(..position).unwrap_or_default();
    format!("line {}: {problem}", before.matches('\n').count() + 1)
}
