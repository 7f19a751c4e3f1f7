//! What is loaded. [`Registry`] belongs to the process: one graph for each SHA-256. [`Models`]
//! belongs to a component: its names, its grants.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use sha2::{Digest, Sha256};
use spinfer_backend::{Backend, Encoding, Error as BackendError, ExecutionTarget};
use tokio::time::timeout_at;
use tracing::info;

use super::Error;
use crate::process::text::shortened;
use super::compute::{ComputeThreads, Lane};
use super::graph::{LoadedGraph, without_panic};
use super::model::Model;
use super::mounts::{Mounts, Settings, hex, read_graph};
use super::options::LoadRequest;
use crate::metrics::ModelMetrics;
use crate::metrics::histogram::Histogram;
use crate::metrics::table::DURATIONS;

/// Loading happens under this lock, so that concurrent first requests share one load.
type Slot<T> = Arc<tokio::sync::Mutex<T>>;

/// The SHA-256 of a graph's bytes, and how it is loaded.
type Key = ([u8; 32], LoadRequest);

/// Every graph in use, by the SHA-256 of its bytes.
pub struct Registry {
    /// In the order they are asked: the quick and narrow before the general.
    backends: Vec<Arc<dyn Backend>>,
    graphs: Mutex<HashMap<Key, Slot<Weak<LoadedGraph>>>>,
    compute_threads: ComputeThreads,
    /// By model and version, of all that were ever loaded.
    metrics: Mutex<BTreeMap<(String, String), Arc<ModelMetrics>>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("backends", &self.backends).finish_non_exhaustive()
    }
}

impl Registry {
    /// `compute_threads` run what takes long: loading, and long inferences.
    #[must_use]
    pub fn new(backends: Vec<Arc<dyn Backend>>, compute_threads: ComputeThreads) -> Self {
        let (graphs, metrics) = (Mutex::default(), Mutex::default());
        Self { backends, graphs, compute_threads, metrics }
    }

    /// Has the compute threads and the backends give back what memory they hold.
    pub fn rest(&self) {
        self.compute_threads.rest();
        self.backends.iter().for_each(|backend| backend.release_memory());
    }

    /// What is counted of each version of a model, in their order.
    #[must_use]
    pub fn metrics(&self) -> Vec<((String, String), Arc<ModelMetrics>)> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.iter().map(|(of, metrics)| (of.clone(), Arc::clone(metrics))).collect()
    }

    fn metrics_of(&self, model: &str, version: &str) -> Arc<ModelMetrics> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(metrics.entry((model.to_owned(), version.to_owned())).or_default())
    }

    async fn load(
        &self,
        lane: &Lane,
        (digest, request): Key,
        bytes: Vec<u8>,
        encoding: Encoding,
        target: ExecutionTarget,
    ) -> Result<Arc<LoadedGraph>, Error> {
        let backends: Vec<_> =
            self.backends.iter().filter(|b| b.supports(encoding, target)).cloned().collect();
        let slot = self.slot((digest, request));
        let mut loaded = slot.lock().await;
        if let Some(graph) = loaded.upgrade() {
            return Ok(graph);
        }
        let start = Instant::now();
        let work = move || load_with_first(&backends, &bytes, encoding, target, request);
        let Loaded { backend, graph, .. } = lane.run(work).await??;
        *loaded = Arc::downgrade(&graph);
        info!(sha256 = hex(&digest[..6]), backend, took = ?start.elapsed(), "graph loaded");
        Ok(graph)
    }

    fn slot(&self, key: Key) -> Slot<Weak<LoadedGraph>> {
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots of graphs nobody holds any more, and nobody is loading.
        graphs.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot.try_lock().is_ok_and(|graph| graph.strong_count() > 0)
        });
        Arc::clone(graphs.entry(key).or_default())
    }
}

/// A graph that is loaded, and by which backend.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub backend: &'static str,
    /// Why the backends that were asked before could not, with their names.
    pub refusals: Vec<(&'static str, String)>,
    /// Warmed up.
    pub graph: Arc<LoadedGraph>,
}

