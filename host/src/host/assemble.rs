//! From a resolved application to a running one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use indexmap::IndexMap;
use rustls::ClientConfig;
use tokio::sync::Semaphore;

use super::component_code::{self, Codes};
use super::{Host, Place, Served, threads};
use crate::cache::Cache;
use crate::cache::generation::Scope;
use crate::cache::redis::Shared;
use crate::capabilities::outbound_http::{Chain, Outside};
use crate::capabilities::prediction_log::LogPolicy;
use crate::config::app::{App, ComponentSpec, Route, Target};
use crate::config::blocked_networks::BlockedNetworks;
use crate::drift::{Monitor, WatchedModel};
use crate::experiment::{ExperimentRouter, STORE, check};
use crate::guest::component::Service;
use crate::guest::component_file::Linked;
use crate::guest::door::Doors;
use crate::guest::engine::Engine;
use crate::guest::files::Copies;
use crate::guest::instance::Stores;
use crate::guest::offload::Background;
use crate::guest::stdio::Output;
use crate::http::body::MAX_BODIES;
use crate::process::memory_budget::MemoryBudget;
use crate::http::client_tls;
use crate::http::reserved::INTERNAL;
use crate::http::route::{ANY, Pattern, Router};
use crate::inference::{ComputeThreads, Models, Mounts, Registry};
use crate::inference::model_states::ModelStates;
use crate::metrics::HostMetrics;
use crate::prediction_log::models::ModelInfo;
use crate::prediction_log::{HashKey, Observer, PredictionLog, Recorder, Redaction};
use crate::storage::key_value::Store;
use crate::storage::redis::Connections;

