//! From a [`Source`] to a graph with its origin: found first, which is a few small requests, then
//! fetched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use toml_edit::{Item, Table, Value, value};

use super::api::{LoggedModel, Metric, ModelVersion, Run, Tag, is_missing};
use super::client::Client;
use super::mlmodel::{MAX_MLMODEL, MLMODEL, MlModel};
use super::paths;
use super::source::Source;
use super::store::{Artifacts, Store};
use crate::cli::add::external::{self, MAX_GRAPH, SideFile};
use crate::inference::hex;

/// Metrics and tags that go into `model.toml`, of each.
const MAX_ENTRIES: usize = 100;
/// Maximum length of a tag's or a metric's name, in bytes: MLflow's own.
const MAX_KEY: usize = 250;
/// Maximum length of a tag's text, in bytes. Some hold whole documents.
const MAX_TAG: usize = 1000;
/// Where MLflow puts tags of its own. They tell of the machine and of the user.
const OWN_TAGS: &str = "mlflow.";
/// The one of those that tells of the model.
const COMMIT: &str = "mlflow.source.git.commit";

/// Finds models: on a tracking server, if there is one.
#[derive(Debug)]
pub struct Locator {
    pub client: Option<Client>,
}

/// A model that was found.
#[derive(Debug)]
pub struct Located<'a> {
    store: Store<'a>,
    client: Option<&'a Client>,
    /// As it was asked for.
    source: Source,
    /// What to call it here.
    pub name: Option<String>,
    /// The number of its registered version.
    pub version: Option<u32>,
    registered: Option<ModelVersion>,
    alias: Option<String>,
    run: Option<Run>,
    logged: Option<LoggedModel>,
}

/// A graph that is complete in itself, with its origin.
#[derive(Debug)]
pub struct Fetched {
    pub graph: Vec<u8>,
    /// The graph's file as MLflow calls it.
    pub file: String,
    /// The SHA-256 of that file, if data of side files was put into the graph.
    pub inlined: Option<String>,
    /// The columns of its signature, if it has names.
    pub columns: Vec<String>,
    /// `[provenance]` of `model.toml`: the tables `mlflow`, `metrics` and `tags`.
    pub provenance: Table,
}

impl Locator {
    /// Finds what `source` means.
    pub async fn locate(&self, source: &Source) -> Result<Located<'_>> {
        if let Source::Folder(folder) = source {
            return in_folder(source, folder);
        }
        let client = self.client.as_ref().context("no tracking server is named")?;
        match source {
            Source::Version { name, version } => {
                let found = client.version(name, *version).await?;
                registered(client, source, found, None).await
            }
            Source::Latest { name } => {
                let found = client.latest(name).await?;
                registered(client, source, found, None).await
            }
            Source::Alias { name, alias } => {
                let found = client.version_by_alias(name, alias).await?;
                registered(client, source, found, Some(alias.clone())).await
            }
            Source::LoggedModel { id } => {
                let found = client.logged_model(id).await?;
                logged(client, source, found)
            }
            Source::Run { id, path } => of_run(client, source, id, path).await,
            Source::Artifacts { uri } => {
                let owner = Artifacts::Proxied(Vec::new());
                let place = Artifacts::at(uri, client.base(), owner)?;
                let last = uri.trim_end_matches('/').rsplit('/').next();
                let name = last.filter(|last| *last != "artifacts").map(str::to_owned);
                let store = Store::Server { client, place };
                Ok(Located { name, ..Located::new(store, Some(client), source) })
            }
            Source::Folder(_) => bail!("{source}: a folder is not on a server"),
        }
    }
}

/// A model in a folder of this machine.
fn in_folder(source: &Source, folder: &Path) -> Result<Located<'static>> {
    ensure!(folder.exists(), "{}: there is no such folder", folder.display());
    // The file itself may be named, too.
    let is_file = folder.is_file() && folder.file_name().is_some_and(|name| name == MLMODEL);
    let folder: PathBuf = match folder.parent() {
        Some(above) if is_file && above.as_os_str().is_empty() => PathBuf::from("."),
        Some(above) if is_file => above.to_owned(),
        _ => folder.to_owned(),
    };
    ensure!(
        folder.join(MLMODEL).is_file(),
        "{}: no {MLMODEL} in it: this is not the folder of an MLflow model",
        folder.display()
    );
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let name = absolute.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    Ok(Located { name, ..Located::new(Store::Folder(folder), None, source) })
}

async fn registered<'a>(
    client: &'a Client,
    source: &Source,
    found: ModelVersion,
    alias: Option<String>,
) -> Result<Located<'a>> {
    let ModelVersion { name, version, status, .. } = &found;
    ensure!(
        status.is_empty() || status == "READY",
        "{source}: version {version} of {name} is {status}, and not READY"
    );
    let uri = client.download_uri(name, version).await?;
    let owner = Artifacts::Version { name: name.clone(), version: version.clone() };
    let place = Artifacts::at(&uri, client.base(), owner)?;
    let store = Store::Server { client, place };
    Ok(Located {
        name: Some(name.clone()),
        version: version.parse().ok(),
        registered: Some(found),
        alias,
        ..Located::new(store, Some(client), source)
    })
}

