//! One live instance of a component: its store, what it may use, and until when.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wasmtime::component::ResourceTable;
use wasmtime::error::Context;
use wasmtime::{
    Engine as Wasmtime, PoolConcurrencyLimitError, ResourceLimiter, Result, Store, Trap,
    UpdateDeadline,
};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::config::app::ComponentSpec;
use crate::capabilities::INSTANCE_MEMORY;
use crate::process::memory_budget::MemoryBudget;
use crate::capabilities::key_value::{KeyValueCtx, KeyValueView};
use crate::capabilities::nn::{NnCtx, NnView};
use crate::capabilities::outbound_http::{Outbound, Outside};
use crate::capabilities::prediction_log::{LogPolicy, PredictionLogCtx, PredictionLogView};
use crate::capabilities::redis::{RedisCtx, RedisView};
use crate::capabilities::sockets;
use crate::guest::stdio::Output;
use crate::capabilities::variables::VariablesView;
use crate::inference::Models;
use crate::storage::key_value::Store as KeyValueStore;
use crate::metrics::{Ended, InstanceMetrics};
use crate::storage::redis::Share;

/// Resource handles (tensors, streams, files ...) an instance may hold at a time.
pub const MAX_HANDLES: usize = 1000;
/// The same with those to resources that components of one file give each other.
const MAX_ALL_HANDLES: usize = 10 * MAX_HANDLES;
/// Requests of one component to elsewhere at a time: each is a descriptor of the process.
const MAX_REQUESTS: usize = 256;
/// Table elements (function references) of one table of an instance.
pub const MAX_TABLE_ELEMENTS: usize = 20_000;

/// What a store of ours holds.
pub struct InstanceState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub outbound: Outbound,
    nn: NnCtx,
    key_value: KeyValueCtx,
    redis: RedisCtx,
    pub predictions: PredictionLogCtx,
    table: ResourceTable,
    memory: MemoryLimit,
    metrics: Arc<InstanceMetrics>,
    course: Course,
    /// When the request (or the instantiation) has to be done.
    pub deadline: Instant,
}

/// How far an instance has come.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// It is being made.
    Beginning,
    Live,
    /// It is dropped next.
    Over(Ended),
}

impl std::fmt::Debug for InstanceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceState").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Makes the stores of one component.
#[derive(Debug)]
pub struct Stores {
    engine: Wasmtime,
    spec: Arc<ComponentSpec>,
    models: Arc<Models>,
    key_value: Arc<HashMap<String, Arc<KeyValueStore>>>,
    outside: Arc<Outside>,
    /// Places for requests to elsewhere.
    places: Arc<Semaphore>,
    redis: Arc<Share>,
    output: Output,
    log_policy: Option<Arc<LogPolicy>>,
    metrics: Arc<InstanceMetrics>,
}

impl Stores {
    /// Of the component `spec`, with its models, its key-value stores by label, and its share of the
    /// connections to Redis.
    #[must_use]
    pub fn new(
        engine: Wasmtime,
        spec: ComponentSpec,
        models: Arc<Models>,
        key_value: HashMap<String, Arc<KeyValueStore>>,
        outside: Arc<Outside>,
        redis: Arc<Share>,
        output: Output,
    ) -> Self {
        let (spec, key_value) = (Arc::new(spec), Arc::new(key_value));
        let places = Arc::new(Semaphore::new(MAX_REQUESTS));
        let (metrics, log_policy) = (Arc::default(), None);
        Self {
            engine,
            spec,
            models,
            key_value,
            outside,
            places,
            redis,
            output,
            log_policy,
            metrics,
        }
    }

    /// The same whose predictions are logged, under `policy`.
    #[must_use]
    pub fn logging(self, policy: LogPolicy) -> Self {
        Self { log_policy: Some(Arc::new(policy)), ..self }
    }

