//! Reads `experiments.toml`, and reports every problem at once.

mod analysis;
mod check;
mod eligibility;
mod keys;
mod kind;
mod number;
mod parse;
mod variants;

use std::fmt;

pub use analysis::{
    ALPHA, GUARDRAIL_MINIMUM, Guardrail, GuardrailBound, GuardrailMetric, MAX_GUARDRAILS,
    MINIMUM_SAMPLE, Metric, MetricKind, Per, WINDOW,
};
pub(crate) use check::{check_allocation, check_sum};
pub use eligibility::{MAX_TARGET_VALUES, Namespace, Target, overlap};
pub use kind::{CanaryStep, Kind, MAX_HOLD, MAX_STEPS, MINIMUM_ALLOCATION};
pub use number::duration_text;

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
    /// What decides the allocations.
    pub kind: Kind,
    pub start: Start,
    /// Share of the units that control serves and that are not in the experiment, from 0 to less
    /// than 1.
    pub holdout: f64,
    /// The part of a namespace that the units in the experiment are from.
    pub namespace: Option<Namespace>,
    /// The requests that the experiment is about; none: all.
    pub target: Option<Target>,
    pub unavailable: Unavailable,
    /// Significance level of the verdict, above 0 and at most 0.5.
    pub alpha: f64,
    /// Units that each variant needs before there is a verdict.
    pub minimum_sample: u64,
    /// What the verdict is about. A bandit has one always.
    pub metric: Option<Metric>,
    pub guardrails: Vec<Guardrail>,
    /// In the order of the file. One is named [`CONTROL`].
    pub variants: Vec<Variant>,
}

/// When units are assigned to the treatments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// From the first request on.
    #[default]
    Automatic,
    /// Once an operator starts the experiment. Control serves all requests until then.
    Manual,
}

/// What a request receives whose variant cannot serve it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unavailable {
    /// The response of control.
    Control,
    /// The failure of the variant.
    #[default]
    Fail,
}

impl Unavailable {
    /// The value of the key `unavailable`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Fail => "fail",
        }
    }
}

/// One arm of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub name: String,
    /// Id of the component that serves it, in the manifest.
    pub component: String,
    /// Name of the model in the path that the component receives, if it is not the public one.
    pub model: Option<String>,
    /// Its share of the units, from 0 to 1. In a canary that of the first step.
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

    /// The variant of this name that units are assigned to, and its index in [`Self::variants`].
    #[must_use]
    pub fn variant(&self, name: &str) -> Option<(usize, &Variant)> {
        self.assignable().find(|(_, variant)| variant.name == name)
    }

    /// Identifies the experiment among those that had its name: 16 hexadecimal digits, of the kind, the
    /// variants with their components and models, in order, and where the unit is. Allocations and
    /// settings are no part of it.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut text = self.kind.name().to_owned();
        for Variant { name, component, model, shadow, .. } in &self.variants {
            let model = model.as_ref().unwrap_or(&self.model);
            // No name contains a space.
            text.push_str(&format!(" {name} {component} {model} {shadow}"));
        }
        text.push_str(&format!("\n{}", self.unit));
        format!("{:016x}", crate::hash::digest(text.as_bytes()))
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
