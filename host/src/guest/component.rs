//! A component that serves requests: its permits and queue, and what of it is in memory.
//!
//! Memory of an idle component is released in three stages, each after another `limits.idle` without
//! a request: instances are dropped, models are unloaded, code is unloaded. The next request loads
//! what it needs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body::SizeHint;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use tracing::{info, warn};

use crate::cache::{self, ComponentCacheState};
use crate::config::app::ComponentSpec;
use crate::config::limits::ComponentLimits;
use crate::config::manifest::DoorChoice;
use crate::guest::component_file::{ComponentFile, LinkedComponent};
use crate::guest::door::assign::{self, AssignDoor};
use crate::guest::door::fast::{self, FastDoor};
use crate::guest::door::spin_1::Spin1Door;
use crate::guest::door::standard::StandardDoor;
use crate::guest::door::wagi::WagiDoor;
use crate::guest::door::{Evictable, InstancePool, busy, deadline_exceeded};
use crate::guest::instance::StoreFactory;
use crate::guest::offload::GuestOffload;
use crate::guest::stdio::ComponentOutput;
use crate::guest::usage::{ActiveRequest, ComponentUsage};
use crate::http::body::cut_off::CutOff;
use crate::http::body::guest_body::OpenGuestBodies;
use crate::http::body::response_memory::ResponseMemory;
use crate::http::body::{Body, RequestBody};
use crate::http::error::Failure;
use crate::http::spin_headers::{RequestOrigin, RequestSource};
use crate::inference::model_states::VersionState;
use crate::inference::{ComponentModels, InferenceError};
use crate::metrics::counters::InFlight;
use crate::metrics::{InstanceMetrics, StartMetrics};

/// Interval at which a queued request has permits of unread responses released.
const RELEASE_INTERVAL: Duration = Duration::from_millis(20);

/// A component, ready to serve.
#[derive(Debug)]
pub struct Component {
    stores: Arc<StoreFactory>,
    code: Arc<ComponentFile>,
    offload: GuestOffload,
    instance_pool: Arc<InstancePool>,
    exports_fast: bool,
    /// Whether it is served through the door of Spin 1.
    of_spin_1: bool,
    /// Whether its predictions are logged.
    logs_predictions: bool,
    /// Whether it is a router: it assigns requests to other components instead of serving them.
    assigns: bool,
    cache_state: ComponentCacheState,
    /// `None` while its code is not loaded.
    doors: Mutex<Option<Arc<ComponentDoors>>>,
    /// One for each concurrent request.
    permits: Arc<Semaphore>,
    /// Number of requests that wait for a permit.
    queued: AtomicUsize,
    /// Response bodies that are being sent.
    open_bodies: Arc<OpenGuestBodies>,
    usage: ComponentUsage,
    starts: StartMetrics,
}

/// The doors of a component, and the instances behind them.
#[derive(Debug)]
struct ComponentDoors {
    fast: Option<Arc<FastDoor>>,
    assign: Option<Arc<AssignDoor>>,
    spin_1: Option<Arc<Spin1Door>>,
    standard: Option<Arc<StandardDoor>>,
    wagi: Option<Arc<WagiDoor>>,
    /// Shared by all components of the same file.
    _linked: Arc<LinkedComponent>,
}

impl Component {
    /// A component that serves requests with the code `linked`.
    ///
    /// # Errors
    /// The component does not export the door that the manifest requests, or its initial memory
    /// exceeds `limits.instance_memory`.
    pub fn new(
        code: Arc<ComponentFile>,
        linked: Arc<LinkedComponent>,
        stores: StoreFactory,
        offload: GuestOffload,
        instance_pool: Arc<InstancePool>,
        response_memory: ResponseMemory,
    ) -> Result<Self> {
        let runs_command = stores.spec().wagi.is_some();
        if runs_command && linked.wagi.is_none() {
            bail!(
                "it is not a command (wasi:cli/run), which `executor = {{ type = \"wagi\" }}` \
                 requires: remove the executor, or build a command"
            );
        }
        let fast = linked.fast.is_some() && !runs_command;
        let exports_fast = match stores.spec().door {
            None => fast,
            Some(DoorChoice::Standard) => false,
            Some(DoorChoice::Fast) if fast => true,
            Some(DoorChoice::Fast) => bail!(
                "it does not export the fast door ({}): remove `door`, or export it",
                fast::EXPORT
            ),
        };
        let assigns = linked.assign.is_some() && stores.spec().door.is_none() && !runs_command;
        let of_spin_1 = linked.spin_1.is_some()
            && stores.spec().door.is_none()
            && !(exports_fast || assigns || linked.standard.is_some() || runs_command);
        let is_http = exports_fast || assigns || linked.standard.is_some() || of_spin_1;
        if !is_http && !runs_command && linked.wagi.is_some() {
            bail!(
                "it is a command (wasi:cli/run), not an HTTP handler: add \
                 `executor = {{ type = \"wagi\" }}` to its trigger"
            );
        }
        if !is_http && !runs_command {
            bail!("it does not export the standard door (wasi:http)");
        }
        let limit = stores.spec().limits.instance_memory;
        if linked.initial_memory > limit as u64 {
            bail!(
                "its initial memory is {} bytes, and limits.instance_memory is {limit}: raise the limit",
                linked.initial_memory
            );
        }
        // A model returns the same prediction for the same input.
        let predicts = !stores.spec().models.is_empty();
        let logs_predictions = linked.logs_predictions && stores.spec().prediction_log.enabled;
        let prefix = cache_key_prefix(stores.spec(), &code, logs_predictions);
        let cache_state = ComponentCacheState::new(prefix, predicts);
        let component = Self {
            permits: Arc::new(Semaphore::new(stores.spec().limits.instances)),
            stores: Arc::new(stores),
            code,
            offload,
            instance_pool,
            exports_fast,
            of_spin_1,
            logs_predictions,
            assigns,
            cache_state,
            doors: Mutex::default(),
            queued: AtomicUsize::new(0),
            open_bodies: OpenGuestBodies::new(response_memory),
            usage: ComponentUsage::new(),
            starts: StartMetrics::default(),
        };
        component.open(linked);
        Ok(component)
    }

