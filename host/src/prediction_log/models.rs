//! Metadata of the logged models: their classes, and the output with the probabilities. Read from
//! `model.toml` while a version is mounted, from the log's file afterwards.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, params};
use spinfer_model_toml::{ModelToml, TensorEntry};

/// The metadata of a model version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelInfo {
    pub model: String,
    pub version: String,
    /// Class names, in the order of the probabilities. Empty for a regression.
    pub labels: Vec<String>,
    /// Name of the output with a probability for each class.
    pub probabilities: Option<String>,
}

impl ModelInfo {
    /// Reads the metadata of the version in `folder`, which is mounted as the model `name`. `None`
    /// without a valid signature, which is reported when the application is resolved.
    #[must_use]
    pub fn read(name: &str, folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join("model.toml")).ok()?;
        Self::parse(name, &text)
    }

    fn parse(name: &str, text: &str) -> Option<Self> {
        let ModelToml { version, labels, outputs, .. } = ModelToml::parse(text).ok()?;
        let has_all = |output: &&TensorEntry| {
            let width = output.shape.last().and_then(|width| usize::try_from(*width).ok());
            output.is_float() && labels.len() > 1 && width == Some(labels.len())
        };
        let probabilities = outputs.iter().find(has_all).map(|output| output.name.clone());
        Some(Self { model: name.to_owned(), version, labels, probabilities })
    }

    /// The index of the class `label`.
    #[must_use]
    pub fn class(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|class| class == label)
    }
}

/// Metadata by model and version.
#[derive(Clone, Debug, Default)]
pub(super) struct LoggedModels(HashMap<String, HashMap<String, ModelInfo>>);

impl LoggedModels {
    /// Loads the metadata from the file.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut models = Self::default();
        let query = "SELECT model, version, labels, probabilities FROM models";
        let mut statement = connection.prepare(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let labels: String = row.get(2)?;
            models.add(ModelInfo {
                model: row.get(0)?,
                version: row.get(1)?,
                labels: serde_json::from_str(&labels).unwrap_or_default(),
                probabilities: row.get(3)?,
            });
        }
        Ok(models)
    }

    pub(super) fn add(&mut self, info: ModelInfo) {
        let versions = self.0.entry(info.model.clone()).or_default();
        versions.insert(info.version.clone(), info);
    }

    pub(super) fn get(&self, model: &str, version: &str) -> Option<&ModelInfo> {
        self.0.get(model)?.get(version)
    }
}

/// Writes `info` to the file.
pub(super) fn save(connection: &Connection, info: &ModelInfo) -> rusqlite::Result<()> {
    let ModelInfo { model, version, labels, probabilities } = info;
    let mut text = Vec::new();
    super::json::array(labels, &mut text);
    let mut statement = connection.prepare_cached(
        "INSERT INTO models (model, version, labels, probabilities) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET labels = ?3, probabilities = ?4
         WHERE labels IS NOT ?3 OR probabilities IS NOT ?4",
    )?;
    statement.execute(params![model, version, String::from_utf8_lossy(&text), probabilities])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_the_float_output_with_one_value_per_class() {
        let text = "name = 'm'\nversion = '1'\nlabels = ['a', 'b', 'c']\n\
                    [[inputs]]\nname = 'x'\ndatatype = 'FP32'\nshape = [-1]\n\
                    [[outputs]]\nname = 'label'\ndatatype = 'INT64'\nshape = [-1]\n\
                    [[outputs]]\nname = 'probabilities'\ndatatype = 'FP32'\nshape = [-1, 3]\n";
        let info = ModelInfo::parse("m", text).unwrap();
        assert_eq!((info.version.as_str(), info.class("b"), info.class("d")), ("1", Some(1), None));
        assert_eq!(info.probabilities.as_deref(), Some("probabilities"));
        let numbers = text.replace("['a', 'b', 'c']", "[3, 4]");
        let info = ModelInfo::parse("m", &numbers).unwrap();
        assert_eq!((info.class("4"), info.probabilities), (Some(1), None));
        assert_eq!(ModelInfo::parse("m", "labels = 3"), None);
    }
}
