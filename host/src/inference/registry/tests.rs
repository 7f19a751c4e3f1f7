use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use spinfer_backend::{Graph, Tensor, TensorInfo};

use super::super::component_models::ComponentModels;
use super::super::mounts::Mounts;
use super::*;
use sha2::{Digest, Sha256};

#[derive(Debug)]
struct CountingBackend {
    loads: AtomicUsize,
    /// Completes a slow load.
    release: Arc<Barrier>,
}

impl Default for CountingBackend {
    fn default() -> Self {
        Self { loads: AtomicUsize::new(0), release: Arc::new(Barrier::new(2)) }
    }
}

impl Backend for CountingBackend {
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

/// Supports no graph.
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

fn registry_of(backends: Vec<Arc<dyn Backend>>) -> Arc<GraphRegistry> {
    Arc::new(GraphRegistry::new(backends, ComputeThreads::start(2).unwrap()))
}

fn registry() -> (Arc<CountingBackend>, Arc<GraphRegistry>) {
    let backend = Arc::new(CountingBackend::default());
    (Arc::clone(&backend), registry_of(vec![backend]))
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn load(
    registry: &Arc<GraphRegistry>,
    bytes: &[u8],
) -> Result<Arc<LoadedGraph>, InferenceError> {
    let (digest, compute_queue) = (Sha256::digest(bytes).into(), registry.compute_threads.queue());
    let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
    registry
        .load(
            &compute_queue,
            (digest, LoadRequest::default()),
            bytes.to_vec(),
            (encoding, target),
            "a",
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_loads_of_the_same_bytes_share_one_graph() {
    let (backend, registry) = registry();
    let loads: Vec<_> = (0..50)
        .map(|_| {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move { load(&registry, b"graph").await.unwrap() })
        })
        .collect();
    let mut graphs = Vec::new();
    for load in loads {
        graphs.push(load.await.unwrap());
    }
    assert_eq!(backend.loads.load(Ordering::SeqCst), 1);
    assert!(graphs.iter().all(|graph| Arc::ptr_eq(graph, &graphs[0])));
}

#[tokio::test]
async fn unused_graph_is_dropped() {
    let (backend, registry) = registry();
    for n in 0..10_u8 {
        drop(load(&registry, &[n]).await.unwrap());
    }
    assert!(registry.graphs.lock().len() <= 2);
    drop(load(&registry, &[0]).await.unwrap());
    assert_eq!(backend.loads.load(Ordering::SeqCst), 11, "loaded again");
}

#[tokio::test]
async fn failed_or_panicking_load_does_not_affect_the_next_one() {
    let (_, registry) = registry();
    for bytes in [b"bad".as_slice(), b"panic"] {
        assert!(load(&registry, bytes).await.is_err());
        assert!(load(&registry, bytes).await.is_err());
    }
    assert!(load(&registry, b"good").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_load_is_completed_and_used() {
    let (backend, registry) = registry();
    let release = Arc::clone(&backend.release);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.onnx"), b"slow").unwrap();
    let mut mounts = Mounts::default();
    mounts.add("/models/m".into(), dir.path().to_owned());
    let models = ComponentModels::new(registry, mounts);
    for _ in 0..3 {
        let soon = Instant::now() + Duration::from_millis(10);
        assert!(matches!(models.load_by_name("m", soon).await, Err(InferenceError::Timeout)));
    }
    tokio::task::spawn_blocking(move || release.wait()).await.unwrap();
    assert!(models.load_by_name("m", later()).await.is_ok());
    assert_eq!(backend.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn target_without_a_backend_is_refused() {
    let (_, registry) = registry();
    let models = ComponentModels::new(registry, Mounts::default());
    let target = ExecutionTarget::Gpu;
    let error = models.load(Vec::new(), Encoding::Onnx, target, later()).await.unwrap_err();
    assert!(error.to_string().contains("no backend supports ONNX on a GPU"), "{error}");
}

#[tokio::test]
async fn first_backend_that_supports_a_graph_loads_it() {
    let general = Arc::new(CountingBackend::default());
    let registry = registry_of(vec![Arc::new(Narrow), general.clone()]);
    assert!(load(&registry, b"graph").await.is_ok());
    assert_eq!(general.loads.load(Ordering::SeqCst), 1);
    let narrow = registry_of(vec![Arc::new(Narrow)]);
    let error = load(&narrow, b"graph").await.unwrap_err().to_string();
    assert_eq!(error, "narrow: operator X");
}

#[tokio::test]
async fn components_with_the_same_model_share_its_graph() {
    let (backend, registry) = registry();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.onnx"), b"graph").unwrap();
    let component = || {
        let mut mounts = Mounts::default();
        mounts.add("/models/m".into(), dir.path().to_owned());
        ComponentModels::new(Arc::clone(&registry), mounts)
    };
    let (one, two) = (component(), component());
    let a = one.load_by_name("m", later()).await.unwrap();
    let b = two.load_by_name("m", later()).await.unwrap();
    assert_eq!(backend.loads.load(Ordering::SeqCst), 1);
    drop((a, b));
    assert_eq!((one.unload(), one.unload()), (1, 0));
    assert!(one.load_by_name("m", later()).await.is_ok());
    assert_eq!(backend.loads.load(Ordering::SeqCst), 1, "the other component uses it");
    assert_eq!((one.unload(), two.unload()), (1, 1));
    assert!(one.load_by_name("m", later()).await.is_ok());
    assert_eq!(backend.loads.load(Ordering::SeqCst), 2, "not in use any more");
    let error = one.load_by_name("other", later()).await.unwrap_err().to_string();
    assert!(error.contains("no model `other`: this component's files mount `m`"), "{error}");
}
