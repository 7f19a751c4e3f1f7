//! Identifies the language of a text.

mod ngrams;

use model_sdk::{Error, Graph, Mapping, Model, Prediction, Rows, Tensor};

use crate::ngrams::BUCKETS;

/// Maximum number of texts in a request: each is an input row of 16 kB.
const MAX_TEXTS: usize = 1024;
/// Maximum number of characters of a text in a message.
const MAX_QUOTED: usize = 40;

struct Language;

impl Model for Language {
    const NAME: &'static str = "language-identifier";
    const MAPPING: Option<Mapping> = Some(infer);

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let [indices, probabilities] = identify(graph, rows.bytes)?;
        Ok(Prediction::Classes { indices, probabilities })
    }
}

/// `text` -> `label`, `probabilities` and `language`, the name of the label.
fn infer(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let [text] = inputs else {
        return Err(Error::internal("model.toml has more inputs than `text`"));
    };
    let [label, probabilities] = identify(graph, &text.byte_strings()?)?;
    let labels = &graph.signature().labels;
    let name = |index| usize::try_from(index).ok().and_then(|index| labels.get(index));
    let names: Option<Vec<_>> = label.i64s()?.into_iter().map(name).collect();
    let names =
        names.ok_or_else(|| Error::internal("the graph returned a class without a label"))?;
    let language = Tensor::bytes("language", &label.dimensions, &names);
    Ok(vec![label, probabilities, language])
}

/// `label` and `probabilities` of texts.
fn identify(graph: &Graph, texts: &[impl AsRef<[u8]>]) -> Result<[Tensor; 2], Error> {
    if texts.len() > MAX_TEXTS {
        return Err(Error::too_large(format!(
            "expected at most {MAX_TEXTS} texts in a request, got {}",
            texts.len()
        )));
    }
    let width = BUCKETS as usize;
    let mut counts = vec![0.0; texts.len() * width];
    for (index, (text, counts)) in texts.iter().zip(counts.chunks_exact_mut(width)).enumerate() {
        let text = str::from_utf8(text.as_ref())
            .map_err(|_| Error::invalid(format!("text {index}: expected UTF-8")))?;
        ngrams::count(text, counts);
        if counts.iter().all(|&count| count == 0.0) {
            let start: String = text.chars().take(MAX_QUOTED).collect();
            return Err(Error::invalid(format!("text {index}: expected letters, got {start:?}")));
        }
    }
    let rows = u32::try_from(texts.len()).map_err(|_| Error::internal("bounded above"))?;
    let counts = Tensor::f32("counts", &[rows, BUCKETS], &counts);
    graph.compute([counts], ["label", "probabilities"])
}

model_sdk::export!(Language);
