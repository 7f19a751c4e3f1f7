//! The response of the short form.

use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::prediction::Prediction;
use crate::row_prediction::RowPrediction;
use crate::signature::Signature;

pub(super) struct PredictResponseBody<'a> {
    pub(super) signature: &'a Signature,
    pub(super) id: Option<&'a str>,
    pub(super) predictions: RowPredictions<'a>,
}

pub(super) enum RowPredictions<'a> {
    /// The prediction of one row, whose entries are those of the response.
    One(&'a Prediction),
    /// The predictions of an array of rows, as an array.
    Many(&'a [Prediction]),
}

impl Serialize for PredictResponseBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { signature, .. } = *self;
        let Signature { name, version, .. } = signature;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("model", name)?;
        object.serialize_entry("version", version)?;
        if let Some(id) = self.id {
            object.serialize_entry("id", id)?;
        }
        match self.predictions {
            RowPredictions::One(prediction) => {
                for row in prediction.by_row(signature) {
                    row.map_err(S::Error::custom)?.write(&mut object)?;
                }
            }
            RowPredictions::Many(predictions) => {
                object
                    .serialize_entry("predictions", &PredictionArray { signature, predictions })?;
            }
        }
        object.end()
    }
}

/// `[{"prediction": "setosa", ...}, ...]`
struct PredictionArray<'a> {
    signature: &'a Signature,
    predictions: &'a [Prediction],
}

impl Serialize for PredictionArray<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(None)?;
        for row in self.predictions.iter().flat_map(|some| some.by_row(self.signature)) {
            items.serialize_element(&PredictionObject(row.map_err(S::Error::custom)?))?;
        }
        items.end()
    }
}

/// `{"prediction": "setosa", ...}`
struct PredictionObject<'a>(RowPrediction<'a>);

impl Serialize for PredictionObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        self.0.write(&mut object)?;
        object.end()
    }
}
