//! Classifies handwritten digits, from 8x8 pixels or from a PNG of up to 2048x2048.

mod decode;
#[cfg(test)]
mod fuzzing;
mod picture;

use model_sdk::{Error, File, Graph, Model, Prediction, Rows, Tensor};

use crate::picture::{PIXELS, pixels};

struct Digits;

impl Model for Digits {
    const NAME: &'static str = "digits-classifier";
    const FILE: Option<File> = Some(File::new("image", "image/png"));

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let pixels = match rows.bytes {
            [png] => Tensor::f32("pixels", &[1, PIXELS], &pixels(png)?),
            _ => rows.tensor("pixels", &[PIXELS]),
        };
        let [indices, probabilities] = graph.compute([pixels], ["label", "probabilities"])?;
        Ok(Prediction::Classes { indices, probabilities })
    }
}

model_sdk::export!(Digits);
