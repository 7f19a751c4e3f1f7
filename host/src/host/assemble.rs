//! From a resolved application to a running one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use indexmap::IndexMap;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tracing::warn;

use super::component_code::{self, Codes};
use super::{Host, RouteTarget, Served, threads};
use crate::cache::ResponseCache;
use crate::cache::generation::PurgeScope;
use crate::cache::redis::RedisCache;
use crate::capabilities::outbound_http::{Chain, OutboundHttp};
use crate::capabilities::prediction_log::LogPolicy;
use crate::config::app::{App, ComponentSpec, Route, RouteAction};
use crate::config::blocked_networks::BlockedNetworks;
use crate::drift::{Monitor, WatchedModel};
use crate::experiment::{ExperimentRouter, STORE, check};
use crate::guest::component::Component;
use crate::guest::component_file::LinkedComponent;
use crate::guest::door::InstancePool;
use crate::guest::engine::Engine;
use crate::guest::files::CopiedFiles;
use crate::guest::instance::{GrantedStorage, OutboundConnections, StoreFactory};
use crate::guest::offload::GuestThreads;
use crate::guest::stdio::ComponentOutput;
use crate::http::body::MAX_BODIES;
use crate::http::body::response_memory::ResponseMemory;
use crate::http::client_tls;
use crate::http::request_log::RequestLog;
use crate::http::reserved::INTERNAL;
use crate::http::route::{ANY, Pattern, Router};
use crate::inference::{
    ComponentModels, ComputeThreads, GraphRegistry, Mounts, check_model_folder, joined,
};
use crate::metrics::HostMetrics;
use crate::prediction_log::models::ModelInfo;
use crate::prediction_log::settings::LogSettings;
use crate::prediction_log::{
    HashKey, Observer, PredictionLog, PredictionLogSettings, Recorder, Redaction, Sampling,
};
use crate::process::memory_budget::MemoryBudget;
use crate::storage::key_value::{DEFAULT, GrantedStore};
use crate::storage::mqtt::MqttConnections;
use crate::storage::postgres::PostgresConnections;
use crate::storage::redis::RedisConnections;

impl Host {
    /// Compiles, links and assembles `app`. Compiled code and copied files go into `state_dir`.
    ///
    /// # Errors
    /// What cannot be compiled, linked, opened or connected, and every problem of its experiments.
    pub fn new(app: &App, state_dir: &Path) -> Result<Arc<Self>> {
        Self::assemble(app, state_dir, true)
    }

    /// As [`Self::new`], without the prediction log: for commands that do not serve.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn without_log(app: &App, state_dir: &Path) -> Result<Arc<Self>> {
        Self::assemble(app, state_dir, false)
    }

    fn assemble(app: &App, state_dir: &Path, with_log: bool) -> Result<Arc<Self>> {
        let mut metrics = HostMetrics::new(SystemTime::now());
        let samples = app.components.values();
        let samples = samples.map(|spec| (spec.id.as_str(), spec.prediction_log.sample));
        let drift = Arc::new(Monitor::new(&watched_models(app))?.with_samples(samples));
        let engine = Arc::new(Engine::new(app)?);
        let codes = component_code::prepare(app, &engine, state_dir)?;
        let shared = SharedParts::start(app, &engine)?;
        let (mounts, copies) =
            CopiedFiles::create(state_dir, app.components.values().map(|spec| &spec.files))?;
        let storage = open_storage(app, &shared)?;
        let default_store =
            storage.iter().find_map(|granted| granted.key_value.get(DEFAULT)).cloned();
        let components = create_components(app, &codes, &shared, mounts, storage)?;
        let cache = response_cache(app, &shared.tls);
        let routers = create_routers(app, &codes, &components)?;
        let assembly = Assembly { app, cache: &cache, components: &components, routers: &routers };
        let router = assembly.routes(&mut metrics)?;
        let by_id = assembly.by_id(&mut metrics);
        let prediction_log = if with_log { open_prediction_log(&assembly, &drift)? } else { None };
        let SharedParts { graphs, guest_threads, outbound_http, redis, response_memory, .. } =
            shared;
        let host = Arc::new_cyclic(|this| Self {
            router,
            component_targets: by_id,
            metrics,
            request_log: RequestLog::default(),
            graphs,
            components: components.into_iter().map(|(id, one)| (id, one.component)).collect(),
            name: app.name.clone(),
            info: info(app),
            routes: public_routes(app),
            not_ready: Mutex::new(Some("models are being loaded".into())),
            body_budget: MemoryBudget::new(MAX_BODIES, "request bodies"),
            response_memory,
            connection_limits: app.connections,
            compression: app.compression,
            cors: app.cors.clone(),
            cache,
            drift,
            redis,
            _guest_threads: guest_threads,
            copies: Mutex::new(copies),
            default_store,
            prediction_log,
            routers,
            listening: OnceLock::new(),
            this: this.clone(),
        });
        let application: Weak<Self> = Arc::downgrade(&host);
        outbound_http.connect(application as Weak<dyn Chain>);
        Ok(host)
    }
}