    #[must_use]
    pub fn spec(&self) -> &ComponentSpec {
        &self.spec
    }

    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    #[must_use]
    pub fn metrics(&self) -> &InstanceMetrics {
        &self.metrics
    }

    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// An empty store with the component's grants and limits; guest code in it ends at `deadline`.
    pub fn create(&self, deadline: Instant) -> Result<Store<InstanceState>> {
        let ComponentSpec { files, environment, limits, load_graphs, .. } = &*self.spec;
        let mut wasi = WasiCtx::builder();
        wasi.envs(environment);
        // A guest's files are its mounts: small, local, read once. A thread to wait for each read
        // costs more than the read.
        wasi.allow_blocking_current_thread(true);
        let (stdout, stderr) = self.output.streams();
        wasi.stdout(stdout);
        wasi.stderr(stderr);
        for (destination, source) in files.folders.iter() {
            let destination = if destination.is_empty() { "/" } else { destination };
            wasi.preopened_dir(source, destination, FsPerms::ReadOnly)
                .with_context(|| format!("cannot mount {}", source.display()))?;
        }
        sockets::grant(&mut wasi, &self.spec, self.outside.blocked());
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let held = MemoryBudget::new(limits.instance_memory, INSTANCE_MEMORY);
        let state = InstanceState {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: Outbound {
                outside: Arc::clone(&self.outside),
                places: Arc::clone(&self.places),
                spec: Arc::clone(&self.spec),
                hops: 0,
            },
            nn: NnCtx::new(Arc::clone(&self.models), limits.instance_memory, *load_graphs),
            key_value: KeyValueCtx::new(Arc::clone(&self.key_value), held.clone()),
            redis: RedisCtx::new(Arc::clone(&self.redis), held.clone()),
            predictions: PredictionLogCtx::new(self.log_policy.clone(), held),
            table,
            memory: MemoryLimit { limit: limits.instance_memory, used: 0 },
            metrics: Arc::clone(&self.metrics),
            course: Course::Beginning,
            deadline,
        };
        let mut store = Store::new(&self.engine, state);
        store.set_hostcall_fuel(limits.instance_memory);
        store.set_max_component_handles(MAX_ALL_HANDLES);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(MAX_HANDLES);
        }
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        // Each tick: end what is late, and let others run on this thread.
        store.epoch_deadline_callback(|store| {
            Ok(if Instant::now() < store.data().deadline {
                UpdateDeadline::Yield(1)
            } else {
                UpdateDeadline::Interrupt
            })
        });
        Ok(store)
    }
}

/// Whether there was no room for another instance, of whatever component.
#[must_use]
pub fn is_full(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

/// Whether guest code was ended because it was late.
#[must_use]
pub fn is_late(error: &wasmtime::Error) -> bool {
    matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt))
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for InstanceState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}

impl InstanceState {
    /// Handles that are held of the host's resources.
    pub fn handles(&mut self) -> usize {
        self.table.iter_mut().count()
    }

    /// The instance is there; making it took so long.
    pub fn begins(&mut self, took: Duration) {
        self.course = Course::Live;
        self.metrics.begun(took);
    }

    /// Why it is going to be dropped; unless this is said, it is late, or nobody waits for it.
    pub fn ends(&mut self, why: Ended) {
        if let Course::Live = self.course {
            self.course = Course::Over(why);
        }
    }

    pub(crate) fn nn(&mut self) -> NnView<'_> {
        NnView { ctx: &mut self.nn, table: &mut self.table, deadline: self.deadline }
    }

    pub(crate) fn key_value(&mut self) -> KeyValueView<'_> {
        KeyValueView { ctx: &mut self.key_value, table: &mut self.table }
    }

    pub(crate) fn redis(&mut self) -> RedisView<'_> {
        let allowed = &self.outbound.spec.outbound_hosts;
        RedisView { ctx: &mut self.redis, allowed, table: &mut self.table }
    }

    pub(crate) fn prediction_log(&mut self) -> PredictionLogView<'_> {
        PredictionLogView(&mut self.predictions)
    }

    pub(crate) fn variables(&mut self) -> VariablesView<'_> {
        VariablesView(&self.outbound.spec.variables)
    }
}

impl Drop for InstanceState {
    fn drop(&mut self) {
        let why = match self.course {
            Course::Beginning => return,
            Course::Over(why) => why,
            Course::Live if Instant::now() >= self.deadline => Ended::Deadline,
            Course::Live => Ended::Abandoned,
        };
        self.metrics.ended(why);
    }
}

/// Linear memory of an instance, all its memories together. Memory only grows.
#[derive(Debug)]
struct MemoryLimit {
    limit: usize,
    used: usize,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let allowed = used <= self.limit;
        if allowed {
            self.used = used;
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}
