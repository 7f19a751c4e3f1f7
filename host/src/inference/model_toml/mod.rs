//! `model.toml` of a version folder: read, and compared with the graph next to it.
//!
//! - `settings`: the keys that only the host reads. The others are those of `spinfer-model-toml`, which
//!   components read with the same code.
//! - `comparison`: what the file declares, compared with the inputs and outputs of the graph
//! - `graph_tensors`: those inputs and outputs, as the ONNX file or the loaded graph declares them

mod comparison;
mod graph_tensors;
mod settings;

use spinfer_model_toml::{ModelToml, UnknownKey, unknown_keys};

pub use comparison::check_loaded;
pub(super) use comparison::compare;
pub(super) use graph_tensors::GraphTensors;
pub use graph_tensors::datatype;
pub(super) use settings::{EdgeSettings, ModelSettings};

/// Similarity from which a known key is suggested for an unknown one.
const SIMILAR: f64 = 0.75;

/// A valid `model.toml`.
#[derive(Clone, Debug)]
pub(super) struct DeclaredModel {
    pub(super) model: ModelToml,
    pub(super) settings: ModelSettings,
}

impl DeclaredModel {
    /// Reads the `model.toml` of the model `name`.
    ///
    /// # Errors
    /// Every problem: the line, the key, what is wrong, and what to write.
    pub(super) fn read(text: &str, name: &str) -> Result<Self, Vec<String>> {
        let unknown = unknown_keys(text);
        let model = ModelToml::read(text, name);
        let settings = ModelSettings::parse(text);
        match (model, settings) {
            (Ok(model), Ok(settings)) if unknown.is_empty() => Ok(Self { model, settings }),
            (model, settings) => {
                let mut problems: Vec<_> = unknown.iter().map(describe).collect();
                problems.extend(model.err().unwrap_or_default());
                // Both readers report a line that is not TOML, or of another type.
                let is_new = |problem: &String| {
                    line(problem).is_none_or(|at| !problems.iter().any(|it| line(it) == Some(at)))
                };
                let settings = settings.err().unwrap_or_default();
                let new: Vec<_> = settings.into_iter().filter(is_new).collect();
                problems.extend(new);
                Err(problems)
            }
        }
    }
}

/// The line that a problem names.
fn line(problem: &str) -> Option<&str> {
    problem.strip_prefix("line ")?.split_once(':').map(|(line, _)| line)
}

/// `line 5: `lables` is not a key of model.toml; did you mean `labels`?`
fn describe(UnknownKey { line, table, key, known }: &UnknownKey) -> String {
    let fix = match nearest(key, known.iter().copied()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => format!("known keys: {}", known.join(", ")),
    };
    format!("line {line}: `{table}{}` is not a key of model.toml; {fix}", key.escape_debug())
}

/// The most similar of `known`, if one is.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similar = known.map(|known| (strsim::jaro_winkler(text, known), known));
    similar
        .filter(|(score, _)| *score >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IRIS: &str = include_str!("../../../../models/iris-classifier/1/model.toml");

    fn problems(from: &str, to: &str) -> Vec<String> {
        assert!(IRIS.contains(from), "{from}");
        DeclaredModel::read(&IRIS.replacen(from, to, 1), "iris-classifier").unwrap_err()
    }

    #[test]
    fn unknown_key_is_refused_with_the_similar_one() {
        for (from, to, expected) in [
            (
                "labels =",
                "lables =",
                "line 5: `lables` is not a key of model.toml; did you mean `labels`?",
            ),
            (
                "datatype = \"FP32\"\nshape = [-1, 4]",
                "datatype = \"FP32\"\nshape = [-1, 4]\nbatchaxis = 0",
                "line 11: `inputs[0].batchaxis` is not a key of model.toml; did you mean `batch_axis`?",
            ),
            (
                "[provenance]",
                "[batching]\nmax_batch_size = 8\nzzz = '1ms'\n[provenance]",
                "line 25: `batching.zzz` is not a key of model.toml; known keys: max_batch_size, \
                 max_queue_delay",
            ),
            (
                "labels =",
                "zzz = 1\nlabels =",
                "line 5: `zzz` is not a key of model.toml; known keys: name, ",
            ),
        ] {
            let found = problems(from, to);
            assert!(found[0].starts_with(expected), "{found:?}");
        }
    }

    #[test]
    fn every_problem_is_reported_once() {
        let found = problems("labels =", "threads = 0\nplacement = 'gpu'\nlables =");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("lables"), "{found:?}");
        assert!(
            found[1].starts_with("line 6: `placement = 'gpu'`: unknown variant `gpu`"),
            "{found:?}"
        );
        assert_eq!(problems("labels =", "labels = 5\n=").len(), 1);
        let found = problems("shape = [-1, 4]", "shape = [-1, 4]\nbatch_axis = 'x'");
        assert_eq!(found.len(), 1, "{found:?}");
        let two =
            problems("labels =", "threads = 0\n[batching]\nmax_batch_size = 1\n[labels]\nx =");
        assert!(two.iter().any(|it| it.contains("from 1 to 64")), "{two:?}");
        assert!(two.iter().any(|it| it.contains("at least 2")), "{two:?}");
    }
}
