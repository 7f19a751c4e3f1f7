//! An application, compiled, linked and ready to serve.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indexmap::IndexMap;
use spinfer_backend::Backend;
use spinfer_backend_tract::Tract;
use tracing::info;
use wasmtime::component::Component;

use crate::app::App;
use crate::door::Service;
use crate::engine::Engine;
use crate::inference::{Models, Registry};
use crate::instance::Stores;
use crate::route::Router;

/// How often idle instances are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What the data plane serves.
#[derive(Debug)]
pub struct Host {
    router: Router<Arc<Service>>,
    services: IndexMap<String, Arc<Service>>,
    draining: AtomicBool,
    /// Its epochs are what ends a guest that is late.
    _engine: Engine,
}

impl Host {
    /// Compiles and links every component of `app`; compiled code is kept under `state_dir`.
    pub fn new(app: &App, state_dir: &Path) -> Result<Self> {
        let threads = std::thread::available_parallelism()?.get();
        let engine = Engine::new(app, &state_dir.join("compiled"))?;
        let backends: Vec<Arc<dyn Backend>> = vec![Arc::new(Tract)];
        let registry = Arc::new(Registry::new(backends, threads));
        let compiled = compile(app, &engine, threads)?;
        let mut services = IndexMap::new();
        for (id, spec) in &app.components {
            let models = Models::new(Arc::clone(&registry), spec.mounts.clone());
            let stores = Stores::new(engine.wasmtime().clone(), spec.clone(), Arc::new(models));
            let service = Service::new(&engine, &compiled[&spec.source], stores)?;
            services.insert(id.clone(), Arc::new(service));
        }
        let routes = app
            .routes
            .iter()
            .map(|route| (route.pattern.clone(), Arc::clone(&services[&route.component])));
        let router = Router::new(routes)
            .map_err(|twice| anyhow::anyhow!("the route \"{twice}\" stands twice"))?;
        Ok(Self { router, services, draining: AtomicBool::new(false), _engine: engine })
    }

    /// What serves `path`.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Arc<Service>> {
        self.router.find(path)
    }

    /// The component `id`.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// From now on the host is live but not ready: no new work should be sent to it.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    /// Drops idle instances, forever.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            for service in self.services.values() {
                service.drop_idle(now);
            }
        }
    }
}

/// Compiles every component file once, `threads` at a time.
fn compile(app: &App, engine: &Engine, threads: usize) -> Result<HashMap<PathBuf, Component>> {
    let mut sources: Vec<&PathBuf> = app.components.values().map(|spec| &spec.source).collect();
    sources.sort_unstable();
    sources.dedup();
    let mut compiled = HashMap::new();
    for group in sources.chunks(threads) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let working: Vec<_> =
                group.iter().map(|path| scope.spawn(|| compile_one(engine, path))).collect();
            working.into_iter().map(|thread| thread.join()).collect()
        });
        for (path, result) in group.iter().zip(results) {
            let component = result
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the compiler panicked")))
                .with_context(|| format!("cannot compile {}", path.display()))?;
            compiled.insert((*path).clone(), component);
        }
    }
    Ok(compiled)
}

fn compile_one(engine: &Engine, path: &Path) -> Result<Component> {
    let start = Instant::now();
    let component = engine.compile(path)?;
    info!(file = %path.display(), took = ?start.elapsed(), "component compiled");
    Ok(component)
}
