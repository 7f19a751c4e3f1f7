//! The store of one instance of a component: its capabilities, its limits and its deadline.

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
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::capabilities::INSTANCE_MEMORY;
use crate::capabilities::key_value::{KeyValueCtx, KeyValueView};
use crate::capabilities::mqtt::{MqttCtx, MqttView};
use crate::capabilities::nn::{NnCtx, NnView};
use crate::capabilities::outbound_http::{OutboundHttp, OutboundHttpCtx};
use crate::capabilities::postgres::{PostgresCtx, PostgresView};
use crate::capabilities::prediction_log::{LogPolicy, PredictionLogCtx};
use crate::capabilities::redis::{RedisCtx, RedisView};
use crate::capabilities::sockets;
use crate::capabilities::spin_1::HttpView;
use crate::capabilities::sqlite::{SqliteCtx, SqliteView};
use crate::capabilities::variables::VariablesView;
use crate::config::app::ComponentSpec;
use crate::guest::stdio::ComponentOutput;
use crate::http::body::instance_body::{InstanceBodies, StreamLimits};
use crate::inference::ComponentModels;
use crate::metrics::{Ended, InstanceMetrics};
use crate::process::memory_budget::MemoryBudget;
use crate::storage::key_value::GrantedStore as KeyValueStore;
use crate::storage::mqtt::ComponentMqtt;
use crate::storage::postgres::ComponentPostgres;
use crate::storage::redis::ComponentConnections;
use crate::storage::sqlite::ComponentDatabases;

/// Maximum number of resource handles (tensors, streams, files ...) of an instance.
pub const MAX_HANDLES: usize = 1000;
/// Maximum number of handles of an instance, including those to resources that components composed
/// in one file pass each other.
const MAX_ALL_HANDLES: usize = 10 * MAX_HANDLES;
/// Maximum number of concurrent outbound requests of one component: each takes a file descriptor.
const MAX_OUTBOUND_REQUESTS: usize = 256;
/// Maximum number of elements (function references) of one table of an instance.
pub const MAX_TABLE_ELEMENTS: usize = 20_000;

/// The data of an instance's store.
pub struct InstanceState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub outbound: OutboundHttpCtx,
    nn: NnCtx,
    key_value: KeyValueCtx,
    redis: RedisCtx,
    sqlite: SqliteCtx,
    mqtt: MqttCtx,
    postgres: PostgresCtx,
    pub predictions: PredictionLogCtx,
    memory_budget: MemoryBudget,
    table: ResourceTable,
    memory: MemoryLimit,
    metrics: Arc<InstanceMetrics>,
    course: Lifecycle,
    /// The bodies that it writes.
    pub bodies: Arc<InstanceBodies>,
    /// Deadline of the requests that wait for a response, or of the instantiation.
    pub call_deadline: Instant,
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug)]
enum Lifecycle {
    Instantiating,
    Live,
    /// It is about to be dropped, for this reason.
    Ending(Ended),
}

impl std::fmt::Debug for InstanceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceState")
            .field("call_deadline", &self.call_deadline)
            .finish_non_exhaustive()
    }
}

/// The storage that a component is granted.
#[derive(Debug, Default)]
pub struct GrantedStorage {
    /// Key-value stores, by label.
    pub key_value: HashMap<String, Arc<KeyValueStore>>,
    pub sqlite: ComponentDatabases,
}

/// What the outbound connections of a component are counted by.
#[derive(Debug)]
pub struct OutboundConnections {
    pub redis: Arc<ComponentConnections>,
    pub mqtt: Arc<ComponentMqtt>,
    pub postgres: Arc<ComponentPostgres>,
}

/// What a command receives, and where it prints.
#[derive(Debug)]
pub struct CommandInput {
    pub arguments: Vec<String>,
    /// Variables next to those of the manifest.
    pub environment: Vec<(String, String)>,
    pub stdin: MemoryInputPipe,
    pub stdout: MemoryOutputPipe,
}

/// Creates the stores of one component's instances.
#[derive(Debug)]
pub struct StoreFactory {
    engine: Wasmtime,
    spec: Arc<ComponentSpec>,
    models: Arc<ComponentModels>,
    key_value: Arc<HashMap<String, Arc<KeyValueStore>>>,
    sqlite: Arc<ComponentDatabases>,
    outbound_http: Arc<OutboundHttp>,
    /// Permits for outbound requests.
    request_permits: Arc<Semaphore>,
    redis: Arc<ComponentConnections>,
    mqtt: Arc<ComponentMqtt>,
    postgres: Arc<ComponentPostgres>,
    output: ComponentOutput,
    log_policy: Option<Arc<LogPolicy>>,
    metrics: Arc<InstanceMetrics>,
}

