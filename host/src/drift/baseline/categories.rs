//! The categories of a baseline.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Categories, and the bin of each: its index in the file.
#[derive(Debug, Default, PartialEq)]
pub struct Categories {
    /// Display name of each category.
    pub shown: Vec<String>,
    /// Number and bin, ordered by number.
    numbers: Vec<(i64, usize)>,
    /// Text and bin, ordered by text.
    texts: Vec<(String, usize)>,
}

impl Categories {
    /// The bin of values that are no category.
    #[must_use]
    pub fn other(&self) -> usize {
        self.shown.len()
    }

    /// The bin of an integer.
    #[must_use]
    pub fn of_number(&self, number: i64) -> usize {
        // Most are class indices, which are at their own index.
        let guess = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(&(at, bin)) = self.numbers.get(guess)
            && at == number
        {
            return bin;
        }
        let found = self.numbers.binary_search_by_key(&number, |&(number, _)| number);
        found.map_or(self.other(), |index| self.numbers[index].1)
    }

    /// The bin of an integer in a float.
    #[must_use]
    pub fn of_float(&self, number: f64) -> usize {
        // Largest magnitude up to which every integer has an `f64`.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if number.fract() != 0.0 || number.abs() > EXACT {
            return self.other();
        }
        #[expect(clippy::cast_possible_truncation, reason = "a whole number within 2^53")]
        let number = number as i64;
        self.of_number(number)
    }

    /// The bin of a text.
    #[must_use]
    pub fn of_text(&self, text: &str) -> usize {
        let found = self.texts.binary_search_by(|(other, _)| other.as_str().cmp(text));
        found.map_or(self.other(), |index| self.texts[index].1)
    }

    /// `labels`: names of the `classes`, if they have any.
    pub(super) fn new(values: &[Value], labels: &[String], classes: &[i64]) -> Result<Self> {
        let mut categories = Self::default();
        let mut seen = HashSet::new();
        for (bin, value) in values.iter().enumerate() {
            ensure!(
                seen.insert(value.to_string()),
                "values[{bin}]: {value} is a duplicate; remove it"
            );
            let mut shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match value {
                Value::String(text) => categories.texts.push((text.clone(), bin)),
                Value::Bool(value) => categories.numbers.push((i64::from(*value), bin)),
                Value::Number(number) => {
                    let number = number.as_i64().with_context(|| {
                        format!("values[{bin}]: {number} is not a 64-bit integer")
                    })?;
                    categories.numbers.push((number, bin));
                    let label = classes.iter().position(|&class| class == number);
                    if let Some(name) = label.and_then(|index| labels.get(index)) {
                        categories.texts.push((name.clone(), bin));
                        shown.clone_from(name);
                    }
                }
                other => bail!("values[{bin}]: {other} is not a string, an integer or a boolean"),
            }
            categories.shown.push(shown);
        }
        categories.numbers.sort_unstable();
        categories.texts.sort_unstable();
        Ok(categories)
    }
}
