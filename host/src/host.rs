//! An application, compiled, linked and ready to serve.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt};
use indexmap::IndexMap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::config::app::{App, ComponentSpec, Route, StaticAnswer, Target};
use crate::guest::artifact::{Artifacts, Makes, PRIVATE, READABLE};
use crate::guest::offload::Background;
use crate::config::blocked_networks::BlockedNetworks;
use crate::http::body::Holding;
use crate::cache::Cache;
use crate::cache::generation::{Scope, Scopes};
use crate::cache::redis::Shared;
use crate::capabilities::outbound_http::Outside;
use crate::capabilities::prediction_log::LogPolicy;
use crate::guest::stdio::Output;
use crate::guest::component_file::{Code, Linked};
use crate::server::connections::ConnectionLimits;
use crate::http::content_encoding::Compression;
use crate::http::cors::Cors;
use crate::drift::{Monitor, WatchedModel};
use crate::guest::engine::Engine;
use crate::http::error::Failure;
use crate::experiment::{ExperimentRouter, STORE, check};
use crate::guest::files::Copies;
use crate::inference::{ComputeThreads, Models, Registry};
use crate::guest::instance::Stores;
use crate::process::heap::give_back;
use crate::metrics::{HostMetrics, RouteMetrics};
use crate::http::model_index::ModelStates;
use crate::prediction_log::models::ModelInfo;
use crate::prediction_log::{HashKey, Observer, PredictionLog, Recorder, Redaction};
use crate::storage::redis::Connections;
use crate::request::INTERNAL;
use crate::http::route::{ANY, Pattern, Router};
use crate::guest::component::Service;
use crate::http::client_tls;

/// Where compiled components are, in the state directory.
const ARTIFACTS: &str = "compiled";

/// How often what is idle is looked for, and what was not printed is said.
const SWEEP: Duration = Duration::from_secs(1);

/// For so many sweeps after the last thing that was dropped memory is given back: what a thread held
/// that ended meanwhile, and those that had no time to rest.
const SETTLING: usize = 3;

/// How long the models of an application may take to load.
const LOADING_MOST: Duration = Duration::from_secs(600);

/// What the data plane serves.
#[derive(Debug)]
pub struct Host {
    router: Router<Place>,
    services: IndexMap<String, Arc<Service>>,
    /// The same for requests of one to another.
    components: HashMap<String, (Pattern, Place)>,
    metrics: HostMetrics,
    /// The application's name and version, as JSON.
    info: String,
    /// What keeps the host from being ready.
    not_ready: Mutex<Option<String>>,
    model_states: ModelStates,
    bodies: Holding,
    answers: Arc<Holding>,
    connection_limits: ConnectionLimits,
    compression: Compression,
    cors: Option<Cors>,
    cache: Arc<Cache>,
    drift: Arc<Monitor>,
    redis: Connections,
    _background: Background,
    copies: Mutex<Option<Copies>>,
    prediction_log: Option<Arc<PredictionLog>>,
    /// By the id of their component.
    routers: BTreeMap<String, Arc<ExperimentRouter>>,
    /// For what goes on without a request.
    this: Weak<Self>,
}

/// A route's end.
#[derive(Debug)]
pub struct Place {
    pub served: Served,
    pub metrics: Arc<RouteMetrics>,
    /// If the predictions of its component are logged.
    pub recorder: Option<Recorder>,
}

/// What answers on a route.
#[derive(Debug)]
pub enum Served {
    /// And what its answers belong to that are kept.
    Component(Arc<Service>, Scopes),
    /// The component that a router assigns the request to.
    Assigned(Arc<ExperimentRouter>),
    Static(StaticAnswer),
}

impl Host {
    /// Compiles every component of `app` that is not yet, into `state_dir`, for whoever may read
    /// there; how many there are.
    pub fn compile(app: &App, state_dir: &Path, makes: Makes) -> Result<usize> {
        let artifacts = Artifacts::open(&state_dir.join(ARTIFACTS), READABLE, makes)?;
        Ok(prepare(app, &Arc::new(Engine::new(app)?), &artifacts)?.len())
    }