impl StoreFactory {
    /// A factory for the component `spec`, with its models, its storage, and its share of the outbound
    /// connections.
    #[must_use]
    pub fn new(
        engine: Wasmtime,
        spec: ComponentSpec,
        models: Arc<ComponentModels>,
        storage: GrantedStorage,
        outbound_http: Arc<OutboundHttp>,
        connections: OutboundConnections,
        output: ComponentOutput,
    ) -> Self {
        let OutboundConnections { redis, mqtt, postgres } = connections;
        let GrantedStorage { key_value, sqlite } = storage;
        let (spec, key_value, sqlite) = (Arc::new(spec), Arc::new(key_value), Arc::new(sqlite));
        let request_permits = Arc::new(Semaphore::new(MAX_OUTBOUND_REQUESTS));
        let (metrics, log_policy) = (Arc::default(), None);
        Self {
            engine,
            spec,
            models,
            key_value,
            sqlite,
            outbound_http,
            request_permits,
            redis,
            mqtt,
            postgres,
            output,
            log_policy,
            metrics,
        }
    }

    /// The same factory, with predictions logged under `policy`.
    #[must_use]
    pub fn logging(self, policy: LogPolicy) -> Self {
        Self { log_policy: Some(Arc::new(policy)), ..self }
    }

    #[must_use]
    pub fn spec(&self) -> &ComponentSpec {
        &self.spec
    }

    #[must_use]
    pub fn models(&self) -> &ComponentModels {
        &self.models
    }

    #[must_use]
    pub fn metrics(&self) -> &InstanceMetrics {
        &self.metrics
    }

    #[must_use]
    pub fn output(&self) -> &ComponentOutput {
        &self.output
    }

    /// Creates an empty store with the component's grants and limits. Guest code in it is interrupted
    /// at `deadline`.
    ///
    /// # Errors
    /// A mounted folder cannot be opened.
    pub fn create(&self, deadline: Instant) -> Result<Store<InstanceState>> {
        self.create_with(&self.engine, deadline, |_| {})
    }

    /// [`Self::create`] in another engine.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_in(&self, engine: &Wasmtime, deadline: Instant) -> Result<Store<InstanceState>> {
        self.create_with(engine, deadline, |_| {})
    }

    /// [`Self::create`] for a command, which receives `input`.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_for_command(
        &self,
        deadline: Instant,
        input: &CommandInput,
    ) -> Result<Store<InstanceState>> {
        self.create_with(&self.engine, deadline, |wasi| {
            wasi.args(&input.arguments);
            wasi.envs(&input.environment);
            wasi.stdin(input.stdin.clone());
            wasi.stdout(input.stdout.clone());
        })
    }

    fn create_with(
        &self,
        engine: &Wasmtime,
        deadline: Instant,
        adjust: impl FnOnce(&mut WasiCtxBuilder),
    ) -> Result<Store<InstanceState>> {
        let ComponentSpec { files, environment, limits, load_graphs, .. } = &*self.spec;
        let mut wasi = WasiCtx::builder();
        wasi.envs(environment);
        // A guest's files are its mounts: small, local, read once. Handing a read to another thread
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
        adjust(&mut wasi);
        sockets::grant(&mut wasi, &self.spec, self.outbound_http.blocked());
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let memory_budget = MemoryBudget::new(limits.instance_memory, INSTANCE_MEMORY);
        let bodies = InstanceBodies::new(StreamLimits {
            idle: limits.stream_idle,
            total: limits.stream_total,
            linger: limits.deadline,
        });
        let state = InstanceState {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: OutboundHttpCtx {
                outbound_http: Arc::clone(&self.outbound_http),
                request_permits: Arc::clone(&self.request_permits),
                spec: Arc::clone(&self.spec),
                hops: 0,
                served_hosts: Vec::new(),
                bodies: Arc::clone(&bodies),
                passed_on: false,
            },
            nn: NnCtx::new(Arc::clone(&self.models), limits.instance_memory, *load_graphs),
            key_value: KeyValueCtx::new(Arc::clone(&self.key_value), memory_budget.clone()),
            redis: RedisCtx::new(Arc::clone(&self.redis), memory_budget.clone()),
            sqlite: SqliteCtx::new(Arc::clone(&self.sqlite), memory_budget.clone()),
            mqtt: MqttCtx::new(Arc::clone(&self.mqtt), memory_budget.clone()),
            postgres: PostgresCtx::new(Arc::clone(&self.postgres), memory_budget.clone()),
            predictions: PredictionLogCtx::new(self.log_policy.clone(), memory_budget.clone()),
            memory_budget,
            table,
            memory: MemoryLimit { limit: limits.instance_memory, used: 0 },
            metrics: Arc::clone(&self.metrics),
            course: Lifecycle::Instantiating,
            bodies,
            call_deadline: deadline,
        };
        let mut store = Store::new(engine, state);
        store.set_hostcall_fuel(limits.instance_memory);
        store.set_max_component_handles(MAX_ALL_HANDLES);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(MAX_HANDLES);
        }
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        // Each epoch: interrupt the guest at its deadline, else yield to other tasks of this thread.
        store.epoch_deadline_callback(|store| {
            Ok(if Instant::now() < store.data().deadline() {
                UpdateDeadline::Yield(1)
            } else {
                UpdateDeadline::Interrupt
            })
        });
        Ok(store)
    }
}

