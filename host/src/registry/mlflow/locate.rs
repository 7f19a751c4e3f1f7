//! Locates a model on a tracking server or in a folder, with a few small requests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::api::{LoggedModel, MlflowRun, MlflowVersion};
use super::client::MlflowClient;
use super::mlmodel::MLMODEL;
use super::source::ModelSource;
use super::store::{ArtifactAccess, ModelFolder};

/// Maximum number of models of a run that are requested.
pub(super) const MAX_OUTPUTS: usize = 100;

/// Locates models, in folders or on a tracking server.
#[derive(Debug)]
pub struct Locator {
    pub client: Option<MlflowClient>,
}

/// A located model.
#[derive(Debug)]
pub struct Located<'a> {
    pub(super) store: ModelFolder<'a>,
    pub(super) client: Option<&'a MlflowClient>,
    /// The requested source.
    pub(super) source: ModelSource,
    /// Name for the model, if the source has one.
    pub name: Option<String>,
    /// Number of the registered version.
    pub version: Option<u32>,
    pub(super) registered: Option<MlflowVersion>,
    pub(super) alias: Option<String>,
    pub(super) run: Option<MlflowRun>,
    pub(super) logged: Option<LoggedModel>,
}

impl Locator {
    /// Locates `source`.
    ///
    /// # Errors
    /// If the server cannot be reached or has no such model.
    pub async fn locate(&self, source: &ModelSource) -> Result<Located<'_>> {
        if let ModelSource::Folder(folder) = source {
            return in_folder(source, folder);
        }
        let client = self.client.as_ref().context("no tracking server is set")?;
        match source {
            ModelSource::Version { name, version } => {
                let found = client.version(name, *version).await?;
                registered(client, source, found, None).await
            }
            ModelSource::Latest { name } => {
                let found = client.latest(name).await?;
                registered(client, source, found, None).await
            }
            ModelSource::Alias { name, alias } => {
                let found = client.version_by_alias(name, alias).await?;
                registered(client, source, found, Some(alias.clone())).await
            }
            ModelSource::LoggedModel { id } => {
                let found = client.logged_model(id).await?;
                logged(client, source, found)
            }
            ModelSource::Run { id, path } => of_run(client, source, id, path).await,
            ModelSource::Artifacts { uri } => {
                let owner = ArtifactAccess::Proxied(Vec::new());
                let access = ArtifactAccess::at(uri, client.base(), owner)?;
                let last = uri.trim_end_matches('/').rsplit('/').next();
                let name = last.filter(|last| *last != "artifacts").map(str::to_owned);
                let store = ModelFolder::Server { client, access };
                Ok(Located { name, ..Located::new(store, Some(client), source) })
            }
            ModelSource::Folder(_) => bail!("{source}: a folder is not on a server"),
        }
    }
}

impl<'a> Located<'a> {
    fn new(store: ModelFolder<'a>, client: Option<&'a MlflowClient>, source: &ModelSource) -> Self {
        Self {
            store,
            client,
            source: source.clone(),
            name: None,
            version: None,
            registered: None,
            alias: None,
            run: None,
            logged: None,
        }
    }
}

/// A model in a local folder.
fn in_folder(source: &ModelSource, folder: &Path) -> Result<Located<'static>> {
    ensure!(folder.exists(), "{}: there is no such folder", folder.display());
    // The source may also be the MLmodel file itself.
    let is_file = folder.is_file() && folder.file_name().is_some_and(|name| name == MLMODEL);
    let folder: PathBuf = match folder.parent() {
        Some(parent) if is_file && parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) if is_file => parent.to_owned(),
        _ => folder.to_owned(),
    };
    ensure!(
        folder.join(MLMODEL).is_file(),
        "{}: there is no {MLMODEL} file in it: this is not the folder of an MLflow model",
        folder.display()
    );
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let name = absolute.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    Ok(Located { name, ..Located::new(ModelFolder::Folder(folder), None, source) })
}

async fn registered<'a>(
    client: &'a MlflowClient,
    source: &ModelSource,
    found: MlflowVersion,
    alias: Option<String>,
) -> Result<Located<'a>> {
    let MlflowVersion { name, version, status, .. } = &found;
    ensure!(
        status.is_empty() || status == "READY",
        "{source}: version {version} of {name} is {status}, not READY"
    );
    let uri = client.download_uri(name, version).await?;
    let owner = ArtifactAccess::Version { name: name.clone(), version: version.clone() };
    let access = ArtifactAccess::at(&uri, client.base(), owner)?;
    let store = ModelFolder::Server { client, access };
    Ok(Located {
        name: Some(name.clone()),
        version: version.parse().ok(),
        registered: Some(found),
        alias,
        ..Located::new(store, Some(client), source)
    })
}

fn logged<'a>(
    client: &'a MlflowClient,
    source: &ModelSource,
    found: LoggedModel,
) -> Result<Located<'a>> {
    let info = &found.info;
    let owner = ArtifactAccess::LoggedModel { id: info.model_id.clone() };
    let access = ArtifactAccess::at(&info.artifact_uri, client.base(), owner)?;
    let store = ModelFolder::Server { client, access };
    let name = (!info.name.is_empty()).then(|| info.name.clone());
    Ok(Located { name, logged: Some(found), ..Located::new(store, Some(client), source) })
}

/// A model logged by a run: in MLflow 3 it has an id and a name, in MLflow 2 it is an artifact of the
/// run.
async fn of_run<'a>(
    client: &'a MlflowClient,
    source: &ModelSource,
    id: &str,
    path: &str,
) -> Result<Located<'a>> {
    let run = client.run(id).await?;
    let mut names = Vec::new();
    for output in run.outputs.model_outputs.iter().take(MAX_OUTPUTS) {
        let found = client.logged_model(&output.model_id).await?;
        if !path.is_empty() && found.info.name == path {
            return Ok(Located { run: Some(run), ..logged(client, source, found)? });
        }
        names.push(found.info.name);
    }
    if path.is_empty() {
        names.extend(client.artifacts(id).await);
        bail!(
            "{source}: the name of the model is missing; write runs:/{id}/<name>; in the run are: {}",
            list(&names)
        );
    }
    let owner = ArtifactAccess::Run { id: id.to_owned(), path: path.to_owned() };
    let access = ArtifactAccess::at(&run.info.artifact_uri, client.base(), owner)?;
    let store = ModelFolder::Server { client, access };
    let name = path.rsplit('/').next().map(str::to_owned);
    Ok(Located { name, run: Some(run), ..Located::new(store, Some(client), source) })
}

/// Names for a message.
pub(super) fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