    /// Compiles and links every component of `app`; compiled code is kept under `state_dir`.
    pub fn new(app: &App, state_dir: &Path) -> Result<Arc<Self>> {
        let started = SystemTime::now();
        let artifacts = Artifacts::open(&state_dir.join(ARTIFACTS), PRIVATE, Makes::Native)?;
        let watched: Vec<_> = app
            .components
            .values()
            .flat_map(|spec| {
                let logged = app.prediction_log.enabled && spec.prediction_log.enabled;
                spec.drift.iter().map(move |model| WatchedModel { logged, ..model.clone() })
            })
            .collect();
        let drift = Arc::new(Monitor::new(&watched)?);
        let engine = Arc::new(Engine::new(app)?);
        let codes = prepare(app, &engine, &artifacts)?;
        // A thousand components have thousands of files; who starts does not wait for that.
        std::thread::spawn(move || artifacts.remove_old());
        let backends = app.backends.backends();
        let registry = Arc::new(Registry::new(backends, ComputeThreads::start(threads()?)?));
        let background = Background::start(threads()?)?;
        let all_doors = Arc::default();
        let tls = client_tls::client()?;
        let outside = Arc::new(Outside::new(app.blocked_networks.clone(), &tls));
        let blocked = app.blocked_networks.clone();
        let redis = Connections::new(app.redis_connections, Arc::clone(&tls), blocked);
        // One for each store of each component, which guests do not use up; the operator says where to.
        let anywhere = BlockedNetworks::default();
        let for_stores = Connections::new(Semaphore::MAX_PERMITS, Arc::clone(&tls), anywhere);
        let granted = app.components.values().map(|spec| spec.key_value_stores.as_slice());
        let key_value = app.key_value.open(granted, &for_stores)?;
        let mut services = IndexMap::new();
        let (mut all_mounts, mut changes) = (HashMap::new(), HashMap::new());
        let (mounts, copies) =
            Copies::make(state_dir, app.components.values().map(|spec| &spec.files))?;
        for (((id, spec), mounts), granted) in app.components.iter().zip(mounts).zip(key_value) {
            let mut spec = spec.clone();
            spec.files.folders = mounts.clone();
            all_mounts.insert(id.clone(), mounts.clone());
            changes.extend(granted.get(STORE).map(|store| (id.clone(), Arc::clone(store))));
            let source = spec.source.clone();
            let models = Models::new(Arc::clone(&registry), mounts);
            let (models, outside) = (Arc::new(models), Arc::clone(&outside));
            let (engine, redis) = (engine.wasmtime().clone(), redis.share());
            let output = Output::open(id, app.log_dir.as_deref())?;
            let (code, linked) = &codes[&source];
            let policy = log_policy(app, &spec, linked)?;
            let stores = Stores::new(engine, spec, models, granted, outside, redis, output);
            let stores = match policy {
                Some(policy) => stores.logging(policy),
                None => stores,
            };
            let lane = background.lane();
            let (code, linked, doors) =
                (Arc::clone(code), Arc::clone(linked), Arc::clone(&all_doors));
            let service = Service::new(code, linked, stores, lane, doors)
                .with_context(|| format!("component `{id}`"))?;
            services.insert(id.clone(), Arc::new(service));
        }
        let shared = app.cache.shared.clone();
        let shared = shared.map(|settings| Shared::new(settings, tls.into()));
        let cache = Arc::new(Cache::new(app.cache.limits, shared));
        let assigns = |id: &&String| codes[&app.components[*id].source].1.assign.is_some();
        let assigning: Vec<_> = services.keys().filter(assigns).map(String::as_str).collect();
        let checked = check::Application { components: &app.components, mounts: &all_mounts };
        let mut routers = BTreeMap::new();
        for (id, experiments) in checked.experiments(&assigning)? {
            let store = changes.remove(&id);
            let router = ExperimentRouter::new(Arc::clone(&services[&id]), experiments, store)?;
            routers.insert(id, Arc::new(router));
        }
        let served = |id: &str, scopes| match routers.get(id).filter(|_| services[id].assigns()) {
            Some(router) => Served::Assigned(Arc::clone(router)),
            None => Served::Component(Arc::clone(&services[id]), scopes),
        };
        let scopes = |id: &str, route| cache.scopes(scopes(&app.components[id]).chain(route));
        let logs = services.values().any(|service: &Arc<Service>| service.logs());
        let recorder = |id: &str, route: &str| {
            let sample = app.components[id].prediction_log.sample;
            services[id].logs().then(|| Recorder::new(route, id, sample))
        };
        let mut metrics = HostMetrics::new(Arc::clone(&registry), started);
        let mut routes = Vec::new();
        for Route { pattern, target } in &app.routes {
            let shown = pattern.to_string();
            let (id, served) = match target {
                Target::Component(id) => {
                    let scopes = scopes(id, Some(Scope::Route(shown.clone())));
                    (id.as_str(), served(id, scopes))
                }
                Target::Static(answer) => ("", Served::Static(answer.clone())),
            };
            let recorder = if id.is_empty() { None } else { recorder(id, &shown) };
            let metrics = metrics.route(id, &shown);
            routes.push((pattern.clone(), Place { served, metrics, recorder }));
        }
        let router = Router::new(routes)
            .map_err(|twice| anyhow::anyhow!("the route \"{twice}\" stands twice"))?;
        for (id, experiments) in &routers {
            let public = app
                .routes
                .iter()
                .any(|route| matches!(&route.target, Target::Component(other) if other == id));
            let takes = |path: &str| {
                router.find(path).is_some_and(|(_, place)| place.metrics.component == *id)
            };
            check::routes(id, public, experiments.experiments(), takes)?;
        }
        let mut components = HashMap::new();
        for id in services.keys() {
            let shown = format!("{id}{INTERNAL}");
            let (metrics, recorder) = (metrics.route(id, &shown), recorder(id, &shown));
            let served = served(id, scopes(id, None));
            components.insert(id.clone(), (ANY.clone(), Place { served, metrics, recorder }));
        }
        let prediction_log = if logs { prediction_log(app, &drift)? } else { None };
        let host = Arc::new_cyclic(|this| Self {
            router,
            components,
            metrics,
            services,
            info: info(app),
            not_ready: Mutex::new(Some("models are being loaded".into())),
            model_states: ModelStates::default(),
            bodies: Holding::default(),
            answers: Arc::default(),
            connection_limits: app.connections,
            compression: app.compression,
            cors: app.cors.clone(),
            cache,
            drift,
            redis,
            _background: background,
            copies: Mutex::new(copies),
            prediction_log,
            routers,
            this: this.clone(),
        });
        outside.connect(&host);
        Ok(host)
    }

