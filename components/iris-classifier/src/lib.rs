//! Iris species from four measurements in centimetres.

use model_sdk::{Error, Graph, Model, Prediction, Rows};

struct Iris;

impl Model for Iris {
    const NAME: &'static str = "iris-classifier";

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let features = rows.tensor("features", &[4]);
        let [indices, probabilities] = graph.compute([features], ["label", "probabilities"])?;
        Ok(Prediction::Classes { indices, probabilities })
    }
}

model_sdk::export!(Iris);