fn logged<'a>(client: &'a Client, source: &Source, found: LoggedModel) -> Result<Located<'a>> {
    let info = &found.info;
    let owner = Artifacts::LoggedModel { id: info.model_id.clone() };
    let place = Artifacts::at(&info.artifact_uri, client.base(), owner)?;
    let store = Store::Server { client, place };
    let name = (!info.name.is_empty()).then(|| info.name.clone());
    Ok(Located { name, logged: Some(found), ..Located::new(store, Some(client), source) })
}

/// A model that a run logged: MLflow 3 gives it an id and a name, MLflow 2 puts it among the run's
/// artifacts.
async fn of_run<'a>(
    client: &'a Client,
    source: &Source,
    id: &str,
    path: &str,
) -> Result<Located<'a>> {
    let run = client.run(id).await?;
    let mut names = Vec::new();
    for output in run.outputs.model_outputs.iter().take(MAX_ENTRIES) {
        let found = client.logged_model(&output.model_id).await?;
        if !path.is_empty() && found.info.name == path {
            return Ok(Located { run: Some(run), ..logged(client, source, found)? });
        }
        names.push(found.info.name);
    }
    if path.is_empty() {
        names.extend(client.artifacts(id).await);
        bail!(
            "{source}: which model of the run is not said; write runs:/{id}/<name>; in the run are: {}",
            list(&names)
        );
    }
    let owner = Artifacts::Run { id: id.to_owned(), path: path.to_owned() };
    let place = Artifacts::at(&run.info.artifact_uri, client.base(), owner)?;
    let store = Store::Server { client, place };
    let name = path.rsplit('/').next().map(str::to_owned);
    Ok(Located { name, run: Some(run), ..Located::new(store, Some(client), source) })
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl<'a> Located<'a> {
    fn new(store: Store<'a>, client: Option<&'a Client>, source: &Source) -> Self {
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

    /// Fetches it. What is large is in files without a name in `scratch` until it is in the graph.
    pub async fn fetch(mut self, scratch: &Path) -> Result<Fetched> {
        let mlmodel = match self.store.read(MLMODEL, MAX_MLMODEL).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.without_mlmodel(error).await),
        };
        let shown = self.store.shown(MLMODEL);
        let mlmodel = MlModel::parse(&mlmodel).with_context(|| shown.clone())?;
        let bytes = self.store.read(&mlmodel.graph, MAX_GRAPH).await?;
        let shown = self.store.shown(&mlmodel.graph);
        let (graph, inlined) =
            self.complete(bytes, &mlmodel.graph, scratch).await.context(shown)?;
        self.find_run(&mlmodel).await?;
        Ok(Fetched {
            graph,
            inlined,
            file: mlmodel.graph.clone(),
            columns: mlmodel.columns.clone(),
            provenance: self.provenance(&mlmodel),
        })
    }

    /// `graph` with the data of its side files, which are beside it, and its SHA-256 without, if it has
    /// any.
    async fn complete(
        &self,
        graph: Vec<u8>,
        file: &str,
        scratch: &Path,
    ) -> Result<(Vec<u8>, Option<String>)> {
        let names = external::files(&graph)?;
        if names.is_empty() {
            return Ok((graph, None));
        }
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut files: BTreeMap<String, SideFile> = BTreeMap::new();
        let mut left = MAX_GRAPH;
        for name in names {
            paths::segments(&name).context("a side file of the graph")?;
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let side = self.store.side_file(&path, left, scratch).await?;
            left = left.saturating_sub(side.size);
            files.insert(name, side);
        }
        let sha256 = hex(&Sha256::digest(&graph));
        Ok((external::inline(&graph, &files)?, Some(sha256)))
    }

    /// An error of what is not the folder of a model, with what a run has instead.
    async fn without_mlmodel(&self, error: anyhow::Error) -> anyhow::Error {
        let (Source::Run { id, .. }, Some(client)) = (&self.source, self.client) else {
            return error.context(format!("no {MLMODEL} there"));
        };
        if !is_missing(&error) {
            return error;
        }
        let mut names = Vec::new();
        let outputs = self.run.iter().flat_map(|run| &run.outputs.model_outputs);
        for output in outputs.take(MAX_ENTRIES) {
            if let Ok(found) = client.logged_model(&output.model_id).await {
                names.push(found.info.name);
            }
        }
        names.extend(client.artifacts(id).await);
        error.context(format!("no such model in the run; in it are: {}", list(&names)))
    }

    /// The run that made it, for its metrics and tags. One that was deleted is missing, no more.
    async fn find_run(&mut self, mlmodel: &MlModel) -> Result<()> {
        let Some(client) = self.client.filter(|_| self.run.is_none()) else { return Ok(()) };
        let registered = self.registered.as_ref().map(|version| version.run_id.as_str());
        let logged = self.logged.as_ref().map(|model| model.info.source_run_id.as_str());
        let ids = [registered, logged, mlmodel.run_id.as_deref()];
        let Some(id) = ids.into_iter().flatten().find(|id| !id.is_empty()) else { return Ok(()) };
        match client.run(id).await {
            Ok(run) => self.run = Some(run),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn provenance(&self, mlmodel: &MlModel) -> Table {
        let mut mlflow = Table::new();
        let mut put = |key: &str, text: Option<&str>| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                mlflow[key] = value(text);
            }
        };
        put("source", Some(&self.source.to_string()));
        put("tracking_uri", self.client.map(|client| client.base().as_str()));
        let (registered, run) = (self.registered.as_ref(), self.run.as_ref());
        put("registered_model", registered.map(|version| version.name.as_str()));
        put("registered_version", registered.map(|version| version.version.as_str()));
        put("alias", self.alias.as_deref());
        let run_id = run.map(|run| run.info.run_id.as_str()).or(mlmodel.run_id.as_deref());
        put("run_id", run_id);
        let logged = self.logged.as_ref().map(|model| model.info.model_id.as_str());
        let of_version = registered.and_then(|version| version.source.strip_prefix("models:/"));
        put("model_id", logged.or(mlmodel.model_id.as_deref()).or(of_version));
        put("mlflow_version", mlmodel.mlflow_version.as_deref());
        put("onnx_version", mlmodel.onnx_version.as_deref());

        let mut provenance = Table::new();
        provenance["mlflow"] = Item::Table(mlflow);
        // A run's are as they were logged; a logged model's copies have 0 for what is not a number.
        let run_metrics = run.map(|run| run.data.metrics.as_slice());
        let logged_metrics = self.logged.as_ref().map(|model| model.data.metrics.as_slice());
        let metrics = run_metrics.or(logged_metrics).unwrap_or_default();
        let tags = [
            run.map(|run| run.data.tags.as_slice()),
            self.logged.as_ref().map(|model| model.info.tags.as_slice()),
            registered.map(|version| version.tags.as_slice()),
        ];
        table(&mut provenance, "metrics", finite(metrics));
        table(&mut provenance, "tags", telling(tags.into_iter().flatten().flatten()));
        provenance
    }
}