    /// What serves `path`, and the route it matched.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&(Pattern, Place)> {
        self.router.find(path)
    }

    /// Where request bodies are held that are taken whole.
    #[must_use]
    pub fn bodies(&self) -> &Holding {
        &self.bodies
    }

    /// Where answers are counted that clients have not taken yet.
    #[must_use]
    pub fn answers(&self) -> &Arc<Holding> {
        &self.answers
    }

    /// How many connections there may be, and for how long.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        self.connection_limits
    }

    /// Whose bodies are decoded and compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Which pages of other sites may call the application, if any may.
    #[must_use]
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    /// Which models are loaded.
    #[must_use]
    pub fn model_states(&self) -> &ModelStates {
        &self.model_states
    }

    /// Where answers are kept.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// What has become of the distributions of each model version.
    #[must_use]
    pub fn drift(&self) -> &Arc<Monitor> {
        &self.drift
    }

    /// Where predictions are logged; none if nothing is served that could log any, or the operator
    /// does not want it.
    #[must_use]
    pub fn prediction_log(&self) -> Option<&Arc<PredictionLog>> {
        self.prediction_log.as_ref()
    }

    /// The application's name and version, as JSON.
    #[must_use]
    pub fn info(&self) -> &str {
        &self.info
    }

    /// The component `id`, for another component: it has every path.
    #[must_use]
    pub fn component(&self, id: &str) -> Option<&(Pattern, Place)> {
        self.components.get(id)
    }

    /// The routers, by the id of their component.
    pub fn experiments(&self) -> impl Iterator<Item = &ExperimentRouter> {
        self.routers.values().map(|router| &**router)
    }

    /// Itself, for work that no request waits for; `None` while it ends.
    #[must_use]
    pub fn share(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// What is counted of requests.
    #[must_use]
    pub fn metrics(&self) -> &HostMetrics {
        &self.metrics
    }

    /// The components, by id.
    #[must_use]
    pub fn services(&self) -> &IndexMap<String, Arc<Service>> {
        &self.services
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
        // As many as there are threads to load them on.
        let at_once = threads().unwrap_or(1);
        let services: Vec<_> = self.services.values().cloned().collect();
        let loading = stream::iter(services).map(|service: Arc<Service>| async move {
            let failed = service.load_models(deadline).await;
            let failed = failed.into_iter().map(|(model, error)| (model.to_owned(), error));
            failed.collect::<Vec<_>>()
        });
        let loaded = pin!(loading.buffered(at_once));
        let mut loaded = stream::iter(self.services.keys()).zip(loaded);
        while let Some((id, failed)) = loaded.next().await {
            let reasons = failed.iter().map(|(model, error)| (model.clone(), error.to_string()));
            self.model_states.loaded(id, reasons);
            for (model, error) in failed {
                warn!(component = id, model, %error, "cannot load");
                problems.push(format!("component `{id}`: model `{model}`: {error}"));
            }
        }
        self.set_not_ready((!problems.is_empty()).then(|| problems.join("; ")));
        // Loading takes many times what is left of it.
        self.give_back();
    }

    /// Gives back memory that is free, on all threads that may hold some.
    fn give_back(&self) {
        give_back();
        self.metrics.models.rest();
        // They do when they are parked again, so those that are parked are woken.
        for _ in 0..Handle::current().metrics().num_workers() {
            tokio::spawn(std::future::ready(()));
        }
    }

    /// Removes the files that were copied for components: nobody is served any more.
    pub fn remove_copies(&self) {
        drop(self.copies.lock().unwrap_or_else(PoisonError::into_inner).take());
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

    /// What a host that is ready says, as JSON: what does not work, though requests are served.
    #[must_use]
    pub fn readiness(&self) -> String {
        let problem = self.prediction_log().and_then(|log| log.problem());
        match problem.map(|problem| format!("prediction log: {problem}")) {
            None => serde_json::json!({ "ready": true }),
            Some(problem) => serde_json::json!({ "ready": true, "degraded": [problem] }),
        }
        .to_string()
    }

    /// The longest a request may take.
    #[must_use]
    pub fn longest_deadline(&self) -> Duration {
        let deadlines = self.services.values().map(|service| service.limits().deadline);
        deadlines.max().unwrap_or_default()
    }

    /// Sees to what is idle, instances and connections, forever.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        let mut settling = 0;
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let mut dropped = false;
            for service in self.services.values() {
                dropped |= service.drop_idle(now);
                service.output().say_what_was_dropped();
            }
            settling = if dropped { SETTLING } else { settling.saturating_sub(1) };
            if settling > 0 {
                self.give_back();
            }
            self.redis.drop_idle(now);
        }
    }
}