/// What all components share.
struct SharedParts {
    engine: Arc<Engine>,
    graphs: Arc<GraphRegistry>,
    guest_threads: GuestThreads,
    instance_pool: Arc<InstancePool>,
    tls: Arc<ClientConfig>,
    outbound_http: Arc<OutboundHttp>,
    redis: RedisConnections,
    mqtt: MqttConnections,
    postgres: PostgresConnections,
    response_memory: ResponseMemory,
}

impl SharedParts {
    fn start(app: &App, engine: &Arc<Engine>) -> Result<Self> {
        let compute = ComputeThreads::start(threads()?)?;
        let tls = client_tls::client()?;
        let blocked = app.blocked_networks.clone();
        Ok(Self {
            engine: Arc::clone(engine),
            graphs: Arc::new(GraphRegistry::new(app.backends.backends(), compute)),
            guest_threads: GuestThreads::start(threads()?)?,
            instance_pool: Arc::default(),
            outbound_http: Arc::new(OutboundHttp::new(blocked.clone(), &tls)),
            redis: RedisConnections::new(app.redis_connections, Arc::clone(&tls), blocked.clone()),
            mqtt: MqttConnections::new(blocked.clone()),
            postgres: PostgresConnections::new(&tls, blocked),
            response_memory: ResponseMemory::new(MAX_BODIES, app.unread_per_client),
            tls,
        })
    }
}

/// Opens the key-value stores and databases of every component, in the order of the components.
fn open_storage(app: &App, shared: &SharedParts) -> Result<Vec<GrantedStorage>> {
    // A connection for each store of each component: guests cannot exhaust them, and the operator
    // chose the addresses.
    let anywhere = BlockedNetworks::default();
    let redis = RedisConnections::new(Semaphore::MAX_PERMITS, Arc::clone(&shared.tls), anywhere);
    let granted = app.components.values().map(|spec| spec.key_value_stores.as_slice());
    let stores = app.key_value.open(granted, &redis)?;
    let granted = app.components.values().map(|spec| spec.sqlite_databases.as_slice());
    let databases = app.sqlite.open(granted)?;
    let storage = stores.into_iter().zip(databases);
    Ok(storage.map(|(key_value, sqlite)| GrantedStorage { key_value, sqlite }).collect())
}

/// A component, and what its experiments are checked against.
struct Created {
    component: Arc<Component>,
    mounts: Mounts,
    /// The store that changes of experiments are in, if it is granted.
    changes: Option<Arc<GrantedStore>>,
}

type Components = IndexMap<String, Created>;

