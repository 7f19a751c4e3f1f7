//! Reads `experiments.toml`, and reports every problem at once.

mod check;
mod keys;
mod parse;

use std::fmt;

pub(crate) use check::{check_allocation, check_sum};

use crate::unit::Unit;

/// Name of the variant that others are compared with. It serves requests without a unit.
pub const CONTROL: &str = "control";
/// Maximum difference of the sum of allocations to 1, as sums of tenths are not exact.
pub const SUM_TOLERANCE: f64 = 1e-9;
/// Maximum number of variants of one experiment.
pub const MAX_VARIANTS: usize = 100;
/// Maximum length of a name, in bytes: it is part of headers, labels and keys.
pub const MAX_NAME: usize = 64;

/// The experiments of a file, sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experiments(Vec<Experiment>);

/// A model that several variants serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    pub name: String,
    /// Public name of the model: the experiment takes `/v2/models/<model>/...`.
    pub model: String,
    /// Where the unit is in a request.
    pub unit: Unit,
    /// Lower-case name of the header with which testers force a variant.
    pub force: Option<String>,
    /// In the order of the file. One is named [`CONTROL`].
    pub variants: Vec<Variant>,
}

/// One arm of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub name: String,
    /// Id of the component that serves it, in the manifest.
    pub component: String,
    /// Name of the model in the path that the component receives, if it is not the public one.
    pub model: Option<String>,
    /// Its share of the units, from 0 to 1.
    pub allocation: f64,
    /// Whether it receives copies of requests, and its responses are discarded.
    pub shadow: bool,
}

/// Every problem of a file, one per line.
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
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        parse::experiments(text).map(Self)
    }

    /// The experiments, sorted by name.
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
    /// The variants that units are assigned to, with their indices in [`Self::variants`].
    pub fn assignable(&self) -> impl Iterator<Item = (usize, &Variant)> {
        self.variants.iter().enumerate().filter(|(_, variant)| !variant.shadow)
    }

    /// The names of the variants that units are assigned to: `control, treatment`.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.assignable().map(|(_, variant)| variant.name.as_str()).collect();
        names.join(", ")
    }

    /// The path that the component of `variant` receives instead of `path`, if it differs.
    #[must_use]
    pub fn path_of(&self, variant: &Variant, path: &str) -> Option<String> {
        let model = variant.model.as_ref().filter(|model| **model != self.model)?;
        let rest = crate::router::rest(path, &self.model)?;
        Some(format!("{}{model}{rest}", crate::router::MODELS))
    }
}

#[cfg(test)]
mod tests;
