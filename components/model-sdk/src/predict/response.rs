//! The short form's answer.

use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::prediction::{Answer, Prediction};
use crate::signature::Signature;

pub(super) struct Body<'a> {
    pub(super) signature: &'a Signature,
    pub(super) id: Option<&'a str>,
    pub(super) answers: Answers<'a>,
}

pub(super) enum Answers<'a> {
    /// To one row: written as fields of the response.
    One(&'a Prediction),
    /// To several.
    Many(&'a [Prediction]),
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { signature, .. } = *self;
        let Signature { name, version, .. } = signature;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("model", name)?;
        object.serialize_entry("version", version)?;
        if let Some(id) = self.id {
            object.serialize_entry("id", id)?;
        }
        match self.answers {
            Answers::One(prediction) => {
                for answer in prediction.answers(signature) {
                    answer.map_err(S::Error::custom)?.write(&mut object)?;
                }
            }
            Answers::Many(predictions) => {
                object.serialize_entry("predictions", &Items { signature, predictions })?;
            }
        }
        object.end()
    }
}

/// `[{"prediction": "setosa", ...}, ...]`
struct Items<'a> {
    signature: &'a Signature,
    predictions: &'a [Prediction],
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(None)?;
        for answer in self.predictions.iter().flat_map(|some| some.answers(self.signature)) {
            items.serialize_element(&Item(answer.map_err(S::Error::custom)?))?;
        }
        items.end()
    }
}

struct Item<'a>(Answer<'a>);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        self.0.write(&mut object)?;
        object.end()
    }
}