/// The prediction log of `app`.
fn prediction_log(app: &App, drift: &Arc<Monitor>) -> Result<Option<Arc<PredictionLog>>> {
    if !app.prediction_log.enabled {
        return Ok(None);
    }
    let mounted = app.components.values().flat_map(|spec| spec.files.folders.models());
    let models = mounted.filter_map(|(name, folder)| ModelInfo::read(name, folder)).collect();
    let drift: Arc<dyn Observer> = Arc::clone(drift) as _;
    let observers = vec![drift];
    let log = PredictionLog::open(&app.state_folder, app.prediction_log, models, observers)?;
    Ok(Some(log))
}

/// As Spin's `/.well-known/spin/info` has it.
fn info(app: &App) -> String {
    let mut info = serde_json::Map::from_iter([("name".to_owned(), app.name.clone().into())]);
    info.extend(app.version.clone().map(|version| ("version".to_owned(), version.into())));
    serde_json::Value::Object(info).to_string()
}

/// What is done with the predictions of a component; `None` if it has none logged.
fn log_policy(app: &App, spec: &ComponentSpec, linked: &Linked) -> Result<Option<LogPolicy>> {
    let settings = &spec.prediction_log;
    if !linked.logs || !settings.enabled {
        return Ok(None);
    }
    let hash = match &*settings.hash {
        [] => None,
        names => Some((names.to_vec(), HashKey::open(&app.state_folder)?)),
    };
    let redaction = Redaction::new(settings.drop.clone(), hash);
    Ok(Some(LogPolicy::new(&spec.id, redaction)))
}

