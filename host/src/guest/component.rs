//! A component as it is served: who may enter, what of it is in memory, when that goes.
//!
//! What a component has in memory goes in three stages, each after another `idle` without a
//! request: its instances, its models, its code. The next request brings back what it needs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body::SizeHint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use tracing::{info, warn};

use crate::config::app::ComponentSpec;
use crate::guest::offload::Lane;
use crate::http::body::{Body, RequestBody};
use crate::cache::{self, Source};
use crate::guest::stdio::Output;
use crate::guest::component_file::{Code, Linked};
use crate::guest::door::{
    Doors as AllDoors, GivesWay, assign, busy, fast, invalid_answer, late, standard,
};
use crate::http::error::Failure;
use crate::inference::{Error as LoadError, Models};
use crate::guest::instance::Stores;
use crate::config::limits::Limits;
use crate::config::manifest::DoorChoice;
use crate::metrics::counters::InFlight;
use crate::metrics::{InstanceMetrics, StartMetrics};
use crate::http::spin_headers::Origin;
use crate::http::body::guest_body::Streams;

/// A component, ready to serve.
#[derive(Debug)]
pub struct Service {
    stores: Arc<Stores>,
    code: Arc<Code>,
    background: Lane,
    all_doors: Arc<AllDoors>,
    exports_fast: bool,
    /// Whether its predictions are logged.
    logs: bool,
    /// Whether it says which other component serves a request, and serves none by itself.
    assigns: bool,
    source: Source,
    /// `None` while its code is not loaded.
    doors: Mutex<Option<Arc<Doors>>>,
    /// As many as may serve at the same time.
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Answers that are being sent.
    streams: Arc<Streams>,
    usage: Usage,
    starts: StartMetrics,
}

/// The ways in, and the instances behind them.
#[derive(Debug)]
struct Doors {
    fast: Option<Arc<fast::Door>>,
    assign: Option<Arc<assign::Door>>,
    standard: Option<Arc<standard::Door>>,
    /// Shared by all who serve the same component file.
    _linked: Arc<Linked>,
}

impl Service {
    /// Fails if the manifest asks for a door that the component has not.
    pub fn new(
        code: Arc<Code>,
        linked: Arc<Linked>,
        stores: Stores,
        background: Lane,
        all_doors: Arc<AllDoors>,
    ) -> Result<Self> {
        let fast = linked.fast.is_some();
        let exports_fast = match stores.spec().door {
            None => fast,
            Some(DoorChoice::Standard) => false,
            Some(DoorChoice::Fast) if fast => true,
            Some(DoorChoice::Fast) => bail!("it does not export the fast door ({})", fast::EXPORT),
        };
        let assigns = linked.assign.is_some() && stores.spec().door.is_none();
        if !exports_fast && !assigns && linked.standard.is_none() {
            bail!("it does not export the standard door (wasi:http)");
        }
        let most = stores.spec().limits.instance_memory;
        if linked.memory > most as u64 {
            bail!(
                "its memory begins with {} bytes, and limits.instance_memory is {most}: raise it",
                linked.memory
            );
        }
        // What a model says of the same is the same.
        let predicts = !stores.spec().models.is_empty();
        let logs = linked.logs && stores.spec().prediction_log.enabled;
        let source = Source::new(origin(stores.spec(), &code, logs), predicts);
        let service = Self {
            turns: Arc::new(Semaphore::new(stores.spec().limits.instances)),
            stores: Arc::new(stores),
            code,
            background,
            all_doors,
            exports_fast,
            logs,
            assigns,
            source,
            doors: Mutex::default(),
            waiting: AtomicUsize::new(0),
            streams: Arc::default(),
            usage: Usage::new(),
            starts: StartMetrics::default(),
        };
        service.open(linked);
        Ok(service)
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.spec().limits
    }

    /// As the manifest has it.
    #[must_use]
    pub fn spec(&self) -> &ComponentSpec {
        self.stores.spec()
    }

    /// How long a body of `size` may be to be taken whole. Behind the standard door a component may
    /// begin before all of it is there; once it has given answers to be kept, it is waited for.
    #[must_use]
    pub fn whole_body(&self, size: &SizeHint) -> usize {
        let whole = self.exports_fast || size.exact().is_some() && self.source.keeps();
        if whole { self.limits().fast_body.min(self.limits().request_body) } else { 0 }
    }