/// Whether instantiation failed because the instance pool of the host is full.
#[must_use]
pub fn is_pool_full(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

/// Whether guest code was interrupted at its deadline.
#[must_use]
pub fn is_deadline_exceeded(error: &wasmtime::Error) -> bool {
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
    /// When guest code is interrupted: the latest deadline of all that it does.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.bodies.deadline().map_or(self.call_deadline, |bodies| bodies.max(self.call_deadline))
    }

    /// Number of handles to the host's resources that the instance holds.
    pub fn handles(&mut self) -> usize {
        self.table.iter_mut().count()
    }

    /// Records that the instance is live, and how long its instantiation took.
    pub fn record_instantiated(&mut self, took: Duration) {
        self.course = Lifecycle::Live;
        self.metrics.record_start(took);
    }

    /// Records why the instance is about to be dropped. Without a record, its deadline was exceeded or
    /// its request abandoned.
    pub fn record_end(&mut self, reason: Ended) {
        if let Lifecycle::Live = self.course {
            self.course = Lifecycle::Ending(reason);
        }
    }

    pub(crate) fn nn(&mut self) -> NnView<'_> {
        let deadline = self.deadline();
        NnView { ctx: &mut self.nn, table: &mut self.table, deadline }
    }

    pub(crate) fn key_value(&mut self) -> KeyValueView<'_> {
        KeyValueView { ctx: &mut self.key_value, table: &mut self.table }
    }

    pub(crate) fn redis(&mut self) -> RedisView<'_> {
        let allowed = &self.outbound.spec.outbound_hosts;
        RedisView { ctx: &mut self.redis, allowed, table: &mut self.table }
    }

    pub(crate) fn mqtt(&mut self) -> MqttView<'_> {
        let allowed = &self.outbound.spec.outbound_hosts;
        MqttView { ctx: &mut self.mqtt, allowed, table: &mut self.table }
    }

    pub(crate) fn postgres(&mut self) -> PostgresView<'_> {
        let deadline = self.deadline();
        let allowed = &self.outbound.spec.outbound_hosts;
        PostgresView { ctx: &mut self.postgres, allowed, table: &mut self.table, deadline }
    }

    pub(crate) fn sqlite(&mut self) -> SqliteView<'_> {
        let deadline = self.deadline();
        SqliteView { ctx: &mut self.sqlite, table: &mut self.table, deadline }
    }

    pub(crate) fn outbound_http(&mut self) -> HttpView<'_> {
        HttpView { outbound: &self.outbound, memory: &self.memory_budget }
    }

    pub(crate) fn variables(&mut self) -> VariablesView<'_> {
        VariablesView(&self.outbound.spec.variables)
    }
}

impl Drop for InstanceState {
    fn drop(&mut self) {
        let reason = match self.course {
            Lifecycle::Instantiating => return,
            Lifecycle::Ending(reason) => reason,
            Lifecycle::Live if Instant::now() >= self.deadline() => Ended::Deadline,
            Lifecycle::Live => Ended::Abandoned,
        };
        self.metrics.record_end(reason);
    }
}

/// Limit of the linear memory of an instance, the sum of its memories, in bytes. Linear memory never
/// shrinks.
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
