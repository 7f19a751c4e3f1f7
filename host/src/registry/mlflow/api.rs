//! The part of MLflow's REST API that finds a model: `api/2.0/mlflow`, as MLflow 2 and 3 have it.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::client::Client;
use super::error::Error;

/// How many versions, aliases or models a message lists.
const MAX_LISTED: usize = 20;

/// A version of a registered model.
#[derive(Clone, Debug, Deserialize)]
pub struct ModelVersion {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub run_id: String,
    /// `models:/m-...` where the version was made of a logged model.
    #[serde(default)]
    pub source: String,
    /// `READY`, unless it is being made, or failed to be.
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// A word that someone put on a run, a model or a version.
#[derive(Clone, Debug, Deserialize)]
pub struct Tag {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// A measurement. MLflow writes numbers that are not finite as strings.
#[derive(Clone, Debug, Deserialize)]
pub struct Metric {
    pub key: String,
    #[serde(default)]
    pub value: Value,
}

/// A run: what was measured, and what it logged.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    pub info: RunInfo,
    #[serde(default)]
    pub data: RunData,
    #[serde(default)]
    pub outputs: Outputs,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RunInfo {
    pub run_id: String,
    #[serde(default)]
    pub artifact_uri: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct RunData {
    #[serde(default)]
    pub metrics: Vec<Metric>,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Outputs {
    /// Of MLflow 3.
    #[serde(default)]
    pub model_outputs: Vec<ModelOutput>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ModelOutput {
    pub model_id: String,
}

/// A model as MLflow 3 logs it: with an id of its own.
#[derive(Clone, Debug, Deserialize)]
pub struct LoggedModel {
    pub info: LoggedModelInfo,
    #[serde(default)]
    pub data: RunData,
}

#[derive(Clone, Debug, Deserialize)]
pub struct LoggedModelInfo {
    pub model_id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub artifact_uri: String,
    #[serde(default)]
    pub source_run_id: String,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

#[derive(Deserialize)]
struct RegisteredModel {
    #[serde(default)]
    aliases: Vec<Alias>,
}

#[derive(Deserialize)]
struct Alias {
    alias: String,
    version: Value,
}

/// A response is an object with one field.
macro_rules! wrapper {
    ($name:ident { $field:ident: $type:ty }) => {
        #[derive(Deserialize)]
        struct $name {
            $field: $type,
        }
    };
}

wrapper!(OfVersion { model_version: ModelVersion });
wrapper!(OfUri { artifact_uri: String });
wrapper!(OfRun { run: Run });
wrapper!(OfLoggedModel { model: LoggedModel });
wrapper!(OfRegistered { registered_model: RegisteredModel });

#[derive(Deserialize)]
struct OfVersions {
    #[serde(default)]
    model_versions: Vec<ModelVersion>,
}

#[derive(Deserialize)]
struct OfModels {
    #[serde(default)]
    registered_models: Vec<Named>,
}

#[derive(Deserialize)]
struct OfFiles {
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct File {
    path: String,
}

impl Client {
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T> {
        let url = self.url(&[&["api", "2.0", "mlflow"], path].concat(), query)?;
        Ok(self.json(url).await?)
    }

    pub async fn version(&self, name: &str, version: u32) -> Result<ModelVersion> {
        let number = version.to_string();
        let query = [("name", name), ("version", &number)];
        let found: Result<OfVersion> = self.ask(&["model-versions", "get"], &query).await;
        match found {
            Ok(found) => Ok(found.model_version),
            Err(error) => Err(self.with_versions(error, name).await),
        }
    }

    pub async fn version_by_alias(&self, name: &str, alias: &str) -> Result<ModelVersion> {
        let query = [("name", name), ("alias", alias)];
        let found: Result<OfVersion> = self.ask(&["registered-models", "alias"], &query).await;
        match found {
            Ok(found) => Ok(found.model_version),
            Err(error) => Err(self.with_aliases(error, name).await),
        }
    }

    /// The version with the highest number.
    pub async fn latest(&self, name: &str) -> Result<ModelVersion> {
        match self.versions(name, 1).await?.pop() {
            Some(version) => Ok(version),
            None => {
                let error = anyhow::anyhow!("no version of a model \"{name}\" is registered");
                Err(self.with_models(error).await)
            }
        }
    }

    /// The newest first.
    async fn versions(&self, name: &str, limit: usize) -> Result<Vec<ModelVersion>> {
        let quote = if name.contains('\'') { '"' } else { '\'' };
        let (filter, limit) = (format!("name={quote}{name}{quote}"), limit.to_string());
        let query =
            [("filter", &*filter), ("order_by", "version_number DESC"), ("max_results", &limit)];
        let found: OfVersions = self.ask(&["model-versions", "search"], &query).await?;
        Ok(found.model_versions)
    }

    /// Where the artifacts of a version are.
    pub async fn download_uri(&self, name: &str, version: &str) -> Result<String> {
        let query = [("name", name), ("version", version)];
        let found: OfUri = self.ask(&["model-versions", "get-download-uri"], &query).await?;
        Ok(found.artifact_uri)
    }

    pub async fn run(&self, id: &str) -> Result<Run> {
        let found: OfRun = self.ask(&["runs", "get"], &[("run_id", id)]).await?;
        Ok(found.run)
    }

    pub async fn logged_model(&self, id: &str) -> Result<LoggedModel> {
        let found: OfLoggedModel = self.ask(&["logged-models", id], &[]).await?;
        Ok(found.model)
    }

    /// The artifacts at the root of a run, as far as a message lists them; none if they cannot be had.
    pub async fn artifacts(&self, run: &str) -> Vec<String> {
        let found: Result<OfFiles> = self.ask(&["artifacts", "list"], &[("run_id", run)]).await;
        let files = found.map(|found| found.files).unwrap_or_default();
        files.into_iter().map(|file| file.path).take(MAX_LISTED).collect()
    }

    /// An error that names a version, with those there are.
    async fn with_versions(&self, error: anyhow::Error, name: &str) -> anyhow::Error {
        if !is_missing(&error) {
            return error;
        }
        match self.versions(name, MAX_LISTED).await {
            Ok(versions) if !versions.is_empty() => {
                let numbers: Vec<_> = versions.into_iter().map(|of| of.version).collect();
                anyhow::anyhow!("{error:#}; versions there are: {}", numbers.join(", "))
            }
            _ => self.with_models(error).await,
        }
    }

    async fn with_aliases(&self, error: anyhow::Error, name: &str) -> anyhow::Error {
        if !is_missing(&error) {
            return error;
        }
        let found: Result<OfRegistered> =
            self.ask(&["registered-models", "get"], &[("name", name)]).await;
        let Ok(found) = found else { return self.with_models(error).await };
        let aliases = found.registered_model.aliases.iter().take(MAX_LISTED);
        let aliases: Vec<_> = aliases
            .map(|of| {
                let version =
                    of.version.as_str().map_or_else(|| of.version.to_string(), str::to_owned);
                format!("{} (version {version})", of.alias)
            })
            .collect();
        if aliases.is_empty() {
            return anyhow::anyhow!("{error:#}; it has no alias: write models:/{name}/<version>");
        }
        anyhow::anyhow!("{error:#}; aliases there are: {}", aliases.join(", "))
    }

    /// An error that names a model, with those that are registered.
    async fn with_models(&self, error: anyhow::Error) -> anyhow::Error {
        let limit = MAX_LISTED.to_string();
        let found: Result<OfModels> =
            self.ask(&["registered-models", "search"], &[("max_results", &limit)]).await;
        let names: Vec<_> = match found {
            Ok(found) => found.registered_models.into_iter().map(|of| of.name).collect(),
            Err(_) => return error,
        };
        if names.is_empty() {
            return anyhow::anyhow!("{error:#}; no model is registered there");
        }
        anyhow::anyhow!("{error:#}; models that are registered: {}", names.join(", "))
    }
}

/// Whether it is MLflow that says so.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(Error::is_missing)
}