/// Loads a graph with the first backend that has all it needs, or with the one that is asked for.
///
/// # Errors
/// If it is not a graph, or no backend can run it.
pub fn load_with_first(
    backends: &[Arc<dyn Backend>],
    bytes: &[u8],
    encoding: Encoding,
    target: ExecutionTarget,
    LoadRequest { backend: asked, options }: LoadRequest,
) -> Result<Loaded, BackendError> {
    let mut refusals = Vec::new();
    for backend in backends {
        if asked.is_some_and(|asked| !asked.is_of(backend.as_ref())) {
            continue;
        }
        match without_panic(|| backend.load_with(bytes, encoding, options)) {
            Err(BackendError::Unsupported(why)) => refusals.push((backend.name(), why)),
            result => {
                let graph = Arc::new(LoadedGraph::new(result?));
                graph.warm_up();
                return Ok(Loaded { backend: backend.name(), refusals, graph });
            }
        }
    }
    Err(BackendError::Unsupported(match (asked, refusals.is_empty()) {
        (Some(asked), true) => format!("this host has no backend {}", asked.name()),
        (None, true) => format!("no backend runs {encoding:?} on {target:?}"),
        (_, false) => {
            let refusal = |(name, why): &(_, _)| format!("{name}: {why}");
            refusals.iter().map(refusal).collect::<Vec<_>>().join("; ")
        }
    }))
}

/// Waits for `loading` until `deadline`; it goes on without us after that.
async fn finish<T: Send + 'static>(
    deadline: Instant,
    loading: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match timeout_at(deadline.into(), tokio::spawn(loading)).await {
        Ok(Ok(result)) => result,
        Ok(Err(e)) => Err(BackendError::Runtime(format!("loading failed: {e}")).into()),
        Err(_) => Err(Error::Timeout),
    }
}

/// The models one component may use: those in its mounts by name, and what it brings itself.
#[derive(Debug)]
pub struct Models {
    registry: Arc<Registry>,
    lane: Lane,
    mounts: Mounts,
    loaded: Mutex<HashMap<String, Slot<Option<Arc<Model>>>>>,
    /// How long loading took.
    loading: Arc<Histogram>,
}

impl Models {
    #[must_use]
    pub fn new(registry: Arc<Registry>, mounts: Mounts) -> Self {
        let (lane, loaded) = (registry.compute_threads.lane(), Mutex::default());
        let loading = Arc::new(Histogram::new(&DURATIONS));
        Self { registry, lane, mounts, loaded, loading }
    }

    /// The models that were loaded, and how long that took each time.
    #[must_use]
    pub fn loading(&self) -> &Histogram {
        &self.loading
    }