/// What the answers of a component belong to, under whichever route.
fn scopes(spec: &ComponentSpec) -> impl Iterator<Item = Scope> + use<> {
    let models = spec.models.iter().flat_map(|model| {
        let version = model.version.as_ref().map(|version| format!("{}/{version}", model.name));
        [model.name.clone()].into_iter().chain(version).map(Scope::Model)
    });
    let scopes: Vec<_> = [Scope::Component(spec.id.clone())].into_iter().chain(models).collect();
    scopes.into_iter()
}

/// The code of each component file, compiled on as many threads as there are.
type Codes = HashMap<PathBuf, (Arc<Code>, Arc<Linked>)>;

fn prepare(app: &App, engine: &Arc<Engine>, artifacts: &Artifacts) -> Result<Codes> {
    let mut sources: Vec<&PathBuf> = app.components.values().map(|spec| &spec.source).collect();
    sources.sort_unstable();
    sources.dedup();
    let next = AtomicUsize::new(0);
    // The compiler's threads end with this: what they hold of free memory would stay with them.
    let compiling = rayon::ThreadPoolBuilder::new().num_threads(threads()?).build()?;
    let worker = || {
        let numbered = || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            Some((index + 1, sources.get(index)?))
        };
        std::iter::from_fn(numbered)
            .map(|(number, source)| {
                let progress = format!("{number} of {}", sources.len());
                let prepare = || Code::prepare(engine, artifacts, source, &progress);
                let prepared = compiling.install(prepare);
                let (code, linked) = prepared.with_context(|| {
                    let user = app.components.values().find(|spec| spec.source == **source);
                    let id = user.map_or("", |spec| &spec.id);
                    format!("component `{id}`, {}", source.display())
                })?;
                Ok(((*source).clone(), (Arc::new(code), linked)))
            })
            .collect::<Vec<Result<_>>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads()?).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().map(|worker| {
            worker.join().unwrap_or_else(|_| vec![Err(anyhow::anyhow!("the compiler panicked"))])
        });
        let mut codes = Codes::new();
        let mut problems = Vec::new();
        for result in results.flatten() {
            match result {
                Ok((source, code)) => drop(codes.insert(source, code)),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        problems.sort_unstable();
        if problems.is_empty() { Ok(codes) } else { Err(anyhow::anyhow!(problems.join("\n"))) }
    })
}

fn threads() -> std::io::Result<usize> {
    std::thread::available_parallelism().map(std::num::NonZero::get)
}
