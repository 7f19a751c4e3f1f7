//! The graphs that are loaded in this process, one for each SHA-256 and way of loading.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use spinfer_backend::{Backend, Encoding, Error as BackendError, ExecutionTarget};
use tracing::info;

use super::InferenceError;
use super::compute::{ComputeQueue, ComputeThreads};
use super::graph::{LoadedGraph, catch_panic};
use super::mounts::hex;
use super::options::LoadRequest;
use crate::metrics::ModelMetrics;

/// Locked while its content is loaded, so that concurrent first requests share one load.
pub(super) type LoadSlot<T> = Arc<tokio::sync::Mutex<T>>;

/// The SHA-256 of a graph's bytes, and how it is loaded.
pub(super) type GraphKey = ([u8; 32], LoadRequest);

/// The graphs in use.
pub struct GraphRegistry {
    /// In the order in which they are tried: the fast and specialised before the general.
    backends: Vec<Arc<dyn Backend>>,
    graphs: Mutex<HashMap<GraphKey, LoadSlot<Weak<LoadedGraph>>>>,
    pub(super) compute_threads: ComputeThreads,
    /// By model and version, for every one that was ever loaded.
    metrics: Mutex<BTreeMap<(String, String), Arc<ModelMetrics>>>,
}

impl fmt::Debug for GraphRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphRegistry").field("backends", &self.backends).finish_non_exhaustive()
    }
}

impl GraphRegistry {
    /// A registry whose graphs are loaded by `backends`. `compute_threads` run loads and long
    /// inferences.
    #[must_use]
    pub fn new(backends: Vec<Arc<dyn Backend>>, compute_threads: ComputeThreads) -> Self {
        let (graphs, metrics) = (Mutex::default(), Mutex::default());
        Self { backends, graphs, compute_threads, metrics }
    }

    /// Has the compute threads and the backends release unused memory.
    pub fn trim_memory(&self) {
        self.compute_threads.trim_memory();
        self.backends.iter().for_each(|backend| backend.release_memory());
    }

    /// The metrics of each version of a model, ordered by both.
    #[must_use]
    pub fn metrics(&self) -> Vec<((String, String), Arc<ModelMetrics>)> {
        let metrics = self.metrics.lock();
        metrics.iter().map(|(key, metrics)| (key.clone(), Arc::clone(metrics))).collect()
    }

    pub(super) fn metrics_of(&self, model: &str, version: &str) -> Arc<ModelMetrics> {
        let mut metrics = self.metrics.lock();
        Arc::clone(metrics.entry((model.to_owned(), version.to_owned())).or_default())
    }

    /// The graph of `bytes`, which is loaded unless it is in use; `model` is its first user, for the log.
    pub(super) async fn load(
        &self,
        compute_queue: &ComputeQueue,
        (digest, request): GraphKey,
        bytes: Vec<u8>,
        (encoding, target): (Encoding, ExecutionTarget),
        model: &str,
    ) -> Result<Arc<LoadedGraph>, InferenceError> {
        let backends: Vec<_> =
            self.backends.iter().filter(|b| b.supports(encoding, target)).cloned().collect();
        let slot = self.slot((digest, request));
        let mut loaded = slot.lock().await;
        if let Some(graph) = loaded.upgrade() {
            return Ok(graph);
        }
        let start = Instant::now();
        let work = move || load_with_first(&backends, &bytes, encoding, target, request);
        let LoadResult { backend, graph, .. } = compute_queue.run(work).await??;
        *loaded = Arc::downgrade(&graph);
        info!(model, backend, took = ?start.elapsed(), sha256 = hex(&digest[..6]), "graph loaded");
        Ok(graph)
    }

    fn slot(&self, key: GraphKey) -> LoadSlot<Weak<LoadedGraph>> {
        let mut graphs = self.graphs.lock();
        // Removes the slots of graphs that are neither in use nor being loaded.
        graphs.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot.try_lock().is_ok_and(|graph| graph.strong_count() > 0)
        });
        Arc::clone(graphs.entry(key).or_default())
    }
}

/// A loaded graph, and the backend that loaded it.
#[derive(Clone, Debug)]
pub struct LoadResult {
    pub backend: &'static str,
    /// The backends that were tried before, and why they do not support the graph.
    pub refusals: Vec<(&'static str, String)>,
    /// The graph, warmed up.
    pub graph: Arc<LoadedGraph>,
}

/// Loads a graph with the first backend that supports it, or with the requested one.
///
/// # Errors
/// The bytes are not a graph, or no backend supports it.
pub fn load_with_first(
    backends: &[Arc<dyn Backend>],
    bytes: &[u8],
    encoding: Encoding,
    target: ExecutionTarget,
    LoadRequest { backend: requested, options }: LoadRequest,
) -> Result<LoadResult, BackendError> {
    let mut refusals = Vec::new();
    for backend in backends {
        if requested.is_some_and(|requested| !requested.is_of(backend.as_ref())) {
            continue;
        }
        match catch_panic(|| backend.load_with(bytes, encoding, options)) {
            Err(BackendError::Unsupported(why)) => refusals.push((backend.name(), why)),
            result => {
                let graph = Arc::new(LoadedGraph::new(result?));
                graph.warm_up();
                return Ok(LoadResult { backend: backend.name(), refusals, graph });
            }
        }
    }
    Err(BackendError::Unsupported(match (requested, refusals.is_empty()) {
        (Some(requested), true) => format!("this host has no backend `{}`", requested.name()),
        (None, true) => format!("no backend supports {encoding} on {target}"),
        (_, false) => {
            let refusal = |(name, why): &(_, _)| format!("{name}: {why}");
            refusals.iter().map(refusal).collect::<Vec<_>>().join("; ")
        }
    }))
}

#[cfg(test)]
mod tests;