impl Host {
    /// Compiles, links and assembles `app`. Compiled code and copied files go into `state_dir`.
    ///
    /// # Errors
    /// What cannot be compiled, linked, opened or connected, and every problem of its experiments.
    pub fn new(app: &App, state_dir: &Path) -> Result<Arc<Self>> {
        let mut metrics = HostMetrics::new(SystemTime::now());
        let drift = Arc::new(Monitor::new(&watched_models(app))?);
        let engine = Arc::new(Engine::new(app)?);
        let codes = component_code::prepare(app, &engine, state_dir)?;
        let shared = SharedParts::start(app, &engine)?;
        let (mounts, copies) =
            Copies::make(state_dir, app.components.values().map(|spec| &spec.files))?;
        let stores = open_stores(app, &shared)?;
        let components = create_components(app, &codes, &shared, mounts, stores)?;
        let cache = response_cache(app, &shared.tls);
        let routers = create_routers(app, &codes, &components)?;
        let assembly = Assembly { app, cache: &cache, components: &components, routers: &routers };
        let router = assembly.routes(&mut metrics)?;
        let by_id = assembly.by_id(&mut metrics);
        let prediction_log = open_prediction_log(&assembly, &drift)?;
        let SharedParts { graphs, background, outside, redis, .. } = shared;
        let host = Arc::new_cyclic(|this| Self {
            router,
            components: by_id,
            metrics,
            graphs,
            services: components.into_iter().map(|(id, one)| (id, one.component)).collect(),
            info: info(app),
            not_ready: Mutex::new(Some("models are being loaded".into())),
            model_states: ModelStates::default(),
            bodies: MemoryBudget::new(MAX_BODIES, "request bodies"),
            answers: MemoryBudget::new(MAX_BODIES, "responses"),
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
        let application: Weak<Self> = Arc::downgrade(&host);
        outside.connect(application as Weak<dyn Chain>);
        Ok(host)
    }
}

/// What all components share.
struct SharedParts {
    engine: Arc<Engine>,
    graphs: Arc<Registry>,
    background: Background,
    doors: Arc<Doors>,
    tls: Arc<ClientConfig>,
    outside: Arc<Outside>,
    redis: Connections,
}

impl SharedParts {
    fn start(app: &App, engine: &Arc<Engine>) -> Result<Self> {
        let compute = ComputeThreads::start(threads()?)?;
        let tls = client_tls::client()?;
        let blocked = app.blocked_networks.clone();
        Ok(Self {
            engine: Arc::clone(engine),
            graphs: Arc::new(Registry::new(app.backends.backends(), compute)),
            background: Background::start(threads()?)?,
            doors: Arc::default(),
            outside: Arc::new(Outside::new(blocked.clone(), &tls)),
            redis: Connections::new(app.redis_connections, Arc::clone(&tls), blocked),
            tls,
        })
    }
}

/// The stores one component is granted, by label.
type Granted = HashMap<String, Arc<Store>>;

/// Opens the key-value stores of every component, in the order of the components.
fn open_stores(app: &App, shared: &SharedParts) -> Result<Vec<Granted>> {
    // A connection for each store of each component: guests cannot exhaust them, and the operator
    // chose the addresses.
    let anywhere = BlockedNetworks::default();
    let redis = Connections::new(Semaphore::MAX_PERMITS, Arc::clone(&shared.tls), anywhere);
    let granted = app.components.values().map(|spec| spec.key_value_stores.as_slice());
    app.key_value.open(granted, &redis)
}

/// A component, and what its experiments are checked against.
struct Created {
    component: Arc<Service>,
    mounts: Mounts,
    /// The store that changes of experiments are in, if it is granted.
    changes: Option<Arc<Store>>,
}

type Components = IndexMap<String, Created>;

fn create_components(
    app: &App,
    codes: &Codes,
    shared: &SharedParts,
    mounts: Vec<Mounts>,
    stores: Vec<Granted>,
) -> Result<Components> {
    let parts = app.components.iter().zip(mounts).zip(stores);
    parts
        .map(|(((id, spec), mounts), granted)| {
            let changes = granted.get(STORE).map(Arc::clone);
            let component = create_component(app, spec, codes, shared, mounts.clone(), granted)
                .with_context(|| format!("component `{id}`"))?;
            Ok((id.clone(), Created { component: Arc::new(component), mounts, changes }))
        })
        .collect()
}

fn create_component(
    app: &App,
    spec: &ComponentSpec,
    codes: &Codes,
    shared: &SharedParts,
    mounts: Mounts,
    granted: Granted,
) -> Result<Service> {
    let mut spec = spec.clone();
    spec.files.folders = mounts.clone();
    let (code, linked) = &codes[&spec.source];
    let policy = log_policy(app, &spec, linked)?;
    let models = Arc::new(Models::new(Arc::clone(&shared.graphs), mounts));
    let output = Output::open(&spec.id, app.log_dir.as_deref())?;
    let wasmtime = shared.engine.wasmtime().clone();
    let (outside, redis) = (Arc::clone(&shared.outside), shared.redis.share());
    let stores = Stores::new(wasmtime, spec, models, granted, outside, redis, output);
    let stores = match policy {
        Some(policy) => stores.logging(policy),
        None => stores,
    };
    let (code, linked, doors) = (Arc::clone(code), Arc::clone(linked), Arc::clone(&shared.doors));
    Service::new(code, linked, stores, shared.background.lane(), doors)
}

fn response_cache(app: &App, tls: &Arc<ClientConfig>) -> Arc<Cache> {
    let shared = app.cache.shared.clone();
    let shared = shared.map(|settings| Shared::new(settings, Arc::clone(tls).into()));
    Arc::new(Cache::new(app.cache.limits, shared))
}

/// The routers, by the id of their component, with the experiments each mounts.
fn create_routers(
    app: &App,
    codes: &Codes,
    components: &Components,
) -> Result<BTreeMap<String, Arc<ExperimentRouter>>> {
    let assigns = |id: &&String| codes[&app.components[*id].source].1.assign.is_some();
    let assigning: Vec<_> = components.keys().filter(assigns).map(String::as_str).collect();
    let mounts = components.iter().map(|(id, one)| (id.clone(), one.mounts.clone())).collect();
    let checked = check::Application { components: &app.components, mounts: &mounts };
    let routers = checked.experiments(&assigning)?.into_iter().map(|(id, experiments)| {
        let Created { component, changes, .. } = &components[&id];
        let router = ExperimentRouter::new(Arc::clone(component), experiments, changes.clone())?;
        Ok((id, Arc::new(router)))
    });
    routers.collect()
}

/// What routes lead to.
struct Assembly<'a> {
    app: &'a App,
    cache: &'a Cache,
    components: &'a Components,
    routers: &'a BTreeMap<String, Arc<ExperimentRouter>>,
}

impl Assembly<'_> {
    /// The routes of the manifest.
    fn routes(&self, metrics: &mut HostMetrics) -> Result<Router<Place>> {
        let routes = self.app.routes.iter().map(|Route { pattern, target }| {
            let shown = pattern.to_string();
            let place = match target {
                Target::Component(id) => {
                    self.place(metrics, id, &shown, Some(Scope::Route(shown.clone())))
                }
                Target::Static(response) => Place {
                    served: Served::Static(response.clone()),
                    metrics: metrics.route("", &shown),
                    recorder: None,
                },
            };
            (pattern.clone(), place)
        });
        let router = Router::new(routes.collect())
            .map_err(|twice| anyhow!("the route \"{twice}\" stands twice"))?;
        self.check_experiments(&router)?;
        Ok(router)
    }