fn table(provenance: &mut Table, name: &str, entries: BTreeMap<String, Value>) {
    if entries.is_empty() {
        return;
    }
    let mut table = Table::new();
    for (key, entry) in entries {
        table[&key] = Item::Value(entry);
    }
    provenance[name] = Item::Table(table);
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY && !key.contains(char::is_control)
}

/// The metrics that are finite numbers. MLflow's database has the greatest one for infinity.
fn finite(metrics: &[Metric]) -> BTreeMap<String, Value> {
    let number = |metric: &Metric| metric.value.as_f64().filter(|number| number.abs() < f64::MAX);
    let entries = metrics.iter().filter(|metric| is_key(&metric.key));
    let entries = entries.filter_map(|metric| Some((metric.key.clone(), number(metric)?.into())));
    entries.take(MAX_ENTRIES).collect()
}

/// The tags that people set, and the commit; the last of a name counts.
fn telling<'a>(tags: impl Iterator<Item = &'a Tag>) -> BTreeMap<String, Value> {
    let is_telling = |tag: &&Tag| {
        let own = tag.key.starts_with(OWN_TAGS) && tag.key != COMMIT;
        is_key(&tag.key) && !own && tag.value.len() <= MAX_TAG
    };
    let entries = tags.filter(is_telling).map(|tag| (tag.key.clone(), tag.value.as_str().into()));
    entries.take(MAX_ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_are_finite_numbers() {
        let metric = |key: &str, value| Metric { key: key.into(), value };
        let metrics = [
            metric("accuracy", json!(0.96)),
            metric("steps", json!(3)),
            metric("nan", json!("NaN")),
            metric("infinite", json!(f64::MAX)),
            metric("", json!(1)),
            metric("a\nb", json!(1)),
        ];
        let finite = finite(&metrics);
        assert_eq!(finite.keys().collect::<Vec<_>>(), ["accuracy", "steps"]);
        assert_eq!(finite["accuracy"].as_float(), Some(0.96));
    }

    #[test]
    fn tags_are_what_people_set() {
        let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
        let tags = [
            tag("team", "botany"),
            tag("mlflow.user", "root"),
            tag(COMMIT, "ab12"),
            tag("notes", &"x".repeat(MAX_TAG + 1)),
            tag("team", "zoology"),
        ];
        let telling = telling(tags.iter());
        assert_eq!(telling.keys().collect::<Vec<_>>(), [COMMIT, "team"]);
        assert_eq!(telling["team"].as_str(), Some("zoology"));
        let many: Vec<_> = (0..500).map(|n| tag(&n.to_string(), "x")).collect();
        assert_eq!(super::telling(many.iter()).len(), MAX_ENTRIES);
    }
}
