//! The running application: its routes, its components, and what they share.

mod assemble;
mod component_code;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::cache::ResponseCache;
use crate::cache::generation::PurgeScopes;
use crate::config::app::FixedResponse;
use crate::drift::Monitor;
use crate::experiment::ExperimentRouter;
use crate::guest::component::Component;
use crate::guest::files::CopiedFiles;
use crate::guest::offload::GuestThreads;
use crate::http::body::response_memory::ResponseMemory;
use crate::http::content_encoding::Compression;
use crate::http::cors::Cors;
use crate::http::error::Failure;
use crate::http::request_log::RequestLog;
use crate::http::reserved::OWN;
use crate::http::route::{Pattern, Router};
use crate::inference::GraphRegistry;
use crate::metrics::{HostMetrics, RouteMetrics};
use crate::prediction_log::{PredictionLog, Recorder};
use crate::process::heap::request_trim;
use crate::process::memory_budget::MemoryBudget;
use crate::server::connections::ConnectionLimits;
use crate::storage::key_value::GrantedStore;
use crate::storage::redis::RedisConnections;

/// Interval at which idle resources are released, and dropped output is reported.
const SWEEP: Duration = Duration::from_secs(1);

/// Number of sweeps after the last release that still return free memory to the system: of threads that
/// exited meanwhile, and of those that were busy.
const SETTLING: usize = 3;

/// Time until the first retry of models that cannot be loaded. It doubles with each, up to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_secs(1);
/// Maximum time between two retries.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Maximum time for the models of an application to load.
const MAX_LOADING: Duration = Duration::from_secs(600);

/// The running application.
#[derive(Debug)]
pub struct Host {
    router: Router<RouteTarget>,
    components: IndexMap<String, Arc<Component>>,
    /// The components as targets of requests of other components, by id.
    component_targets: HashMap<String, (Pattern, RouteTarget)>,
    metrics: HostMetrics,
    request_log: RequestLog,
    graphs: Arc<GraphRegistry>,
    name: String,
    /// The application's name and version, as JSON.
    info: String,
    /// The public routes that lead to components, in the order of the manifest, with the component's id.
    routes: Vec<(String, String)>,
    /// Why the host is not ready.
    not_ready: Mutex<Option<String>>,
    body_budget: MemoryBudget,
    response_memory: ResponseMemory,
    connection_limits: ConnectionLimits,
    compression: Compression,
    cors: Option<Cors>,
    cache: Arc<ResponseCache>,
    drift: Arc<Monitor>,
    redis: RedisConnections,
    _guest_threads: GuestThreads,
    copies: Mutex<Option<CopiedFiles>>,
    /// The key-value store with the default label, if a component is granted it.
    default_store: Option<Arc<GrantedStore>>,
    prediction_log: Option<Arc<PredictionLog>>,
    /// The routers, by the id of their component.
    routers: BTreeMap<String, Arc<ExperimentRouter>>,
    /// Set once it serves clients.
    listening: OnceLock<Listening>,
    /// This host, for tasks in the background.
    this: Weak<Self>,
}

/// Where the host serves clients.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// `http` or `https`.
    pub scheme: &'static str,
    pub address: SocketAddr,
}

/// The target of a route.
#[derive(Debug)]
pub struct RouteTarget {
    pub served: Served,
    pub metrics: Arc<RouteMetrics>,
    /// Set if the predictions of its component are logged.
    pub recorder: Option<Recorder>,
}

/// What serves the requests of a route.
#[derive(Debug)]
pub enum Served {
    /// A component, and the purge scopes of its cached responses.
    Component(Arc<Component>, PurgeScopes),
    /// The component that a router assigns the request to.
    Assigned(Arc<ExperimentRouter>),
    Static(FixedResponse),
}