fn create_components(
    app: &App,
    codes: &Codes,
    shared: &SharedParts,
    mounts: Vec<Mounts>,
    storage: Vec<GrantedStorage>,
) -> Result<Components> {
    let parts = app.components.iter().zip(mounts).zip(storage);
    parts
        .map(|(((id, spec), mounts), storage)| {
            let changes = storage.key_value.get(STORE).map(Arc::clone);
            let component = create_component(app, spec, codes, shared, mounts.clone(), storage)
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
    storage: GrantedStorage,
) -> Result<Component> {
    let mut spec = spec.clone();
    spec.files.folders = mounts.clone();
    // Those of single files and patterns, which are in a folder of this process only now.
    for (name, folder) in mounts.models() {
        if spec.models.iter().all(|model| model.name != name) {
            spec.models
                .push(check_model_folder(name, folder).map_err(|problems| joined(&problems))?);
        }
    }
    let (code, linked) = &codes[&spec.source];
    let policy = log_policy(app, &spec, linked)?;
    let models = Arc::new(ComponentModels::new(Arc::clone(&shared.graphs), mounts));
    let output = ComponentOutput::open(&spec.id, app)?;
    let wasmtime = shared.engine.wasmtime().clone();
    let outbound_http = Arc::clone(&shared.outbound_http);
    let connections = OutboundConnections {
        redis: shared.redis.for_component(),
        mqtt: shared.mqtt.for_component(),
        postgres: shared.postgres.for_component(),
    };
    let stores =
        StoreFactory::new(wasmtime, spec, models, storage, outbound_http, connections, output);
    let stores = match policy {
        Some(policy) => stores.logging(policy),
        None => stores,
    };
    let (code, linked, instance_pool) =
        (Arc::clone(code), Arc::clone(linked), Arc::clone(&shared.instance_pool));
    let (offload, memory) = (shared.guest_threads.for_component(), shared.response_memory.clone());
    Component::new(code, linked, stores, offload, instance_pool, memory)
}

fn response_cache(app: &App, tls: &Arc<ClientConfig>) -> Arc<ResponseCache> {
    let redis = app.cache.redis.clone();
    let redis = redis.map(|settings| RedisCache::new(settings, Arc::clone(tls).into()));
    Arc::new(ResponseCache::new(&app.cache, redis))
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
    let checked = check::CheckedApplication { components: &app.components, mounts: &mounts };
    let checked = checked.experiments(&assigning)?;
    let unit_key = if checked.is_empty() { None } else { unit_key(app, components) };
    let routers = checked.into_iter().map(|(id, experiments)| {
        let Created { component, changes, .. } = &components[&id];
        let (component, changes) = (Arc::clone(component), changes.clone());
        let router = ExperimentRouter::new(component, experiments, changes, unit_key.clone())?;
        Ok((id, Arc::new(router)))
    });
    routers.collect()
}

/// The key that hashes the units in the prediction log; `None` if nothing is logged, or there is no
/// key.
fn unit_key(app: &App, components: &Components) -> Option<HashKey> {
    if !is_logged(app, components) {
        return None;
    }
    let key = HashKey::open(&app.state_folder);
    key.inspect_err(|error| {
        warn!(error = format!("{error:#}"), "the units of experiments are not logged");
    })
    .ok()
}

/// What routes lead to.
struct Assembly<'a> {
    app: &'a App,
    cache: &'a ResponseCache,
    components: &'a Components,
    routers: &'a BTreeMap<String, Arc<ExperimentRouter>>,
}

impl Assembly<'_> {
    /// The routes of the manifest.
    fn routes(&self, metrics: &mut HostMetrics) -> Result<Router<RouteTarget>> {
        let routes = self.app.routes.iter().map(|Route { pattern, target }| {
            let shown = pattern.to_string();
            let route_target = match target {
                RouteAction::Component(id) => {
                    self.target(metrics, id, &shown, Some(PurgeScope::Route(shown.clone())))
                }
                RouteAction::Static(response) => RouteTarget {
                    served: Served::Static(response.clone()),
                    metrics: metrics.route("", &shown),
                    recorder: None,
                },
            };
            (pattern.clone(), route_target)
        });
        let router = Router::new(routes.collect::<Vec<_>>())
            .map_err(|twice| anyhow!("duplicate route \"{twice}\"; remove one"))?;
        self.check_experiments(&router)?;
        Ok(router)
    }

    /// Every component, for requests of other components: one that has all paths.
    fn by_id(&self, metrics: &mut HostMetrics) -> HashMap<String, (Pattern, RouteTarget)> {
        let ids = self.components.keys();
        ids.map(|id| {
            let shown = format!("{id}{INTERNAL}");
            (id.clone(), (ANY.clone(), self.target(metrics, id, &shown, None)))
        })
        .collect()
    }

    /// The component `id` under a route, which its metrics and records name as `shown`.
    fn target(
        &self,
        metrics: &mut HostMetrics,
        id: &str,
        shown: &str,
        route: Option<PurgeScope>,
    ) -> RouteTarget {
        let (component, spec) = (&self.components[id].component, &self.app.components[id]);
        let served = match self.routers.get(id).filter(|_| component.assigns()) {
            Some(router) => Served::Assigned(Arc::clone(router)),
            None => {
                let scopes = self.cache.scopes(scopes(spec).chain(route));
                Served::Component(Arc::clone(component), scopes)
            }
        };
        let LogSettings { sample: share, mode, .. } = spec.prediction_log;
        let sampling = Sampling { share, on_request: self.app.prediction_log.on_request };
        let recorder = || Recorder::new(shown, id, sampling).with_mode(mode);
        let recorder = component.logs_predictions().then(recorder);
        RouteTarget { served, metrics: metrics.route(id, shown), recorder }
    }

    fn check_experiments(&self, router: &Router<RouteTarget>) -> Result<()> {
        for (id, experiments) in self.routers {
            let leads_here = |route: &Route| matches!(&route.target, RouteAction::Component(other) if other == id);
            let public = self.app.routes.iter().any(leads_here);
            let takes = |path: &str| {
                router.find(path).is_some_and(|(_, found)| found.metrics.component == *id)
            };
            check::routes(id, public, experiments.experiments(), takes)?;
        }
        Ok(())
    }
}

