//! Typed access to the tables of a file, which collects problems.

use std::fmt;

use toml::{Table, Value};

/// The problems of a file, each with its key.
pub(super) struct Problems(pub(super) Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, key: impl fmt::Display, problem: impl fmt::Display) {
        self.0.push(format!("{key}: {problem}"));
    }
}

/// A table and its key.
pub(super) struct Keys<'a> {
    /// The key of the table: `experiments.iris`; empty for the file.
    pub(super) at: String,
    pub(super) table: &'a Table,
}

/// A value in a message: the text of a scalar, or else the type.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", text.escape_debug()),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => format!("the {}", other.type_str()),
    }
}

impl<'a> Keys<'a> {
    pub(super) fn of(at: String, value: &'a Value, problems: &mut Problems) -> Option<Self> {
        match value {
            Value::Table(table) => Some(Self { at, table }),
            _ => {
                problems.add(at, "is not a table");
                None
            }
        }
    }

    pub(super) fn key(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Reports every key that is not among `known`.
    pub(super) fn known(&self, known: &[&str], problems: &mut Problems) {
        for key in self.table.keys().filter(|key| !known.contains(&key.as_str())) {
            let keys = known.join(", ");
            let problem = format!("unknown key; the keys are {keys}");
            problems.add(self.key(&key.escape_debug().to_string()), problem);
        }
    }

    pub(super) fn text(&self, key: &str, problems: &mut Problems) -> Option<&'a str> {
        match self.table.get(key)? {
            Value::String(text) => Some(text),
            other => {
                let problem = format!("expected a string, got {}", other.type_str());
                problems.add(self.key(key), problem);
                None
            }
        }
    }

    /// A string that has to be set, and to pass `check`.
    pub(super) fn required(
        &self,
        key: &str,
        check: fn(&str) -> Result<(), String>,
        problems: &mut Problems,
    ) -> Option<String> {
        if !self.table.contains_key(key) {
            problems.add(self.key(key), "is missing");
        }
        self.optional(key, check, problems)
    }

    /// A string that has to pass `check` if it is set.
    pub(super) fn optional(
        &self,
        key: &str,
        check: fn(&str) -> Result<(), String>,
        problems: &mut Problems,
    ) -> Option<String> {
        let text = self.text(key, problems)?;
        if let Err(problem) = check(text) {
            problems.add(self.key(key), problem);
        }
        Some(text.to_owned())
    }

    /// One of `choices`, if it is set.
    pub(super) fn choice(
        &self,
        key: &str,
        choices: &[&'static str],
        problems: &mut Problems,
    ) -> Option<&'static str> {
        let text = self.text(key, problems)?;
        let found = choices.iter().copied().find(|choice| *choice == text);
        if found.is_none() {
            let (text, choices) = (text.escape_debug(), choices.join(", "));
            problems.add(self.key(key), format_args!("\"{text}\" is not one of {choices}"));
        }
        found
    }

    /// True or false, if it is set.
    pub(super) fn flag(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        let flag = self.table.get(key)?.as_bool();
        if flag.is_none() {
            problems.add(self.key(key), "write true or false");
        }
        flag
    }
}
