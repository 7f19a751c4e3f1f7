//! An application, compiled, linked and ready to serve.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indexmap::IndexMap;
use spinfer_backend::Backend;
use spinfer_backend_lean::Lean;
use spinfer_backend_tract::Tract;
use tracing::{info, warn};
use wasmtime::component::Component;

use crate::app::App;
use crate::door::Service;
use crate::engine::Engine;
use crate::error::Failure;
use crate::inference::{Models, Registry};
use crate::instance::Stores;
use crate::route::Router;

/// How often idle instances are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// How long the models of an application may take to load.
const LOADING_MOST: Duration = Duration::from_secs(600);

/// What the data plane serves.
#[derive(Debug)]
pub struct Host {
    router: Router<Arc<Service>>,
    services: IndexMap<String, Arc<Service>>,
    /// What keeps the host from being ready.
    not_ready: Mutex<Option<String>>,
    /// Its epochs are what ends a guest that is late.
    _engine: Engine,
}

impl Host {
    /// Compiles and links every component of `app`; compiled code is kept under `state_dir`.
    pub fn new(app: &App, state_dir: &Path) -> Result<Self> {
        let threads = std::thread::available_parallelism()?.get();
        let engine = Engine::new(app, &state_dir.join("compiled"))?;
        // What is served most is lean; tract has the rest.
        let backends: Vec<Arc<dyn Backend>> = vec![Arc::new(Lean), Arc::new(Tract)];
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
        Ok(Self {
            router,
            services,
            not_ready: Mutex::new(Some("models are being loaded".into())),
            _engine: engine,
        })
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

    /// Loads every mounted model, so that the first request need not wait; ready is who has loaded
    /// them all.
    pub async fn load_models(&self) {
        let deadline = Instant::now() + LOADING_MOST;
        let mut problems = Vec::new();
        for (id, service) in &self.services {
            for name in service.models().names() {
                if let Err(error) = service.models().load_by_name(name, deadline).await {
                    warn!(component = id, model = name, %error, "cannot load");
                    problems.push(format!("component `{id}`: model `{name}`: {error}"));
                }
            }
        }
        self.set_not_ready((!problems.is_empty()).then(|| problems.join("; ")));
    }

    /// From now on the host is live but not ready: no new work should be sent to it.
    pub fn drain(&self) {
        self.set_not_ready(Some("the server is shutting down".into()));
    }

    fn set_not_ready(&self, reason: Option<String>) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Fails with what keeps the host from being ready.
    pub fn ready(&self) -> Result<(), Failure> {
        let reason = self.not_ready.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone().map_or(Ok(()), |reason| Err(Failure::NotReady { reason }))
    }

    /// The longest a request may take.
    #[must_use]
    pub fn longest_deadline(&self) -> Duration {
        let deadlines = self.services.values().map(|service| service.limits().deadline);
        deadlines.max().unwrap_or_default()
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