    /// As the response cache knows it.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether it appends predictions, and they are logged.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.logs
    }

    /// For people: the door a small request goes through.
    #[must_use]
    pub fn door(&self) -> &'static str {
        match self {
            Self { assigns: true, .. } => "assignment",
            Self { exports_fast: true, .. } => "fast",
            Self { .. } => "standard",
        }
    }

    /// Whether a request is assigned by it, and not served.
    #[must_use]
    pub fn assigns(&self) -> bool {
        self.assigns
    }

    /// Loads the models that are mounted one by one; those that cannot be, and why.
    pub async fn load_models(&self, deadline: Instant) -> Vec<(&str, LoadError)> {
        let models = self.stores.models();
        let mut problems = Vec::new();
        for name in models.names() {
            if let Err(error) = models.load_by_name(name, deadline).await {
                problems.push((name, error));
            }
        }
        self.usage.touch();
        problems
    }

    /// Gives the request to an instance, through the door that fits.
    pub async fn invoke(
        &self,
        head: Parts,
        body: RequestBody,
        deadline: Instant,
        origin: Origin<'_>,
    ) -> Result<Response<Body>, Failure> {
        let turn = self.admit(deadline).await?;
        let mut visit = self.usage.enter(self.instances());
        let doors = self.doors(deadline).await?;
        let mut response = match (body, &doors.fast, &doors.standard) {
            (RequestBody::Whole(body), Some(fast), _) => {
                fast.invoke(head, body, deadline, &origin).await
            }
            (body, _, Some(standard)) => {
                standard.invoke(head, body, deadline, &origin, turn, &self.streams).await
            }
            (_, _, None) => Err(Failure::BodyTooLarge { limit: self.limits().fast_body }),
        }?;
        if let Some(took) = visit.cold_start() {
            info!(component = self.spec().id, ?took, "cold start");
            self.starts.cold.took(took);
        }
        let status = response.status().as_u16();
        if !(200..600).contains(&status) {
            let problem = format!("{status} is not a final status");
            return Err(invalid_answer(self.spec(), problem));
        }
        let appended = origin.predictions.map(|predictions| predictions.take());
        if let Some(appended) = appended.filter(|appended| !appended.is_empty()) {
            response.extensions_mut().insert(appended);
        }
        Ok(response)
    }

    /// Whether the bodies of requests decide who serves them.
    pub async fn needs_body(&self, deadline: Instant) -> Result<bool, Failure> {
        self.assignment_door(deadline).await?.needs_body(deadline).await
    }

    /// Asks it who serves the request. The permit is free again when that is known.
    pub async fn assign(
        &self,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        hops: usize,
    ) -> Result<assign::Decided, Failure> {
        let _turn = self.admit(deadline).await?;
        let mut visit = self.usage.enter(self.instances());
        let door = self.assignment_door(deadline).await?;
        let decided = door.assign(head, body, deadline, hops).await?;
        if let Some(took) = visit.cold_start() {
            info!(component = self.spec().id, ?took, "cold start");
            self.starts.cold.took(took);
        }
        Ok(decided)
    }

    async fn assignment_door(&self, deadline: Instant) -> Result<Arc<assign::Door>, Failure> {
        let door = self.doors(deadline).await?.assign.clone();
        door.ok_or_else(|| Failure::Instantiation { component: self.spec().id.clone() })
    }

    /// Waits for a turn, if not too many wait already.
    async fn admit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let Limits { queue, instances, .. } = *self.limits();
        let waiting = InFlight::new(&self.waiting);
        if waiting.before >= queue {
            let component = self.spec().id.clone();
            return Err(Failure::QueueFull { component, queue, instances });
        }
        let turn = timeout_at(deadline.into(), Arc::clone(&self.turns).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| busy(self.spec()))
    }

    /// The doors; its code is loaded if it is not.
    async fn doors(&self, deadline: Instant) -> Result<Arc<Doors>, Failure> {
        if let Some(doors) = &*self.open_doors() {
            return Ok(Arc::clone(doors));
        }
        let start = Instant::now();
        match timeout_at(deadline.into(), self.code.linked()).await {
            Ok(Ok(linked)) => {
                self.starts.code.took(start.elapsed());
                Ok(self.open(linked))
            }
            Ok(Err(error)) => {
                let component = self.spec().id.clone();
                warn!(component, error = format!("{error:#}"), "cannot load");
                Err(Failure::Instantiation { component })
            }
            Err(_) => Err(late(self.spec())),
        }
    }

    /// Doors to `linked`, unless someone else has opened them meanwhile.
    fn open(&self, linked: Arc<Linked>) -> Arc<Doors> {
        let mut doors = self.open_doors();
        let open = doors.get_or_insert_with(|| {
            let fast = linked.fast.as_ref().filter(|_| self.exports_fast);
            let assign = linked.assign.as_ref().filter(|_| self.assigns);
            let standard = linked.standard.as_ref();
            let (stores, all) = (&self.stores, &self.all_doors);
            let lane = || self.background.clone();
            Arc::new(Doors {
                fast: fast.map(|pre| fast::Door::new(pre, stores, lane(), all)),
                assign: assign.map(|pre| assign::Door::new(pre, stores, lane(), all)),
                standard: standard.map(|pre| standard::Door::new(pre, stores, lane(), all)),
                _linked: linked,
            })
        });
        Arc::clone(open)
    }

    fn open_doors(&self) -> MutexGuard<'_, Option<Arc<Doors>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that are being served.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.limits().instances.saturating_sub(self.turns.available_permits())
    }

    /// Requests that wait for their turn.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What it needed before it served.
    #[must_use]
    pub fn starts(&self) -> &StartMetrics {
        &self.starts
    }

    /// Its instances, counted.
    #[must_use]
    pub fn instances(&self) -> &InstanceMetrics {
        self.stores.metrics()
    }

    /// Its models.
    #[must_use]
    pub fn models(&self) -> &Models {
        self.stores.models()
    }

    /// What its instances print into.
    #[must_use]
    pub fn output(&self) -> &Output {
        self.stores.output()
    }

    /// Drops what had nothing to do for long enough; whether there was anything.
    pub fn drop_idle(&self, now: Instant) -> bool {
        let ComponentSpec { id, limits: Limits { idle, .. }, .. } = self.spec();
        let unread = self.streams.cut_off(now);
        if unread > 0 {
            info!(component = id, unread, "answers cut off that nobody reads");
        }
        let instances = self.drop_idle_instances(now);
        if instances > 0 {
            info!(component = id, instances, "idle instances dropped");
        }
        let mut dropped = instances > 0;
        let Some(unused) = self.usage.unused(now) else { return dropped };
        if unused >= *idle * 2 {
            let models = self.stores.models().forget();
            if models > 0 {
                info!(component = id, models, "idle models dropped");
                dropped = true;
            }
        }
        if unused >= *idle * 3 && self.open_doors().take().is_some() {
            info!(component = id, "idle code dropped");
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
        fast.chain(assign).chain(standard).sum()
    }
}

