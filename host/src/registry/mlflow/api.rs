//! The part of MLflow's REST API (`api/2.0/mlflow` of MLflow 2 and 3) that locates a model.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::client::MlflowClient;
use super::error::MlflowError;

/// Maximum number of versions, aliases or models listed in a message.
const MAX_LISTED: usize = 20;

/// A version of a registered model.
#[derive(Clone, Debug, Deserialize)]
pub struct MlflowVersion {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub run_id: String,
    /// `models:/m-...` if the version was registered from a logged model.
    #[serde(default)]
    pub source: String,
    /// `READY`, unless the registration is pending or failed.
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// A tag of a run, model or version.
#[derive(Clone, Debug, Deserialize)]
pub struct Tag {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// A metric. MLflow writes numbers that are not finite as strings.
#[derive(Clone, Debug, Deserialize)]
pub struct Metric {
    pub key: String,
    #[serde(default)]
    pub value: Value,
}

/// A run: its metrics and logged models.
#[derive(Clone, Debug, Deserialize)]
pub struct MlflowRun {
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
    /// Logged models, in MLflow 3.
    #[serde(default)]
    pub model_outputs: Vec<ModelOutput>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ModelOutput {
    pub model_id: String,
}

/// A logged model of MLflow 3, which has an id.
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

/// A response: an object with one field.
macro_rules! wrapper {
    ($name:ident { $field:ident: $type:ty }) => {
        #[derive(Deserialize)]
        struct $name {
            $field: $type,
        }
    };
}

wrapper!(OfVersion { model_version: MlflowVersion });
wrapper!(OfUri { artifact_uri: String });
wrapper!(OfRun { run: MlflowRun });
wrapper!(OfLoggedModel { model: LoggedModel });
wrapper!(OfRegistered { registered_model: RegisteredModel });

#[derive(Deserialize)]
struct OfVersions {
    #[serde(default)]
    model_versions: Vec<MlflowVersion>,
}

#[derive(Deserialize)]
struct OfModels {
    #[serde(default)]
    registered_models: Vec<Named>,
}

#[derive(Deserialize)]
struct OfFiles {
    #[serde(default)]
    files: Vec<ListedFile>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct ListedFile {
    path: String,
}

impl MlflowClient {
    async fn request<T: serde::de::DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T> {
        let url = self.url(&[&["api", "2.0", "mlflow"], path].concat(), query)?;
        Ok(self.json(url).await?)
    }

    pub async fn version(&self, name: &str, version: u32) -> Result<MlflowVersion> {
        let number = version.to_string();
        let query = [("name", name), ("version", &number)];
        let found: Result<OfVersion> = self.request(&["model-versions", "get"], &query).await;
        match found {
            Ok(found) => Ok(found.model_version),
            Err(error) => Err(self.with_versions(error, name).await),
        }
    }

    pub async fn version_by_alias(&self, name: &str, alias: &str) -> Result<MlflowVersion> {
        let query = [("name", name), ("alias", alias)];
        let found: Result<OfVersion> = self.request(&["registered-models", "alias"], &query).await;
        match found {
            Ok(found) => Ok(found.model_version),
            Err(error) => Err(self.with_aliases(error, name).await),
        }
    }

    /// The version with the highest number.
    pub async fn latest(&self, name: &str) -> Result<MlflowVersion> {
        match self.versions(name, 1).await?.pop() {
            Some(version) => Ok(version),
            None => {
                let error = anyhow::anyhow!("the model \"{name}\" has no registered version");
                Err(self.with_models(error).await)
            }
        }
    }

    /// The latest versions, in descending order.
    async fn versions(&self, name: &str, limit: usize) -> Result<Vec<MlflowVersion>> {
        let quote = if name.contains('\'') { '"' } else { '\'' };
        let (filter, limit) = (format!("name={quote}{name}{quote}"), limit.to_string());
        let query =
            [("filter", &*filter), ("order_by", "version_number DESC"), ("max_results", &limit)];
        let found: OfVersions = self.request(&["model-versions", "search"], &query).await?;
        Ok(found.model_versions)
    }

    /// URI of the artifacts of a version.
    pub async fn download_uri(&self, name: &str, version: &str) -> Result<String> {
        let query = [("name", name), ("version", version)];
        let found: OfUri = self.request(&["model-versions", "get-download-uri"], &query).await?;
        Ok(found.artifact_uri)
    }

    pub async fn run(&self, id: &str) -> Result<MlflowRun> {
        let found: OfRun = self.request(&["runs", "get"], &[("run_id", id)]).await?;
        Ok(found.run)
    }

    pub async fn logged_model(&self, id: &str) -> Result<LoggedModel> {
        let found: OfLoggedModel = self.request(&["logged-models", id], &[]).await?;
        Ok(found.model)
    }

    /// The first artifacts at the root of a run, for a message; empty if they cannot be listed.
    pub async fn artifacts(&self, run: &str) -> Vec<String> {
        let found: Result<OfFiles> = self.request(&["artifacts", "list"], &[("run_id", run)]).await;
        let files = found.map(|found| found.files).unwrap_or_default();
        files.into_iter().map(|file| file.path).take(MAX_LISTED).collect()
    }

    /// Adds the existing versions to the error for a missing one.
    async fn with_versions(&self, error: anyhow::Error, name: &str) -> anyhow::Error {
        if !is_missing(&error) {
            return error;
        }
        match self.versions(name, MAX_LISTED).await {
            Ok(versions) if !versions.is_empty() => {
                let numbers: Vec<_> = versions.into_iter().map(|of| of.version).collect();
                anyhow::anyhow!("{error:#}; existing versions: {}", numbers.join(", "))
            }
            _ => self.with_models(error).await,
        }
    }

    /// Adds the existing aliases to the error for a missing one.
    async fn with_aliases(&self, error: anyhow::Error, name: &str) -> anyhow::Error {
        if !is_missing(&error) {
            return error;
        }
        let found: Result<OfRegistered> =
            self.request(&["registered-models", "get"], &[("name", name)]).await;
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
            return anyhow::anyhow!(
                "{error:#}; there are no aliases; write models:/{name}/<version>"
            );
        }
        anyhow::anyhow!("{error:#}; existing aliases: {}", aliases.join(", "))
    }

    /// Adds the registered models to the error for a missing one.
    async fn with_models(&self, error: anyhow::Error) -> anyhow::Error {
        let limit = MAX_LISTED.to_string();
        let found: Result<OfModels> =
            self.request(&["registered-models", "search"], &[("max_results", &limit)]).await;
        let names: Vec<_> = match found {
            Ok(found) => found.registered_models.into_iter().map(|of| of.name).collect(),
            Err(_) => return error,
        };
        if names.is_empty() {
            return anyhow::anyhow!("{error:#}; no model is registered");
        }
        anyhow::anyhow!("{error:#}; registered models: {}", names.join(", "))
    }
}

/// Whether MLflow reported that the item does not exist.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<MlflowError>().is_some_and(MlflowError::is_missing)
}
