//! `model.toml`: its keys, and the part of it that components read. Compiled into the host, which checks
//! the file before it serves, and into every component.
//!
//! - [`ModelToml`]: the model's name, version, inputs, outputs and labels
//! - [`unknown_keys`]: keys that nothing reads
//!
//! The keys that only the host reads are listed in [`keys`], and parsed by the host.

mod document;
pub mod keys;
mod read;
mod scores;
mod tensor;
#[cfg(test)]
mod tests;

pub use keys::{UnknownKey, unknown_keys};
pub use scores::scores_fit;
pub use tensor::{MAX_RANK, TensorEntry, counts_rows, row, row_axes};

/// Default of `cache_seconds`. The host never serves cached predictions of another version. Caches between the
/// host and a client do not know versions: after a rollout they may serve those of the old one for this long.
const CACHE_SECONDS: u32 = 300;

/// Names of the datatypes of the Open Inference Protocol.
pub const DATATYPES: [&str; 14] = [
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16",
    "FP32", "FP64", "BF16", "BYTES",
];

/// The part of `model.toml` that components read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelToml {
    pub name: String,
    pub version: String,
    /// Labels of the classes, in the order of their indices. Empty if there are none, as for a regression.
    pub labels: Vec<String>,
    /// The labels if they are numbers. The graph then returns labels instead of indices.
    pub classes: Vec<i64>,
    pub inputs: Vec<TensorEntry>,
    pub outputs: Vec<TensorEntry>,
    /// How long a prediction may be cached, in seconds. 0: not at all.
    pub cache_seconds: u32,
    /// Whether inputs and outputs are those of the component's mapping instead of the graph's.
    pub mapped: bool,
}

impl ModelToml {
    /// Reads the `model.toml` of the model `name`.
    ///
    /// # Errors
    /// Every problem: the line, the key, and what is wrong.
    pub fn read(text: &str, name: &str) -> Result<Self, Vec<String>> {
        let model = Self::parse(text)?;
        let problems = model.problems(name);
        if problems.is_empty() { Ok(model) } else { Err(problems) }
    }

    /// Reads a `model.toml` without the checks that go beyond its types.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        read::read(text)
    }

    fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if self.name != name {
            problems.push(format!(
                "the name is {:?}, but this component serves {name:?}; mount a version of that model",
                self.name
            ));
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            problems.push("expected at least one of [[inputs]] and one of [[outputs]]".to_owned());
        }
        for tensors in [&self.inputs, &self.outputs] {
            for (index, tensor) in tensors.iter().enumerate() {
                problems.extend(tensor.problem());
                if tensors[..index].iter().any(|other| other.name == tensor.name) {
                    problems.push(format!("two tensors have the name {:?}", tensor.name));
                }
            }
        }
        problems.extend(self.labels_problem());
        problems
    }

    /// The output with the scores of the classes: the only one of floating-point numbers.
    #[must_use]
    pub fn scores(&self) -> Option<(usize, &TensorEntry)> {
        let mut floats = self.outputs.iter().enumerate().filter(|(_, output)| output.is_float());
        floats.next().filter(|_| floats.next().is_none())
    }

    /// A number of labels that does not match the scores.
    fn labels_problem(&self) -> Option<String> {
        let (index, scores) = self.scores()?;
        self.scores_problem(index, scores.row()?)
    }

    /// The problem if the output `index`, which has `width` scores for each row, does not fit the labels.
    #[must_use]
    pub fn scores_problem(&self, index: usize, width: usize) -> Option<String> {
        let labels = self.labels.len();
        let fits = labels == 0 || scores_fit(labels, width);
        (!fits).then(|| {
            format!(
                "`labels`: has {labels} of them, but outputs[{index}], {:?}, has {width} scores for each row; \
                 write a label for each score, in their order",
                self.outputs[index].name
            )
        })
    }
}
