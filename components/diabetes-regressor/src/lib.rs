//! Progression of diabetes one year after ten baseline measurements of a patient.

use model_sdk::{Error, Graph, Model, Prediction, Rows};

struct Diabetes;

impl Model for Diabetes {
    const NAME: &'static str = "diabetes-regressor";

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let features = rows.tensor("features", &[10]);
        let [progression] = graph.compute([features], ["progression"])?;
        Ok(Prediction::Numbers(progression))
    }
}

model_sdk::export!(Diabetes);