    #[must_use]
    pub fn limits(&self) -> &ComponentLimits {
        &self.spec().limits
    }

    /// Its part of the manifest.
    #[must_use]
    pub fn spec(&self) -> &ComponentSpec {
        self.stores.spec()
    }

    /// Maximum size of a request body that is buffered before the component is invoked, in bytes.
    /// Behind the standard door, a component may start before the body is complete, so it is buffered
    /// only once responses of the component have been cached. The door of Spin 1 and commands have no
    /// streams.
    #[must_use]
    pub fn buffered_body_limit(&self, size: &SizeHint) -> usize {
        let buffers = self.exports_fast
            || self.of_spin_1
            || self.spec().wagi.is_some()
            || size.exact().is_some() && self.cache_state.is_cacheable();
        if buffers { self.limits().buffered_body.min(self.limits().request_body) } else { 0 }
    }

    /// What the response cache knows of the component.
    #[must_use]
    pub fn cache_state(&self) -> &ComponentCacheState {
        &self.cache_state
    }

    /// Whether it appends predictions, and they are logged.
    #[must_use]
    pub fn logs_predictions(&self) -> bool {
        self.logs_predictions
    }

    /// Name of the door that serves small requests, for logs and the CLI.
    #[must_use]
    pub fn door(&self) -> &'static str {
        match self {
            Self { assigns: true, .. } => "assignment",
            Self { exports_fast: true, .. } => "fast",
            Self { of_spin_1: true, .. } => "Spin 1",
            Self { stores, .. } if stores.spec().wagi.is_some() => "wagi",
            Self { .. } => "standard",
        }
    }

    /// Whether it is a router: it assigns requests and serves none.
    #[must_use]
    pub fn assigns(&self) -> bool {
        self.assigns
    }

    /// Loads the models that are mounted one by one, except those whose last load succeeded. Returns those
    /// that failed, with the errors.
    pub async fn load_models(&self, deadline: Instant) -> Vec<(&str, InferenceError)> {
        let models = self.stores.models();
        let mut problems = Vec::new();
        let missing = |name: &&str| models.states().of(name).0 != VersionState::Ready;
        for name in models.names().filter(missing) {
            match models.load_by_name(name, deadline).await {
                Err(error) => problems.push((name, error)),
                Ok(_) if self.has_signature(name) => {}
                // Only the component knows whether it needs one.
                Ok(_) => {
                    let refusal = self.refusal_of(name).await;
                    models.states().record(name, refusal.as_ref());
                    problems.extend(refusal.map(|why| (name, InferenceError::NotFound(why))));
                }
            }
        }
        self.usage.touch();
        problems
    }

    /// Whether the version of `model` that is mounted has a `model.toml`.
    fn has_signature(&self, model: &str) -> bool {
        self.spec().models.iter().any(|mounted| mounted.name == model && mounted.declared.is_some())
    }

    /// The state of a mounted model, and why it is unavailable.
    #[must_use]
    pub fn model_state(&self, model: &str) -> (VersionState, String) {
        self.stores.models().states().of(model)
    }

    /// The models that are not ready, and why: those that are mounted one by one, and others whose last load
    /// failed.
    #[must_use]
    pub fn unready_models(&self) -> Vec<(String, String)> {
        let models = self.stores.models();
        let mut unready = models.states().failed();
        let loading =
            models.names().filter(|name| models.states().of(name).0 == VersionState::Loading);
        unready.extend(loading.map(|name| (name.to_owned(), "it is being loaded".to_owned())));
        unready
    }

    /// Invokes an instance through the door that fits the request.
    ///
    /// # Errors
    /// The queue is full, the deadline is exceeded, the instance cannot be created, it traps, or its
    /// response is invalid.
    pub async fn invoke(
        &self,
        head: Parts,
        body: RequestBody,
        deadline: Instant,
        origin: RequestOrigin<'_>,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.admit(deadline).await?;
        let mut active = self.usage.enter(self.instances());
        let doors = self.doors(deadline).await?;
        let doors = (&doors.fast, &doors.spin_1, &doors.standard, &doors.wagi);
        let mut response = match (body, doors) {
            (RequestBody::Whole(body), (_, _, _, Some(wagi))) => {
                wagi.invoke(head, body, deadline, &origin).await
            }
            (RequestBody::Whole(body), (Some(fast), _, _, None)) => {
                fast.invoke(head, body, deadline, &origin).await
            }
            (RequestBody::Whole(body), (_, Some(spin_1), _, None)) => {
                spin_1.invoke(head, body, deadline, &origin).await
            }
            (body, (_, _, Some(standard), None)) => {
                standard.invoke(head, body, deadline, &origin, permit, &self.open_bodies).await
            }
            (_, (_, _, None, _) | (_, _, _, Some(_))) => {
                Err(Failure::BodyTooLarge { limit: self.limits().buffered_body })
            }
        }?;
        self.record_cold_start(&mut active);
        let appended = origin.predictions.map(|predictions| predictions.take());
        if let Some(appended) = appended.filter(|appended| !appended.is_empty()) {
            response.extensions_mut().insert(appended);
        }
        Ok(response)
    }

    /// Whether the router needs the body of a request to assign it.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub async fn needs_body(&self, deadline: Instant) -> Result<bool, Failure> {
        self.assignment_door(deadline).await?.needs_body(deadline).await
    }

    /// Assigns the request to a component. The permit is released with the assignment.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub async fn assign(
        &self,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        client: RequestSource,
    ) -> Result<assign::Decided, Failure> {
        let _permit = self.admit(deadline).await?;
        let mut active = self.usage.enter(self.instances());
        let door = self.assignment_door(deadline).await?;
        let decided = door.assign(head, body, deadline, client).await?;
        self.record_cold_start(&mut active);
        Ok(decided)
    }

    fn record_cold_start(&self, active: &mut ActiveRequest<'_>) {
        if let Some(took) = active.cold_start() {
            info!(component = self.spec().id, ?took, "cold start");
            self.starts.cold.observe_duration(took);
        }
    }

    async fn assignment_door(&self, deadline: Instant) -> Result<Arc<AssignDoor>, Failure> {
        let door = self.doors(deadline).await?.assign.clone();
        door.ok_or_else(|| Failure::Instantiation { component: self.spec().id.clone() })
    }

    /// Acquires a permit, or queues for one. Sheds the request if the queue is full.
    async fn admit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let ComponentLimits { queue, instances, .. } = *self.limits();
        let queued = InFlight::new(&self.queued);
        if queued.before >= queue {
            let component = self.spec().id.clone();
            return Err(Failure::QueueFull { component, queue, instances });
        }
        let mut permit = pin!(Arc::clone(&self.permits).acquire_owned());
        loop {
            // Responses that clients do not read must not hold permits meanwhile.
            self.open_bodies.release_permits(self.queued());
            let until = deadline.min(Instant::now() + RELEASE_INTERVAL);
            match timeout_at(until.into(), permit.as_mut()).await {
                Ok(Ok(permit)) => return Ok(permit),
                Err(_) if until < deadline => {}
                _ => return Err(busy(self.spec())),
            }
        }
    }

    /// The doors. Loads the code if it is not loaded.
    async fn doors(&self, deadline: Instant) -> Result<Arc<ComponentDoors>, Failure> {
        if let Some(doors) = &*self.open_doors() {
            return Ok(Arc::clone(doors));
        }
        let start = Instant::now();
        match timeout_at(deadline.into(), self.code.linked()).await {
            Ok(Ok(linked)) => {
                self.starts.code.observe_duration(start.elapsed());
                Ok(self.open(linked))
            }
            Ok(Err(error)) => {
                let component = self.spec().id.clone();
                warn!(component, error = format!("{error:#}"), "cannot load");
                Err(Failure::Instantiation { component })
            }
            Err(_) => Err(deadline_exceeded(self.spec())),
        }
    }

    /// Opens the doors of `linked`, unless a concurrent request has opened them.
    fn open(&self, linked: Arc<LinkedComponent>) -> Arc<ComponentDoors> {
        let mut doors = self.open_doors();
        let open = doors.get_or_insert_with(|| {
            let fast = linked.fast.as_ref().filter(|_| self.exports_fast);
            let assign = linked.assign.as_ref().filter(|_| self.assigns);
            let spin_1 = linked.spin_1.as_ref().filter(|_| self.of_spin_1);
            let argv = self.spec().wagi.as_deref();
            let standard = linked.standard.as_ref().filter(|_| argv.is_none());
            let wagi = linked.wagi.as_ref().zip(argv);
            let (stores, pool) = (&self.stores, &self.instance_pool);
            let offload = || self.offload.clone();
            Arc::new(ComponentDoors {
                fast: fast.map(|pre| FastDoor::new(pre, stores, offload(), pool)),
                assign: assign.map(|pre| AssignDoor::new(pre, stores, offload(), pool)),
                spin_1: spin_1.map(|pre| Spin1Door::new(pre, stores, offload(), pool)),
                standard: standard.map(|pre| StandardDoor::new(pre, stores, offload(), pool)),
                wagi: wagi.map(|(pre, argv)| WagiDoor::new(pre, argv, stores, offload(), pool)),
                _linked: linked,
            })
        });
        Arc::clone(open)
    }

    fn open_doors(&self) -> MutexGuard<'_, Option<Arc<ComponentDoors>>> {
        self.doors.lock()
    }

    /// Number of requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.limits().instances.saturating_sub(self.permits.available_permits())
    }

    /// Number of requests that wait for a permit.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Durations of its cold starts and of loading its code.
    #[must_use]
    pub fn starts(&self) -> &StartMetrics {
        &self.starts
    }

    /// Counters of its instances.
    #[must_use]
    pub fn instances(&self) -> &InstanceMetrics {
        self.stores.metrics()
    }

    /// Its models.
    #[must_use]
    pub fn models(&self) -> &ComponentModels {
        self.stores.models()
    }

    /// Standard output and error of its instances.
    #[must_use]
    pub fn output(&self) -> &ComponentOutput {
        self.stores.output()
    }

    /// Cuts off the responses that are still streamed, because the host exits.
    pub fn cut_off_streams(&self) {
        self.open_bodies.close_all(&CutOff::Shutdown);
    }

    /// Closes response bodies that clients have stopped reading, drops idle instances, and unloads
    /// idle models and code. Returns whether any memory was released.
    pub fn drop_idle(&self, now: Instant) -> bool {
        let ComponentSpec { id, limits: ComponentLimits { idle, .. }, .. } = self.spec();
        let unread = self.open_bodies.close_unread(now);
        if unread > 0 {
            info!(component = id, unread, "response bodies closed that clients stopped reading");
        }
        let instances = self.drop_idle_instances(now);
        if instances > 0 {
            info!(component = id, instances, "idle instances dropped");
        }
        let mut dropped = instances > 0;
        let Some(idle_time) = self.usage.idle_time(now) else { return dropped };
        if idle_time >= *idle * 2 {
            let models = self.stores.models().unload();
            if models > 0 {
                info!(component = id, models, "idle models unloaded");
                dropped = true;
            }
        }
        if idle_time >= *idle * 3 && self.open_doors().take().is_some() {
            info!(component = id, "idle code unloaded");
            dropped = true;
        }
        dropped
    }

    fn drop_idle_instances(&self, now: Instant) -> usize {
        let Some(since) = now.checked_sub(self.limits().idle) else { return 0 };
        let Some(doors) = self.open_doors().clone() else { return 0 };
        let fast = doors.fast.iter().map(|door| door.drop_idle(since).instances);
        let standard = doors.standard.iter().map(|door| door.drop_idle(since).instances);
        let assign = doors.assign.iter().map(|door| door.drop_idle(since).instances);
        let spin_1 = doors.spin_1.iter().map(|door| door.drop_idle(since).instances);
        fast.chain(assign).chain(spin_1).chain(standard).sum()
    }
}

/// Everything but the request that the responses of a component depend on, for the keys of the
/// response cache.
fn cache_key_prefix(
    spec: &ComponentSpec,
    code: &ComponentFile,
    logs_predictions: bool,
) -> cache::KeyPrefix {
    let ComponentSpec { id, models, environment, variables, prediction_log, .. } = spec;
    // A response is cached with its predictions in the form in which they are logged.
    let redaction = logs_predictions.then(|| prediction_log.redaction());
    let logged = redaction.iter().map(|redaction| redaction.as_bytes());
    let models = models.iter().flat_map(|model| [model.name.as_bytes(), &model.digest]);
    let given = environment.iter().chain(&**variables);
    let given = given.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let parts = [id.as_bytes(), code.digest(), b"models"].into_iter().chain(models);
    let given = [b"given".as_slice()].into_iter().chain(given);
    cache::KeyPrefix::new(parts.chain(given).chain(logged))
}