/// The models that drift is watched of.
fn watched_models(app: &App) -> Vec<WatchedModel> {
    let models = app.components.values().flat_map(|spec| {
        let LogSettings { enabled, sample, .. } = spec.prediction_log;
        let logged = app.prediction_log.enabled && enabled && sample > 0.0;
        spec.drift.iter().map(move |model| WatchedModel { logged, ..model.clone() })
    });
    models.collect()
}

/// Whether the prediction log is enabled, and a component appends to it.
fn is_logged(app: &App, components: &Components) -> bool {
    app.prediction_log.enabled && components.values().any(|one| one.component.logs_predictions())
}

/// The prediction log, if it is enabled and a component appends to it.
fn open_prediction_log(
    Assembly { app, components, routers, .. }: &Assembly<'_>,
    drift: &Arc<Monitor>,
) -> Result<Option<Arc<PredictionLog>>> {
    if !is_logged(app, components) {
        return Ok(None);
    }
    let mounted = app.components.values().flat_map(|spec| spec.files.folders.models());
    let models = mounted.filter_map(|(name, folder)| ModelInfo::read(name, folder)).collect();
    let drift: Arc<dyn Observer> = Arc::clone(drift) as _;
    let observers = vec![drift];
    let logging = components.iter().filter(|(_, one)| one.component.logs_predictions());
    let modes = logging.map(|(id, _)| app.components[id].prediction_log.mode);
    let mode = modes.max().unwrap_or_default();
    let experiments = routers.values().flat_map(|router| router.experiments());
    let runs = experiments.map(|experiment| (experiment.name.clone(), experiment.digest()));
    let settings =
        PredictionLogSettings { mode, runs: runs.collect(), ..app.prediction_log.clone() };
    let log = PredictionLog::open(&app.state_folder, settings, models, observers)?;
    Ok(Some(log))
}

/// The public routes that lead to components, with the component's id.
fn public_routes(app: &App) -> Vec<(String, String)> {
    let route = |Route { pattern, target }: &Route| match target {
        RouteAction::Component(id) => Some((pattern.to_string(), id.clone())),
        RouteAction::Static(_) => None,
    };
    app.routes.iter().filter_map(route).collect()
}

/// The application's name and version in the JSON of Spin's `/.well-known/spin/info`.
fn info(app: &App) -> String {
    let mut info = serde_json::Map::from_iter([("name".to_owned(), app.name.clone().into())]);
    info.extend(app.version.clone().map(|version| ("version".to_owned(), version.into())));
    serde_json::Value::Object(info).to_string()
}

/// How the predictions of a component are redacted; `None` if they are not logged.
fn log_policy(
    app: &App,
    spec: &ComponentSpec,
    linked: &LinkedComponent,
) -> Result<Option<LogPolicy>> {
    let settings = &spec.prediction_log;
    if !linked.logs_predictions || !settings.enabled {
        return Ok(None);
    }
    let hash = match &*settings.hash {
        [] => None,
        names => Some((names.to_vec(), HashKey::open(&app.state_folder)?)),
    };
    let LogSettings { drop, round, keep, .. } = settings.clone();
    let redaction = Redaction { drop, hash, round, keep };
    Ok(Some(LogPolicy::new(&spec.id, redaction)))
}

/// The scopes that the cached responses of a component are purged by, on any route.
fn scopes(spec: &ComponentSpec) -> impl Iterator<Item = PurgeScope> + use<> {
    let models = spec.models.iter().flat_map(|model| {
        let version = model.version.as_ref().map(|version| format!("{}/{version}", model.name));
        [model.name.clone()].into_iter().chain(version).map(PurgeScope::Model)
    });
    let scopes: Vec<_> =
        [PurgeScope::Component(spec.id.clone())].into_iter().chain(models).collect();
    scopes.into_iter()
}
