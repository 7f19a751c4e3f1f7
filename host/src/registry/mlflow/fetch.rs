//! Fetches the graph of a located model, with its external weights and provenance.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use toml_edit::Table;

use super::api::is_missing;
use super::locate::{Located, MAX_OUTPUTS, list};
use super::mlmodel::{MAX_MLMODEL, MLMODEL, MlModel};
use super::paths;
use super::source::ModelSource;
use crate::cli::add::external::{self, MAX_GRAPH, SideFile};
use crate::inference::hex;

/// A graph with merged weights and its provenance.
#[derive(Debug)]
pub struct FetchedGraph {
    pub graph: Vec<u8>,
    /// Path of the graph in MLflow.
    pub file: String,
    /// SHA-256 of that file, if external weights were merged into the graph.
    pub inlined: Option<String>,
    /// Column names of the signature, if it has any.
    pub columns: Vec<String>,
    /// `[provenance]` of `model.toml`: the tables `mlflow`, `metrics` and `tags`.
    pub provenance: Table,
}

impl Located<'_> {
    /// Fetches the model. External weights are stored in unnamed temporary files in `scratch` until they
    /// are merged into the graph.
    ///
    /// # Errors
    /// If a file cannot be fetched, or the model has no valid ONNX flavour.
    pub async fn fetch(mut self, scratch: &Path) -> Result<FetchedGraph> {
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
        Ok(FetchedGraph {
            graph,
            inlined,
            file: mlmodel.graph.clone(),
            columns: mlmodel.columns.clone(),
            provenance: self.provenance(&mlmodel),
        })
    }

    /// `graph` with its external weights merged in; if it has any, also the SHA-256 of the original file.
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
            paths::segments(&name).context("location of external weights")?;
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let side = self.store.side_file(&path, left, scratch).await?;
            left = left.saturating_sub(side.size);
            files.insert(name, side);
        }
        let sha256 = hex(&Sha256::digest(&graph));
        Ok((external::inline(&graph, &files)?, Some(sha256)))
    }

    /// The error for a missing MLmodel file, with the models that the run has instead.
    async fn without_mlmodel(&self, error: anyhow::Error) -> anyhow::Error {
        let (ModelSource::Run { id, .. }, Some(client)) = (&self.source, self.client) else {
            return error.context(format!("there is no {MLMODEL} file"));
        };
        if !is_missing(&error) {
            return error;
        }
        let mut names = Vec::new();
        let outputs = self.run.iter().flat_map(|run| &run.outputs.model_outputs);
        for output in outputs.take(MAX_OUTPUTS) {
            if let Ok(found) = client.logged_model(&output.model_id).await {
                names.push(found.info.name);
            }
        }
        names.extend(client.artifacts(id).await);
        error.context(format!("no such model in the run; in the run are: {}", list(&names)))
    }

    /// Finds the run that logged the model, for its metrics and tags. A deleted run is ignored.
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
}
