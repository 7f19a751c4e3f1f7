//! A component that serves requests: its permits and queue, and what of it is in memory.
//!
//! Its doors are in `doors`, its models in `models`, and what is released while it is idle in `idle`.

mod doors;
mod idle;
mod models;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::FutureExt;
use http::Response;
use http::request::Parts;
use http_body::SizeHint;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use tracing::info;

use crate::cache::{self, ComponentCacheState};
use crate::config::app::ComponentSpec;
use crate::config::limits::ComponentLimits;
use crate::guest::component_file::{ComponentFile, LinkedComponent};
use crate::guest::door::{InstancePool, assign, busy};
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
use crate::metrics::counters::InFlight;
use crate::metrics::{InstanceMetrics, StartMetrics};
use doors::{ComponentDoors, SelectedDoors};

/// Interval at which a queued request has permits of unread responses released.
const RELEASE_INTERVAL: Duration = Duration::from_millis(20);

/// A component, ready to serve.
#[derive(Debug)]
pub struct Component {
    stores: Arc<StoreFactory>,
    code: Arc<ComponentFile>,
    offload: GuestOffload,
    instance_pool: Arc<InstancePool>,
    selected: SelectedDoors,
    /// Whether its predictions are logged.
    logs_predictions: bool,
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
        let selected = SelectedDoors::of(&linked, stores.spec())?;
        let limit = stores.spec().limits.instance_memory;
        ensure!(
            linked.initial_memory <= limit as u64,
            "its initial memory is {} bytes, and limits.instance_memory is {limit}: raise the limit",
            linked.initial_memory
        );
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
            selected,
            logs_predictions,
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
        let buffers = self.selected.fast
            || self.selected.spin_1
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
        match self.selected {
            SelectedDoors { assign: true, .. } => "assignment",
            SelectedDoors { fast: true, .. } => "fast",
            SelectedDoors { spin_1: true, .. } => "Spin 1",
            SelectedDoors { .. } if self.spec().wagi.is_some() => "wagi",
            SelectedDoors { .. } => "standard",
        }
    }

    /// Whether it is a router: it assigns requests and serves none.
    #[must_use]
    pub fn assigns(&self) -> bool {
        self.selected.assign
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
        // Boxed but for the fast door, they do not enlarge the task of every connection.
        let mut response = match (body, doors) {
            (RequestBody::Whole(body), (_, _, _, Some(wagi))) => {
                wagi.invoke(head, body, deadline, &origin).boxed().await
            }
            (RequestBody::Whole(body), (Some(fast), _, _, None)) => {
                fast.invoke(head, body, deadline, &origin).await
            }
            (RequestBody::Whole(body), (_, Some(spin_1), _, None)) => {
                spin_1.invoke(head, body, deadline, &origin).boxed().await
            }
            (body, (_, _, Some(standard), None)) => {
                let open_bodies = &self.open_bodies;
                standard.invoke(head, body, deadline, &origin, permit, open_bodies).boxed().await
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

    /// Standard output and error of its instances.
    #[must_use]
    pub fn output(&self) -> &ComponentOutput {
        self.stores.output()
    }

    /// Cuts off the responses that are still streamed, because the host exits.
    pub fn cut_off_streams(&self) {
        self.open_bodies.close_all(&CutOff::Shutdown);
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