/// What a component's answers depend on beside the request.
fn origin(spec: &ComponentSpec, code: &Code, logs: bool) -> cache::Origin {
    let ComponentSpec { id, models, environment, variables, prediction_log, .. } = spec;
    let models = models.iter().flat_map(|model| [model.name.as_bytes(), &model.digest]);
    let given = environment.iter().chain(&**variables);
    let given = given.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let parts = [id.as_bytes(), code.digest(), b"models"].into_iter().chain(models);
    // A response is cached with its predictions, without what is not logged of them.
    let dropped = prediction_log.drop.iter().map(String::as_bytes);
    let hashed = prediction_log.hash.iter().map(String::as_bytes);
    let redacted = [b"dropped".as_slice()].into_iter().chain(dropped).chain([b"hashed".as_slice()]);
    let logged = logs.then(|| redacted.chain(hashed));
    let given = [b"given".as_slice()].into_iter().chain(given);
    cache::Origin::new(parts.chain(given).chain(logged.into_iter().flatten()))
}

/// Who is inside, and since when nobody is.
#[derive(Debug)]
struct Usage {
    created: Instant,
    in_flight: AtomicUsize,
    /// When the last one left, in milliseconds after `created`.
    left_at: AtomicU64,
}

impl Usage {
    fn new() -> Self {
        Self { created: Instant::now(), in_flight: AtomicUsize::new(0), left_at: AtomicU64::new(0) }
    }

    fn enter<'a>(&'a self, instances: &'a InstanceMetrics) -> Visit<'a> {
        let cold_since = instances.take_none().then(Instant::now);
        let _inside = InFlight::new(&self.in_flight);
        Visit { usage: self, instances, cold_since, _inside }
    }

    fn touch(&self) {
        let now = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.left_at.store(now, Ordering::Relaxed);
    }

    /// For how long nobody has been inside; `None` if someone is.
    fn unused(&self, now: Instant) -> Option<Duration> {
        let left = self.created + Duration::from_millis(self.left_at.load(Ordering::Relaxed));
        let nobody = self.in_flight.load(Ordering::Relaxed) == 0;
        nobody.then(|| now.saturating_duration_since(left))
    }
}

/// A request inside.
struct Visit<'a> {
    usage: &'a Usage,
    instances: &'a InstanceMetrics,
    cold_since: Option<Instant>,
    _inside: InFlight<'a>,
}

impl Visit<'_> {
    /// How long it took so far, if there was no instance when it came.
    fn cold_start(&mut self) -> Option<Duration> {
        self.cold_since.take().map(|start| start.elapsed())
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if self.cold_since.is_some() {
            // It failed; the next one starts cold, unless there is an instance now.
            self.instances.look();
        }
        self.usage.touch();
    }
}