    /// The names of the models that are mounted one by one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.mounts.models().map(|(name, _)| name)
    }

    /// The model of `/models/<name>/model.onnx` in the component's mounts. A load that has begun
    /// is finished and kept, even if who asked for it cannot wait.
    pub async fn load_by_name(&self, name: &str, deadline: Instant) -> Result<Arc<Model>, Error> {
        let Some(folder) = self.mounts.model_folder(name) else {
            let names: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
            return Err(Error::NotFound(format!(
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
        let (registry, lane) = (Arc::clone(&self.registry), self.lane.clone());
        let (name, loading) = (name.to_owned(), Arc::clone(&self.loading));
        finish(deadline, async move {
            let mut loaded = slot.lock().await;
            if let Some(model) = &*loaded {
                return Ok(Arc::clone(model));
            }
            let start = Instant::now();
            let read = lane.run(move || read_graph(&folder)).await?;
            let (bytes, digest, settings) =
                read.map_err(|e| BackendError::Runtime(format!("{e:#}")))?;
            let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
            let graph = registry
                .load(&lane, (digest, settings.load_request()), bytes, encoding, target)
                .await?;
            let version = settings.version.as_deref().unwrap_or_default();
            let metrics = registry.metrics_of(&name, shortened(version));
            let model = Arc::new(Model::new(graph, &settings, lane, metrics)?);
            *loaded = Some(Arc::clone(&model));
            loading.took(start.elapsed());
            Ok(model)
        })
        .await
    }

    /// Loads a graph from its bytes, or shares the one that is loaded. A load that has begun is
    /// finished, even if who asked for it cannot wait.
    pub async fn load(
        &self,
        bytes: Vec<u8>,
        encoding: Encoding,
        target: ExecutionTarget,
        deadline: Instant,
    ) -> Result<Arc<Model>, Error> {
        let (registry, lane) = (Arc::clone(&self.registry), self.lane.clone());
        finish(deadline, async move {
            let hash = move || (Sha256::digest(&bytes).into(), bytes);
            let (digest, bytes) = lane.run(hash).await?;
            let graph = registry
                .load(&lane, (digest, LoadRequest::default()), bytes, encoding, target)
                .await?;
            let metrics = registry.metrics_of("", "");
            Ok(Arc::new(Model::new(graph, &Settings::default(), lane, metrics)?))
        })
        .await
    }

    /// Forgets what was loaded by name; the number of models that were. What a guest still uses
    /// lives on until it is done; what nobody uses is freed.
    pub fn forget(&self) -> usize {
        let loaded = std::mem::take(&mut *self.loaded());
        loaded.values().filter(|slot| slot.try_lock().is_ok_and(|model| model.is_some())).count()
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<String, Slot<Option<Arc<Model>>>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use spinfer_backend::{Graph, Tensor, TensorInfo};

    use super::*;

    #[derive(Debug)]
    struct Counting {
        loads: AtomicUsize,
        /// Lets a slow load end.
        release: Arc<Barrier>,
    }

    impl Default for Counting {
        fn default() -> Self {
            Self { loads: AtomicUsize::new(0), release: Arc::new(Barrier::new(2)) }
        }
    }

    impl Backend for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn supports(&self, _: Encoding, target: ExecutionTarget) -> bool {
            target == ExecutionTarget::Cpu
        }

        fn load(&self, bytes: &[u8], _: Encoding) -> Result<Arc<dyn Graph>, BackendError> {
            self.loads.fetch_add(1, Ordering::SeqCst);
            match bytes {
                b"panic" => panic!("on purpose"),
                b"slow" => {
                    self.release.wait();
                    Ok(Arc::new(Empty))
                }
                b"bad" => Err(BackendError::InvalidEncoding("bad".into())),
                _ => Ok(Arc::new(Empty)),
            }
        }
    }

    /// Has not what any graph needs.
    #[derive(Debug)]
    struct Narrow;

    impl Backend for Narrow {
        fn name(&self) -> &'static str {
            "narrow"
        }

        fn supports(&self, _: Encoding, _: ExecutionTarget) -> bool {
            true
        }

        fn load(&self, _: &[u8], _: Encoding) -> Result<Arc<dyn Graph>, BackendError> {
            Err(BackendError::Unsupported("operator X".into()))
        }
    }

    #[derive(Debug)]
    struct Empty;

    impl Graph for Empty {
        fn inputs(&self) -> &[TensorInfo] {
            &[]
        }

        fn outputs(&self) -> &[TensorInfo] {
            &[]
        }

        fn compute(&self, _: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
            Ok(Vec::new())
        }
    }

    fn registry_of(backends: Vec<Arc<dyn Backend>>) -> Arc<Registry> {
        Arc::new(Registry::new(backends, ComputeThreads::start(2).unwrap()))
    }

    fn registry() -> (Arc<Counting>, Arc<Registry>) {
        let backend = Arc::new(Counting::default());
        (Arc::clone(&backend), registry_of(vec![backend]))
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    async fn load(registry: &Arc<Registry>, bytes: &[u8]) -> Result<Arc<LoadedGraph>, Error> {
        let (digest, lane) = (Sha256::digest(bytes).into(), registry.compute_threads.lane());
        let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
        registry
            .load(&lane, (digest, LoadRequest::default()), bytes.to_vec(), encoding, target)
            .await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_bytes_are_loaded_once_however_many_ask() {
        let (backend, registry) = registry();
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let registry = Arc::clone(&registry);
                tokio::spawn(async move { load(&registry, b"graph").await.unwrap() })
            })
            .collect();
        let mut graphs = Vec::new();
        for ask in asking {
            graphs.push(ask.await.unwrap());
        }
        assert_eq!(backend.loads.load(Ordering::SeqCst), 1);
        assert!(graphs.iter().all(|graph| Arc::ptr_eq(graph, &graphs[0])));
    }

    #[tokio::test]
    async fn what_nobody_holds_is_dropped() {
        let (backend, registry) = registry();
        for n in 0..10_u8 {
            drop(load(&registry, &[n]).await.unwrap());
        }
        assert!(registry.graphs.lock().unwrap().len() <= 2);
        drop(load(&registry, &[0]).await.unwrap());
        assert_eq!(backend.loads.load(Ordering::SeqCst), 11, "loaded again");
    }

    #[tokio::test]
    async fn a_failed_or_panicking_load_leaves_the_next_one_free() {
        let (_, registry) = registry();
        for bytes in [b"bad".as_slice(), b"panic"] {
            assert!(load(&registry, bytes).await.is_err());
            assert!(load(&registry, bytes).await.is_err());
        }
        assert!(load(&registry, b"good").await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_load_nobody_waits_for_is_finished_and_kept() {
        let (backend, registry) = registry();
        let release = Arc::clone(&backend.release);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.onnx"), b"slow").unwrap();
        let mut mounts = Mounts::default();
        mounts.add("/models/m".into(), dir.path().to_owned());
        let models = Models::new(registry, mounts);
        for _ in 0..3 {
            let soon = Instant::now() + Duration::from_millis(10);
            assert!(matches!(models.load_by_name("m", soon).await, Err(Error::Timeout)));
        }
        tokio::task::spawn_blocking(move || release.wait()).await.unwrap();
        assert!(models.load_by_name("m", later()).await.is_ok());
        assert_eq!(backend.loads.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_target_without_a_backend_is_refused() {
        let (_, registry) = registry();
        let models = Models::new(registry, Mounts::default());
        let target = ExecutionTarget::Gpu;
        let error = models.load(Vec::new(), Encoding::Onnx, target, later()).await.unwrap_err();
        assert!(error.to_string().contains("no backend runs Onnx on Gpu"), "{error}");
    }

    #[tokio::test]
    async fn the_first_backend_that_has_what_a_graph_needs_gets_it() {
        let general = Arc::new(Counting::default());
        let registry = registry_of(vec![Arc::new(Narrow), general.clone()]);
        assert!(load(&registry, b"graph").await.is_ok());
        assert_eq!(general.loads.load(Ordering::SeqCst), 1);
        let narrow = registry_of(vec![Arc::new(Narrow)]);
        let error = load(&narrow, b"graph").await.unwrap_err().to_string();
        assert_eq!(error, "narrow: operator X");
    }

    #[tokio::test]
    async fn two_components_with_the_same_model_share_its_graph() {
        let (backend, registry) = registry();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.onnx"), b"graph").unwrap();
        let component = || {
            let mut mounts = Mounts::default();
            mounts.add("/models/m".into(), dir.path().to_owned());
            Models::new(Arc::clone(&registry), mounts)
        };
        let (one, two) = (component(), component());
        let a = one.load_by_name("m", later()).await.unwrap();
        let b = two.load_by_name("m", later()).await.unwrap();
        assert_eq!(backend.loads.load(Ordering::SeqCst), 1);
        drop((a, b));
        assert_eq!((one.forget(), one.forget()), (1, 0));
        assert!(one.load_by_name("m", later()).await.is_ok());
        assert_eq!(backend.loads.load(Ordering::SeqCst), 1, "the other still has it");
        assert_eq!((one.forget(), two.forget()), (1, 1));
        assert!(one.load_by_name("m", later()).await.is_ok());
        assert_eq!(backend.loads.load(Ordering::SeqCst), 2, "nobody had it any more");
        let error = one.load_by_name("other", later()).await.unwrap_err().to_string();
        assert!(error.contains("no model `other`: this component's files mount `m`"), "{error}");
    }
}