    /// Every component, for requests of other components: one that has all paths.
    fn by_id(&self, metrics: &mut HostMetrics) -> HashMap<String, (Pattern, Place)> {
        let ids = self.components.keys();
        ids.map(|id| {
            let shown = format!("{id}{INTERNAL}");
            (id.clone(), (ANY.clone(), self.place(metrics, id, &shown, None)))
        })
        .collect()
    }

    /// The component `id` under a route, which its metrics and records name as `shown`.
    fn place(
        &self,
        metrics: &mut HostMetrics,
        id: &str,
        shown: &str,
        route: Option<Scope>,
    ) -> Place {
        let (component, spec) = (&self.components[id].component, &self.app.components[id]);
        let served = match self.routers.get(id).filter(|_| component.assigns()) {
            Some(router) => Served::Assigned(Arc::clone(router)),
            None => {
                let scopes = self.cache.scopes(scopes(spec).chain(route));
                Served::Component(Arc::clone(component), scopes)
            }
        };
        let sample = spec.prediction_log.sample;
        let recorder = component.logs().then(|| Recorder::new(shown, id, sample));
        Place { served, metrics: metrics.route(id, shown), recorder }
    }

    fn check_experiments(&self, router: &Router<Place>) -> Result<()> {
        for (id, experiments) in self.routers {
            let leads_here = |route: &Route| matches!(&route.target, Target::Component(other) if other == id);
            let public = self.app.routes.iter().any(leads_here);
            let takes = |path: &str| {
                router.find(path).is_some_and(|(_, place)| place.metrics.component == *id)
            };
            check::routes(id, public, experiments.experiments(), takes)?;
        }
        Ok(())
    }
}

/// The models that drift is watched of.
fn watched_models(app: &App) -> Vec<WatchedModel> {
    let models = app.components.values().flat_map(|spec| {
        let logged = app.prediction_log.enabled && spec.prediction_log.enabled;
        spec.drift.iter().map(move |model| WatchedModel { logged, ..model.clone() })
    });
    models.collect()
}

/// The prediction log, if it is enabled and a component appends to it.
fn open_prediction_log(
    Assembly { app, components, .. }: &Assembly<'_>,
    drift: &Arc<Monitor>,
) -> Result<Option<Arc<PredictionLog>>> {
    if !app.prediction_log.enabled || !components.values().any(|one| one.component.logs()) {
        return Ok(None);
    }
    let mounted = app.components.values().flat_map(|spec| spec.files.folders.models());
    let models = mounted.filter_map(|(name, folder)| ModelInfo::read(name, folder)).collect();
    let drift: Arc<dyn Observer> = Arc::clone(drift) as _;
    let observers = vec![drift];
    let log = PredictionLog::open(&app.state_folder, app.prediction_log, models, observers)?;
    Ok(Some(log))
}

/// The application's name and version in the JSON of Spin's `/.well-known/spin/info`.
fn info(app: &App) -> String {
    let mut info = serde_json::Map::from_iter([("name".to_owned(), app.name.clone().into())]);
    info.extend(app.version.clone().map(|version| ("version".to_owned(), version.into())));
    serde_json::Value::Object(info).to_string()
}

/// How the predictions of a component are redacted; `None` if they are not logged.
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

/// The scopes that the cached responses of a component are purged by, on any route.
fn scopes(spec: &ComponentSpec) -> impl Iterator<Item = Scope> + use<> {
    let models = spec.models.iter().flat_map(|model| {
        let version = model.version.as_ref().map(|version| format!("{}/{version}", model.name));
        [model.name.clone()].into_iter().chain(version).map(Scope::Model)
    });
    let scopes: Vec<_> = [Scope::Component(spec.id.clone())].into_iter().chain(models).collect();
    scopes.into_iter()
}