impl Host {
    /// The route that `path` matches, and its target.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&(Pattern, RouteTarget)> {
        self.router.find(path)
    }

    /// The public routes that resemble `path`, which none matches.
    #[must_use]
    pub fn nearest(&self, path: &str) -> Vec<String> {
        self.router.nearest(path, &OWN)
    }

    /// Name of the application.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public routes to the component `id`, and to the routers that assign requests to it.
    pub fn routes_to(&self, id: &str) -> impl Iterator<Item = &str> {
        let routes = self.routes.iter().filter(move |(_, target)| {
            target == id || self.routers.get(target).is_some_and(|router| router.assigns_to(id))
        });
        routes.map(|(route, _)| route.as_str())
    }

    /// Whether a component mounts a model.
    #[must_use]
    pub fn has_models(&self) -> bool {
        self.components.values().any(|component| !component.spec().models.is_empty())
    }

    /// Sets where the host serves clients.
    pub fn listens(&self, listening: Listening) {
        // A host serves one listener.
        let _ = self.listening.set(listening);
    }

    /// Where the host serves clients; `None` before it does.
    #[must_use]
    pub fn listening(&self) -> Option<Listening> {
        self.listening.get().copied()
    }

    /// The memory budget of request bodies that are admitted whole.
    #[must_use]
    pub fn body_budget(&self) -> &MemoryBudget {
        &self.body_budget
    }

    /// The memory of responses that clients have not read yet.
    #[must_use]
    pub fn response_memory(&self) -> &ResponseMemory {
        &self.response_memory
    }

    /// The limits of client connections.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        self.connection_limits
    }

    /// Which bodies are decoded and compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The CORS settings; `None` without `[application.tool.spinfer.cors]`.
    #[must_use]
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    /// The response cache.
    #[must_use]
    pub fn cache(&self) -> &Arc<ResponseCache> {
        &self.cache
    }

    /// The drift of each model version.
    #[must_use]
    pub fn drift(&self) -> &Arc<Monitor> {
        &self.drift
    }

    /// The prediction log; `None` if it is disabled, or no component logs predictions.
    #[must_use]
    pub fn prediction_log(&self) -> Option<&Arc<PredictionLog>> {
        self.prediction_log.as_ref()
    }

    /// The application's name and version, as JSON.
    #[must_use]
    pub fn info(&self) -> &str {
        &self.info
    }

    /// The component `id` as the target of another component's requests, for every path.
    #[must_use]
    pub fn component_target(&self, id: &str) -> Option<&(Pattern, RouteTarget)> {
        self.component_targets.get(id)
    }

    /// The routers, by the id of their component.
    pub fn experiments(&self) -> impl Iterator<Item = &ExperimentRouter> + Clone {
        self.routers.values().map(|router| &**router)
    }

    /// A reference for background work; `None` while the host shuts down.
    #[must_use]
    pub fn share(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// The loaded graphs of all components.
    #[must_use]
    pub fn graphs(&self) -> &Arc<GraphRegistry> {
        &self.graphs
    }

    /// The metrics of requests.
    #[must_use]
    pub fn metrics(&self) -> &HostMetrics {
        &self.metrics
    }

    /// The log of single requests.
    #[must_use]
    pub fn request_log(&self) -> &RequestLog {
        &self.request_log
    }

    /// The components, by id.
    #[must_use]
    pub fn components(&self) -> &IndexMap<String, Arc<Component>> {
        &self.components
    }

    /// The component `id`.
    #[must_use]
    pub fn component(&self, id: &str) -> Option<&Arc<Component>> {
        self.components.get(id)
    }

    /// Sets `entries` in the key-value store with the default label.
    ///
    /// # Errors
    /// No component is granted that store, or it cannot store an entry.
    pub async fn set_default_entries(&self, entries: &[(String, String)]) -> Result<()> {
        for (key, value) in entries {
            let store = self.default_store.as_ref().context(
                "no component has the default store; add `key_value_stores = [\"default\"]`",
            )?;
            store.set(key.clone(), value.clone().into_bytes()).await?;
        }
        Ok(())
    }

    /// Retries models that cannot be loaded, forever. The host is ready while all can be served.
    pub async fn retry_models(&self) {
        let mut delay = RETRY;
        loop {
            tokio::time::sleep(delay).await;
            let failed = |component: &&Arc<Component>| !component.unready_models().is_empty();
            if !self.components.values().any(|component| failed(&component)) {
                delay = RETRY;
                continue;
            }
            delay = (2 * delay).min(MAX_RETRY);
            for (id, component) in self.components.iter().filter(|(_, component)| failed(component))
            {
                let before = component.unready_models();
                component.load_models(Instant::now() + MAX_LOADING).await;
                let after = component.unready_models();
                for (model, error) in after.iter().filter(|model| !before.contains(model)) {
                    warn!(component = id, model, error, "cannot load the model");
                }
                for (model, _) in before {
                    if !after.iter().any(|(other, _)| *other == model) {
                        info!(component = id, model, "the model can be served again");
                    }
                }
            }
            self.trim_memory();
        }
    }

    /// Asks every component whether it can serve the models that it mounts. Returns the refusals.
    pub async fn refusals(&self) -> Vec<String> {
        let mut refusals = Vec::new();
        for (id, component) in &self.components {
            for model in &component.spec().models {
                let refusal = component.refusal_of(&model.name).await;
                let refusal =
                    refusal.map(|why| format!("component `{id}`: model `{}`: {why}", model.name));
                refusals.extend(refusal);
            }
        }
        refusals
    }

    /// Loads every mounted model before its first request.
    pub async fn load_models(&self) {
        let deadline = Instant::now() + MAX_LOADING;
        // One component per thread.
        let at_once = threads().unwrap_or(1);
        let loading = stream::iter(self.components.values().cloned()).map(|component| async move {
            let failed = component.load_models(deadline).await.into_iter();
            failed.map(|(model, error)| (model.to_owned(), error)).collect::<Vec<_>>()
        });
        let loaded = pin!(loading.buffered(at_once));
        let mut loaded = stream::iter(self.components.keys()).zip(loaded);
        while let Some((id, failed)) = loaded.next().await {
            for (model, error) in failed {
                warn!(component = id, model, %error, "cannot load the model");
            }
        }
        self.set_not_ready(None);
        // Loading takes many times the memory that the loaded models keep.
        self.trim_memory();
    }

    /// Returns free memory to the system, on all threads that may hold some.
    fn trim_memory(&self) {
        request_trim();
        self.graphs.trim_memory();
        // A thread does so when it is parked; this wakes those that are parked already.
        for _ in 0..Handle::current().metrics().num_workers() {
            tokio::spawn(std::future::ready(()));
        }
    }

    /// Removes the files that were copied for components, once no request is served any more.
    pub fn remove_copies(&self) {
        drop(self.copies.lock().take());
    }

    /// Makes the host live but not ready, so that load balancers stop sending requests.
    pub fn drain(&self) {
        self.set_not_ready(Some("the server is shutting down".into()));
    }

    fn set_not_ready(&self, reason: Option<String>) {
        *self.not_ready.lock() = reason;
    }

    /// Checks whether the host is ready.
    ///
    /// # Errors
    /// [`Failure::NotReady`] with the reason.
    pub fn ready(&self) -> Result<(), Failure> {
        if let Some(reason) = self.not_ready.lock().clone() {
            return Err(Failure::NotReady { reason });
        }
        let unready = self.components.iter().flat_map(|(id, component)| {
            let models = component.unready_models().into_iter();
            models.map(move |(model, why)| format!("component `{id}`: model `{model}`: {why}"))
        });
        match unready.collect::<Vec<_>>() {
            unready if unready.is_empty() => Ok(()),
            unready => Err(Failure::NotReady { reason: unready.join("\n") }),
        }
    }

    /// The readiness document as JSON, with problems that do not keep requests from being served.
    #[must_use]
    pub fn readiness(&self) -> String {
        let log = self.prediction_log();
        let problem = log.and_then(|log| log.problem());
        let mut problems: Vec<_> =
            problem.map(|problem| format!("prediction log: {problem}")).into_iter().collect();
        for sink in log.map(|log| log.sinks()).unwrap_or_default() {
            let name = sink.name;
            let problem = sink.problem.map(|problem| format!("sink `{name}`: {problem}"));
            problems.extend(problem);
        }
        if problems.is_empty() {
            return serde_json::json!({ "ready": true }).to_string();
        }
        serde_json::json!({ "ready": true, "degraded": problems }).to_string()
    }

    /// The longest deadline of all components.
    #[must_use]
    pub fn longest_deadline(&self) -> Duration {
        let deadlines = self.components.values().map(|component| component.limits().deadline);
        deadlines.max().unwrap_or_default()
    }

    /// Cuts off the responses that are still streamed, because the host exits.
    pub fn cut_off_streams(&self) {
        self.components.values().for_each(|component| component.cut_off_streams());
    }

    /// Releases idle instances, models and connections, forever.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        let mut settling = 0;
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let mut dropped = false;
            for component in self.components.values() {
                dropped |= component.drop_idle(now);
                component.output().log_dropped_lines();
            }
            settling = if dropped { SETTLING } else { settling.saturating_sub(1) };
            if settling > 0 {
                self.trim_memory();
            }
            self.redis.drop_idle(now);
            self.request_log.log_dropped();
        }
    }
}

/// Number of threads that can run at the same time.
fn threads() -> std::io::Result<usize> {
    std::thread::available_parallelism().map(std::num::NonZero::get)
}
