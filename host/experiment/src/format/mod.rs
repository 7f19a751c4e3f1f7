//! `experiments.toml`: read, and checked with every problem found at once.

mod check;
mod keys;
mod parse;

use std::fmt;

pub(crate) use check::{check_allocation, check_sum};

use crate::unit::Unit;

/// The name of the variant everything is compared with, and that serves what is not assigned.
pub const CONTROL: &str = "control";
/// How far the sum of allocations may be from one: what is lost where tenths are added.
pub const SUM_TOLERANCE: f64 = 1e-9;
/// Variants of one experiment.
pub const MAX_VARIANTS: usize = 100;
/// Bytes of a name: it stands in headers, labels and keys.
pub const MAX_NAME: usize = 64;

/// The experiments of a file, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experiments(Vec<Experiment>);

/// A model that several variants serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    pub name: String,
    /// The public name: the experiment takes `/v2/models/<model>/...`.
    pub model: String,
    pub unit: Unit,
    /// The lower-case name of the header by which testers choose a variant.
    pub force: Option<String>,
    /// In the file's order. One is called [`CONTROL`].
    pub variants: Vec<Variant>,
}

/// One arm of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub name: String,
    /// The component that serves it, by its id in the manifest.
    pub component: String,
    /// The name in the path the component is called with, if it is not the public one.
    pub model: Option<String>,
    /// Its share of the units, from 0 to 1.
    pub allocation: f64,
    /// Whether it receives copies, and its responses are discarded.
    pub shadow: bool,
}

/// Every problem of a file, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Invalid {}

impl Experiments {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        parse::experiments(text).map(Self)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Experiment> {
        self.0.iter()
    }

    /// The experiment `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Experiment> {
        self.0.iter().find(|experiment| experiment.name == name)
    }
}

impl<'a> IntoIterator for &'a Experiments {
    type Item = &'a Experiment;
    type IntoIter = std::slice::Iter<'a, Experiment>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Experiment {
    /// The variants that units are assigned to, and their places in [`Self::variants`].
    pub fn assignable(&self) -> impl Iterator<Item = (usize, &Variant)> {
        self.variants.iter().enumerate().filter(|(_, variant)| !variant.shadow)
    }

    /// The names of the variants that units are assigned to: `control, treatment`.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.assignable().map(|(_, variant)| variant.name.as_str()).collect();
        names.join(", ")
    }

    /// The path `variant` is called with in place of `path`, if it is another.
    #[must_use]
    pub fn path_of(&self, variant: &Variant, path: &str) -> Option<String> {
        let model = variant.model.as_ref().filter(|model| **model != self.model)?;
        let rest = crate::router::rest(path, &self.model)?;
        Some(format!("{}{model}{rest}", crate::router::MODELS))
    }
}

#[cfg(test)]
mod tests;
