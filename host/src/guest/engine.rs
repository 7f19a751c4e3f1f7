//! The wasmtime engines of the process, and the linkers with the interfaces a guest may import.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::component::Linker;
use wasmtime::error::Context;
use wasmtime::{
    Config, Engine as Wasmtime, InstanceAllocationStrategy, PoolingAllocationConfig, Result,
};

use crate::capabilities::{
    key_value, mqtt, nn, postgres, prediction_log, redis, spin_1, sqlite, variables, wasi_http,
    wasi_http_2023, wasi_keyvalue,
};
use crate::config::app::App;
use crate::guest::instance::{InstanceState, MAX_TABLE_ELEMENTS};

/// Length of an epoch: how often a running guest yields and checks its deadline.
const EPOCH: Duration = Duration::from_millis(10);
/// Maximum number of core modules of a component: its own, adapters that the toolchain links in,
/// libraries of an interpreter, and the components it is composed of.
const MAX_CORE_INSTANCES: u32 = 100;
/// Maximum number of linear memories of a component.
const MAX_MEMORIES: u32 = 6;
/// Memories in the pool for each possible instance: a memory reserves gigabytes of address space, and
/// few components have more than one.
const MEMORIES_EACH: u32 = 3;
/// Maximum number of tables of a component.
const MAX_TABLES: u32 = 16;
/// Tables in the pool for each possible instance.
const TABLES_EACH: u32 = 8;

/// Which form of a component an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentForm {
    Whole,
    /// Without what needs support for concurrent calls (`guest/sequential/`).
    Sequential,
}

/// The engine, and a linker with every interface that the host provides.
pub struct Engine {
    wasmtime: Wasmtime,
    linker: Linker<InstanceState>,
    pool: PoolingAllocationConfig,
    /// Created for the first component that has a sequential form.
    sequential: OnceLock<SequentialEngine>,
    epochs: Arc<Epochs>,
}

/// The engine of components in their sequential form, and a linker with the interfaces that they may import.
pub struct SequentialEngine {
    wasmtime: Wasmtime,
    linker: Linker<InstanceState>,
}

/// The engines whose epochs advance.
type Epochs = Mutex<Vec<Wasmtime>>;

impl std::fmt::Debug for SequentialEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SequentialEngine").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine whose instance pool is sized for `app`.
    ///
    /// # Errors
    /// The system denies the address space of the pool, or the epoch thread.
    pub fn new(app: &App) -> Result<Self> {
        let pool = pool(app);
        let wasmtime = start(ComponentForm::Whole, &pool)?;
        let mut linker = Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasi_http::add_to_linker(&mut linker)?;
        wasi_http_2023::add_to_linker(&mut linker)?;
        nn::add_to_linker(&mut linker)?;
        variables::add_to_linker(&mut linker)?;
        key_value::add_to_linker(&mut linker)?;
        wasi_keyvalue::add_to_linker(&mut linker)?;
        redis::add_to_linker(&mut linker)?;
        sqlite::add_to_linker(&mut linker)?;
        mqtt::add_to_linker(&mut linker)?;
        postgres::add_to_linker(&mut linker)?;
        spin_1::add_to_linker(&mut linker)?;
        prediction_log::add_to_linker(&mut linker)?;
        let epochs = Arc::new(Mutex::new(vec![wasmtime.clone()]));
        tick(Arc::downgrade(&epochs))?;
        Ok(Self { wasmtime, linker, pool, sequential: OnceLock::new(), epochs })
    }

    /// The engine of components in their sequential form.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn sequential(&self) -> Result<&SequentialEngine> {
        if let Some(engine) = self.sequential.get() {
            return Ok(engine);
        }
        let engine = SequentialEngine::new(&self.pool)?;
        Ok(self.sequential.get_or_init(|| {
            self.epochs.lock().push(engine.wasmtime.clone());
            engine
        }))
    }

    #[must_use]
    pub fn wasmtime(&self) -> &Wasmtime {
        &self.wasmtime
    }

    #[must_use]
    pub fn linker(&self) -> &Linker<InstanceState> {
        &self.linker
    }
}

