//! The running application: its routes, its components, and what they share.

mod assemble;
mod component_code;

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use indexmap::IndexMap;
use tokio::runtime::Handle;
use tracing::warn;

use crate::cache::Cache;
use crate::cache::generation::Scopes;
use crate::config::app::StaticAnswer;
use crate::drift::Monitor;
use crate::experiment::ExperimentRouter;
use crate::guest::component::Service;
use crate::guest::files::Copies;
use crate::guest::offload::Background;
use crate::http::content_encoding::Compression;
use crate::http::cors::Cors;
use crate::http::error::Failure;
use crate::http::route::{Pattern, Router};
use crate::inference::Registry;
use crate::inference::model_states::ModelStates;
use crate::metrics::{HostMetrics, RouteMetrics};
use crate::prediction_log::{PredictionLog, Recorder};
use crate::process::heap::give_back;
use crate::process::memory_budget::MemoryBudget;
use crate::server::connections::ConnectionLimits;
use crate::storage::redis::Connections;

/// How often what is idle is looked for, and what was not printed is said.
const SWEEP: Duration = Duration::from_secs(1);

/// For so many sweeps after the last thing that was dropped memory is given back: what a thread held
/// that ended meanwhile, and those that had no time to rest.
const SETTLING: usize = 3;

/// How long the models of an application may take to load.
const MAX_LOADING: Duration = Duration::from_secs(600);

/// What the data plane serves.
#[derive(Debug)]
pub struct Host {
    router: Router<Place>,
    services: IndexMap<String, Arc<Service>>,
    /// The same for requests of one to another.
    components: HashMap<String, (Pattern, Place)>,
    metrics: HostMetrics,
    graphs: Arc<Registry>,
    /// The application's name and version, as JSON.
    info: String,
    /// What keeps the host from being ready.
    not_ready: Mutex<Option<String>>,
    model_states: ModelStates,
    bodies: MemoryBudget,
    answers: MemoryBudget,
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
    /// What serves `path`, and the route it matched.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&(Pattern, Place)> {
        self.router.find(path)
    }

    /// Where request bodies are held that are taken whole.
    #[must_use]
    pub fn bodies(&self) -> &MemoryBudget {
        &self.bodies
    }

    /// Where answers are counted that clients have not taken yet.
    #[must_use]
    pub fn answers(&self) -> &MemoryBudget {
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
    pub fn experiments(&self) -> impl Iterator<Item = &ExperimentRouter> + Clone {
        self.routers.values().map(|router| &**router)
    }

    /// Itself, for work that no request waits for; `None` while it ends.
    #[must_use]
    pub fn share(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// The graphs in use by all components.
    #[must_use]
    pub fn graphs(&self) -> &Arc<Registry> {
        &self.graphs
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
        let deadline = Instant::now() + MAX_LOADING;
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

    /// Returns free memory to the system, on all threads that may hold some.
    fn give_back(&self) {
        give_back();
        self.graphs.rest();
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

/// Threads that can run at the same time.
fn threads() -> std::io::Result<usize> {
    std::thread::available_parallelism().map(std::num::NonZero::get)
}
