//! The models of one component: loaded by name from its mounts, or from bytes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use spinfer_backend::{Encoding, Error as BackendError, ExecutionTarget};
use tokio::time::timeout_at;

use super::InferenceError;
use super::compute::ComputeQueue;
use super::model::BoundModel;
use super::model_states::ModelStates;
use super::model_toml::{ModelSettings, check_loaded};
use super::mounts::{GRAPH, Mounts, SIGNATURE, VersionFiles, in_file};
use super::options::LoadRequest;
use super::registry::{GraphRegistry, LoadSlot};
use crate::metrics::histogram::Histogram;
use crate::metrics::table::DURATIONS;
use crate::process::text::shortened;

/// The models of one component: those in its mounts, by name, and graphs that it loads from bytes.
#[derive(Debug)]
pub struct ComponentModels {
    registry: Arc<GraphRegistry>,
    compute_queue: ComputeQueue,
    mounts: Mounts,
    loaded: Mutex<HashMap<String, LoadSlot<Option<Arc<BoundModel>>>>>,
    states: Arc<ModelStates>,
    /// Durations of loads.
    load_times: Arc<Histogram>,
}

impl ComponentModels {
    #[must_use]
    pub fn new(registry: Arc<GraphRegistry>, mounts: Mounts) -> Self {
        let (compute_queue, loaded) = (registry.compute_threads.queue(), Mutex::default());
        let load_times = Arc::new(Histogram::new(&DURATIONS));
        Self { registry, compute_queue, mounts, loaded, states: Arc::default(), load_times }
    }

    /// The load states of the mounted models.
    #[must_use]
    pub fn states(&self) -> &ModelStates {
        &self.states
    }

    /// Durations of the loads of mounted models.
    #[must_use]
    pub fn load_times(&self) -> &Histogram {
        &self.load_times
    }

    /// The names of the models that are mounted one by one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.mounts.models().map(|(name, _)| name)
    }

    /// The model `/models/<name>/model.onnx` in the component's mounts, which is loaded if it is not. A
    /// load is completed even if the caller stops waiting.
    ///
    /// # Errors
    /// There is no such model, it cannot be loaded, or the deadline passes.
    pub async fn load_by_name(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<BoundModel>, InferenceError> {
        let Some(folder) = self.mounts.model_folder(name) else {
            if self.names().any(|mounted| mounted == name) {
                let missing = format!("its folder contains no {GRAPH}");
                self.states.record(name, Some(missing));
            }
            let names: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
            return Err(InferenceError::NotFound(format!(
                "no model `{}`: this component's files mount {}",
                shortened(name),
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            )));
        };
        let slot = Arc::clone(self.loaded().entry(name.to_owned()).or_default());
        if let Ok(loaded) = slot.try_lock()
            && let Some(model) = &*loaded
        {
            return Ok(Arc::clone(model));
        }
        let (registry, compute_queue) = (Arc::clone(&self.registry), self.compute_queue.clone());
        let (name, load_times) = (name.to_owned(), Arc::clone(&self.load_times));
        let states = Arc::clone(&self.states);
        wait_for_load(deadline, async move {
            let mut loaded = slot.lock().await;
            if let Some(model) = &*loaded {
                return Ok(Arc::clone(model));
            }
            let start = Instant::now();
            let model = load_mounted(&registry, compute_queue, &name, folder).await;
            states.record(&name, model.as_ref().err());
            let model = model?;
            *loaded = Some(Arc::clone(&model));
            load_times.observe_duration(start.elapsed());
            Ok(model)
        })
        .await
    }

    /// The model of a graph in bytes, which is shared if it is loaded already. A load is completed even
    /// if the caller stops waiting.
    ///
    /// # Errors
    /// The graph cannot be loaded, or the deadline passes.
    pub async fn load(
        &self,
        bytes: Vec<u8>,
        encoding: Encoding,
        target: ExecutionTarget,
        deadline: Instant,
    ) -> Result<Arc<BoundModel>, InferenceError> {
        let (registry, compute_queue) = (Arc::clone(&self.registry), self.compute_queue.clone());
        wait_for_load(deadline, async move {
            let hash = move || (Sha256::digest(&bytes).into(), bytes);
            let (digest, bytes) = compute_queue.run(hash).await?;
            let key = (digest, LoadRequest::default());
            let graph = registry
                .load(&compute_queue, key, bytes, (encoding, target), "loaded by a component")
                .await?;
            let metrics = registry.metrics_of("", "");
            Ok(Arc::new(BoundModel::new(graph, &ModelSettings::default(), compute_queue, metrics)?))
        })
        .await
    }

    /// Unloads the mounted models, and returns their number. A model in use is freed after its last
    /// use.
    pub fn unload(&self) -> usize {
        let loaded = std::mem::take(&mut *self.loaded());
        loaded.values().filter(|slot| slot.try_lock().is_ok_and(|model| model.is_some())).count()
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<String, LoadSlot<Option<Arc<BoundModel>>>>> {
        self.loaded.lock()
    }
}

/// Loads the version in `folder`, and checks its signature against the graph.
async fn load_mounted(
    registry: &GraphRegistry,
    compute_queue: ComputeQueue,
    name: &str,
    folder: PathBuf,
) -> Result<Arc<BoundModel>, InferenceError> {
    let (path, model) = (folder.join(SIGNATURE), name.to_owned());
    let failed = |problems: Vec<String>| BackendError::Runtime(problems.join("; "));
    let files = compute_queue.run(move || VersionFiles::read(&model, &folder)).await?;
    let files = files.map_err(failed)?;
    let settings = files.settings();
    let version = shortened(settings.version.as_deref().unwrap_or_default());
    let VersionFiles { graph: bytes, digest, declared, .. } = files;
    let target = (Encoding::Onnx, ExecutionTarget::Cpu);
    let key = (digest, settings.load_request());
    let shown = [name, version].into_iter().filter(|part| !part.is_empty());
    let shown = shown.collect::<Vec<_>>().join("/");
    let graph = registry.load(&compute_queue, key, bytes, target, &shown).await?;
    if let Some(declared) = declared {
        let graph = Arc::clone(&graph);
        let problems = compute_queue.run(move || check_loaded(&declared.model, &graph)).await?;
        if !problems.is_empty() {
            return Err(failed(in_file(&path, problems).collect()).into());
        }
    }
    let metrics = registry.metrics_of(name, version);
    Ok(Arc::new(BoundModel::new(graph, &settings, compute_queue, metrics)?))
}

/// Waits for `loading` until `deadline`. The load continues after that.
async fn wait_for_load<T: Send + 'static>(
    deadline: Instant,
    loading: impl Future<Output = Result<T, InferenceError>> + Send + 'static,
) -> Result<T, InferenceError> {
    match timeout_at(deadline.into(), tokio::spawn(loading)).await {
        Ok(Ok(result)) => result,
        Ok(Err(e)) => Err(BackendError::Runtime(format!("loading failed: {e}")).into()),
        Err(_) => Err(InferenceError::Timeout),
    }
}
