//! wasmtime, set up once: the engine, and the interfaces a guest may import.

use std::sync::{Arc, Weak};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::error::Context;
use wasmtime::{
    Config, Engine as Wasmtime, InstanceAllocationStrategy, PoolingAllocationConfig, Result,
};

use crate::config::app::App;
use crate::capabilities::{key_value, nn, prediction_log, redis, variables, wasi_keyvalue};
use crate::guest::instance::{InstanceState, MAX_TABLE_ELEMENTS};

/// How often a running guest looks whether it should yield or has to end.
const EPOCH: Duration = Duration::from_millis(10);
/// Core modules of a component at most: its own, adapters the toolchain links in, libraries of an
/// interpreter, other components it is composed of.
const MAX_CORE_INSTANCES: u32 = 100;
/// Memories and tables of a component at most, and of all together for each instance there may be:
/// a memory reserves gigabytes of addresses, and few components have more than one.
const MAX_MEMORIES: u32 = 6;
const MEMORIES_EACH: u32 = 3;
const MAX_TABLES: u32 = 16;
const TABLES_EACH: u32 = 8;

/// The engine, and a linker with every interface the host offers.
pub struct Engine {
    wasmtime: Wasmtime,
    linker: Linker<InstanceState>,
    /// Ends the epoch thread when the engine goes.
    _alive: Arc<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine whose pool fits `app`.
    pub fn new(app: &App) -> Result<Self> {
        let wasmtime =
            Wasmtime::new(&config(app)).context("cannot start the WebAssembly engine")?;
        let mut linker = Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        nn::add_to_linker(&mut linker)?;
        variables::add_to_linker(&mut linker)?;
        key_value::add_to_linker(&mut linker)?;
        wasi_keyvalue::add_to_linker(&mut linker)?;
        redis::add_to_linker(&mut linker)?;
        prediction_log::add_to_linker(&mut linker)?;
        let alive = Arc::new(());
        tick(wasmtime.clone(), Arc::downgrade(&alive))?;
        Ok(Self { wasmtime, linker, _alive: alive })
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

/// What code depends on: the same for every application, so that an artefact serves them all.
pub fn code() -> Config {
    let mut config = Config::new();
    config.wasm_component_model_async(true);
    config.epoch_interruption(true);
    config
}

/// A compiler for any processor of this kind, whatever its features.
pub fn portable() -> Result<Wasmtime> {
    let mut config = code();
    // Named, it has the features that all of them have.
    config.target(env!("TARGET"))?;
    Wasmtime::new(&config)
}

fn config(app: &App) -> Config {
    let mut config = code();
    // A stack nobody uses goes back to the system; an instance keeps its own from call to call.
    config.async_stack_zeroing(true);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(app)));
    config
}

fn pool(app: &App) -> PoolingAllocationConfig {
    let limits = || app.components.values().map(|component| &component.limits);
    // Both doors have their own instances, and spare ones; half as many again while old ones are
    // torn down.
    let spare = app.components.values().map(|component| component.reuse.spare).sum::<usize>();
    let instances = limits().map(|l| l.instances * 3).sum::<usize>() + spare;
    let instances = instances.clamp(1, app.instances);
    let count = u32::try_from(instances).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(count);
    pool.max_core_instances_per_component(MAX_CORE_INSTANCES);
    pool.total_core_instances(count.saturating_mul(MAX_CORE_INSTANCES));
    // No component takes those of another, as there are three places for each instance it may have.
    pool.max_memories_per_component(MAX_MEMORIES);
    pool.total_memories(count.saturating_mul(MEMORIES_EACH));
    pool.max_tables_per_component(MAX_TABLES);
    pool.total_tables(count.saturating_mul(TABLES_EACH));
    // One for each request an instance serves, and a stack is two of a process's memory maps, of
    // which there are 65,530. Most serve one.
    pool.total_stacks(count.saturating_mul(2));
    pool.table_elements(MAX_TABLE_ELEMENTS);
    pool.max_memory_size(limits().map(|l| l.instance_memory).max().unwrap_or(0));
    pool
}

/// Advances the epoch until the engine is gone.
fn tick(engine: Wasmtime, alive: Weak<()>) -> Result<()> {
    let ticking = move || {
        while alive.strong_count() > 0 {
            std::thread::sleep(EPOCH);
            engine.increment_epoch();
        }
    };
    std::thread::Builder::new()
        .name("epoch".into())
        .spawn(ticking)
        .context("cannot start the epoch thread")?;
    Ok(())
}