impl SequentialEngine {
    fn new(pool: &PoolingAllocationConfig) -> Result<Self> {
        let wasmtime = start(ComponentForm::Sequential, pool)?;
        let mut linker = Linker::new(&wasmtime);
        // What model components import. One that imports more runs in its whole form.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        nn::add_to_linker(&mut linker)?;
        prediction_log::add_to_linker(&mut linker)?;
        Ok(Self { wasmtime, linker })
    }

    #[must_use]
    pub fn wasmtime(&self) -> &Wasmtime {
        &self.wasmtime
    }

    #[must_use]
    pub fn linker(&self) -> &Linker<InstanceState> {
        &self.linker
    }
}

/// The settings that compiled code depends on: the same for every application, so that all of them
/// can use one artifact.
pub fn code_config(form: ComponentForm) -> Config {
    let mut config = Config::new();
    match form {
        ComponentForm::Whole => config.wasm_component_model_async(true),
        ComponentForm::Sequential => config.concurrency_support(false),
    };
    config.epoch_interruption(true);
    config
}

/// A compiler for any processor of this architecture, whatever its features.
///
/// # Errors
/// wasmtime cannot compile for the target.
pub fn portable_compiler(form: ComponentForm) -> Result<Wasmtime> {
    let mut config = code_config(form);
    // An explicit target selects the baseline features of the architecture.
    config.target(env!("TARGET"))?;
    Wasmtime::new(&config)
}

fn start(form: ComponentForm, pool: &PoolingAllocationConfig) -> Result<Wasmtime> {
    let mut config = code_config(form);
    // The pages of an unused stack are returned to the system; a live instance keeps its stack.
    config.async_stack_zeroing(true);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool.clone()));
    Wasmtime::new(&config).context("cannot start the WebAssembly engine")
}

/// Address space that wasmtime reserves for each memory, in bytes.
const MAX_MEMORY: usize = 1 << 32;

fn pool(app: &App) -> PoolingAllocationConfig {
    let limits = || app.components.values().map(|component| &component.limits);
    // Each door has its own instances and idle ones. The factor of 3 instead of 2 leaves slots for
    // retired instances that are still being dropped.
    let idle = app.components.values().map(|component| component.reuse.min_idle).sum::<usize>();
    let instances = limits().map(|l| l.instances * 3).sum::<usize>() + idle;
    let instances = instances.clamp(1, app.instances);
    let count = u32::try_from(instances).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(count);
    pool.max_core_instances_per_component(MAX_CORE_INSTANCES);
    pool.total_core_instances(count.saturating_mul(MAX_CORE_INSTANCES));
    // Three slots for each possible instance, so that no component can take those of another.
    pool.max_memories_per_component(MAX_MEMORIES);
    pool.total_memories(count.saturating_mul(MEMORIES_EACH));
    pool.max_tables_per_component(MAX_TABLES);
    pool.total_tables(count.saturating_mul(TABLES_EACH));
    // Each concurrent request of an instance needs a stack; most instances serve one at a time. A
    // stack takes two of the process's 65,530 memory maps.
    pool.total_stacks(count.saturating_mul(2));
    pool.table_elements(MAX_TABLE_ELEMENTS);
    // The whole reservation of a slot: `limits.instance_memory` is checked when a component is loaded and
    // when its memory grows, with an error that names the limit.
    pool.max_memory_size(MAX_MEMORY);
    pool
}

/// Advances the epochs until the engines are dropped.
fn tick(epochs: Weak<Epochs>) -> Result<()> {
    let ticking = move || {
        while let Some(epochs) = epochs.upgrade() {
            epochs.lock().iter().for_each(Wasmtime::increment_epoch);
            drop(epochs);
            std::thread::sleep(EPOCH);
        }
    };
    std::thread::Builder::new()
        .name("epoch".into())
        .spawn(ticking)
        .context("cannot start the epoch thread")?;
    Ok(())
}
