//! Iris species from four measurements in centimetres.

use model_sdk::{Error, Graph, Model, Prediction, Tensor};

struct Iris;

impl Model for Iris {
    const NAME: &'static str = "iris-classifier";

    fn predict(graph: &Graph, features: &[f32]) -> Result<Prediction, Error> {
        let input = Tensor::f32("features", &[1, 4], features);
        let [label, probabilities] = graph.compute([input], ["label", "probabilities"])?;
        Ok(Prediction::Class { index: label.first_i64()?, probabilities: probabilities.f32s()? })
    }
}

model_sdk::export!(Iris);
