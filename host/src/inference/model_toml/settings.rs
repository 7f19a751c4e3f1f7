//! The settings in `model.toml` that the host reads; components read the rest.

use serde::Deserialize;
use spinfer_backend::LoadOptions;

use crate::inference::batch::Batching;
use crate::inference::graph::Placement;
use crate::inference::options::{BackendName, LoadRequest};

/// Maximum number of threads of one inference.
const MAX_THREADS: usize = 64;

/// The settings in `model.toml` that the host reads; the component reads the rest.
#[derive(Clone, Debug, Default, Deserialize)]
pub(in crate::inference) struct ModelSettings {
    pub(in crate::inference) version: Option<String>,
    /// On which threads inferences run.
    #[serde(default)]
    pub(in crate::inference) placement: Placement,
    /// The backend that must run the graph.
    backend: Option<BackendName>,
    /// Maximum number of threads of one inference.
    threads: Option<usize>,
    pub(in crate::inference) batching: Option<Batching>,
    #[serde(default)]
    inputs: Vec<EdgeSettings>,
    #[serde(default)]
    outputs: Vec<EdgeSettings>,
}

/// The settings in an entry of `[[inputs]]` or `[[outputs]]` that the host reads.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::inference) struct EdgeSettings {
    #[serde(default)]
    pub(in crate::inference) name: String,
    /// Index of the batch axis.
    pub(in crate::inference) batch_axis: Option<usize>,
}

impl ModelSettings {
    /// # Errors
    /// Every problem: the line, the key, what is wrong, and what to write.
    pub(in crate::inference) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let settings: Self = toml::from_str(text).map_err(|error| vec![describe(text, &error)])?;
        let problems = settings.problems();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// The entries of all inputs and outputs.
    pub(in crate::inference) fn edges(&self) -> Vec<EdgeSettings> {
        self.inputs.iter().chain(&self.outputs).cloned().collect()
    }

    /// How to load the graph.
    pub(in crate::inference) fn load_request(&self) -> LoadRequest {
        let options =
            self.threads.map_or_else(LoadOptions::default, |threads| LoadOptions { threads });
        LoadRequest { backend: self.backend, options }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(threads) = self.threads {
            if !(1..=MAX_THREADS).contains(&threads) {
                problems
                    .push(format!("threads = {threads}: write a number from 1 to {MAX_THREADS}"));
            }
            if threads > 1 && self.backend == Some(BackendName::Lean) {
                problems.push(format!(
                    "threads = {threads}: the lean backend uses one thread; remove `threads` or `backend`"
                ));
            }
        }
        if let Some(batching) = &self.batching {
            if self.placement != Placement::Auto {
                problems.push(
                    "a model with `[batching]` runs on compute threads: remove `placement` or \
                     `[batching]`"
                        .to_owned(),
                );
            }
            problems.extend(batching.check().err().map(str::to_owned));
        }
        problems
    }
}

/// ``line 3: `threads = "two"`: invalid type: ...``
fn describe(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let Some(start) = error.span().map(|span| span.start.min(text.len())) else {
        return message.to_owned();
    };
    let before = text.get(..start).unwrap_or_default();
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    format!("line {}: `{}`: {message}", number + 1, crate::process::text::shortened(line))
}
