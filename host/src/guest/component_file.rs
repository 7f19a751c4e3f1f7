//! The code of a component file: mapped and linked while a component uses it, once for all.

use std::path::Path;
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use tracing::debug;
use wasmtime_wasi_http::handler::ProxyPre;

use crate::capabilities::prediction_log;
use crate::guest::artifact::{Artifact, ArtifactStore};
use crate::guest::door::assign::AssignPre;
use crate::guest::door::fast::{self, FastPre};
use crate::guest::door::{spin_1, standard, wagi};
use crate::guest::engine::{ComponentForm, Engine, SequentialEngine};
use crate::guest::imports::{self, denied};
use crate::guest::instance::InstanceState;

/// A component file, ready to be loaded.
#[derive(Debug)]
pub struct ComponentFile {
    engine: Arc<Engine>,
    artifact: Artifact,
    /// What its typed doors call, if it has that form.
    sequential: Option<Artifact>,
    /// Locked while the code is loaded, so that concurrent requests share one load.
    linked: Mutex<Weak<LinkedComponent>>,
}

/// Loaded code: what to instantiate, for each door that the component exports.
pub struct LinkedComponent {
    pub fast: Option<FastPre>,
    pub assign: Option<AssignPre>,
    pub spin_1: Option<spin_1::Spin1Pre>,
    pub standard: Option<ProxyPre<InstanceState>>,
    pub wagi: Option<wagi::WagiPre>,
    /// Initial size of its largest memory, in bytes.
    pub initial_memory: u64,
    /// Whether it imports the prediction log.
    pub logs_predictions: bool,
    /// Interfaces that it imports, and whose calls are denied.
    pub denied: Vec<String>,
}

/// Size of a page of WebAssembly memory, in bytes.
const WASM_PAGE: u64 = 64 << 10;

impl std::fmt::Debug for LinkedComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked").finish_non_exhaustive()
    }
}

impl ComponentFile {
    /// Compiles the component in `source`, unless an artifact of it is cached, and loads it.
    ///
    /// # Errors
    /// The file is not a component, imports an interface that the host does not provide, or exports
    /// no door.
    pub fn prepare(
        engine: &Arc<Engine>,
        artifacts: &ArtifactStore,
        source: &Path,
        progress: &str,
    ) -> Result<(Self, Arc<LinkedComponent>)> {
        let check = |wasm: &[u8]| imports::check(engine.linker(), wasm);
        let whole = ComponentForm::Whole;
        let artifact = artifacts.prepare(engine.wasmtime(), whole, source, progress, &check)?;
        let artifact = artifact.context("it has no code")?;
        let mut linked = link(engine, &artifact)?;
        let sequential = match linked.fast.is_some() || linked.assign.is_some() {
            true => prepare_sequential(engine, artifacts, source, progress, &mut linked)
                // It is only faster.
                .unwrap_or_else(|error| {
                    let source = source.display();
                    debug!(%source, error = format!("{error:#}"), "no sequential form is used");
                    None
                }),
            false => None,
        };
        let linked = Arc::new(linked);
        let weak = Mutex::new(Arc::downgrade(&linked));
        Ok((Self { engine: Arc::clone(engine), artifact, sequential, linked: weak }, linked))
    }

    /// The SHA-256 of the component file.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        self.artifact.digest()
    }

    fn link(&self) -> Result<LinkedComponent> {
        let mut linked = link(&self.engine, &self.artifact)?;
        if let Some(artifact) = &self.sequential {
            let engine = self.engine.sequential().map_err(anyhow::Error::from)?;
            link_sequential(engine, artifact, &mut linked)?;
        }
        Ok(linked)
    }

    /// The code, which is loaded if it is not. A load is completed even if the caller stops waiting.
    ///
    /// # Errors
    /// The code cannot be loaded or linked.
    pub async fn linked(self: &Arc<Self>) -> Result<Arc<LinkedComponent>> {
        let code = Arc::clone(self);
        let loading = async move {
            let mut linked = code.linked.lock().await;
            if let Some(linked) = linked.upgrade() {
                return Ok(linked);
            }
            let loading = Arc::clone(&code);
            let load = move || loading.link();
            let loaded = Arc::new(tokio::task::spawn_blocking(load).await??);
            *linked = Arc::downgrade(&loaded);
            Ok(loaded)
        };
        tokio::spawn(loading).await?
    }
}

/// Prepares the sequential form of a component, and replaces its typed doors by those of that form. `None` if
/// it does not have that form.
fn prepare_sequential(
    engine: &Engine,
    artifacts: &ArtifactStore,
    source: &Path,
    progress: &str,
    linked: &mut LinkedComponent,
) -> Result<Option<Artifact>> {
    let engine = engine.sequential().map_err(anyhow::Error::from)?;
    let (wasmtime, form) = (engine.wasmtime(), ComponentForm::Sequential);
    let artifact = artifacts.prepare(wasmtime, form, source, progress, &|_| Ok(()))?;
    artifact.as_ref().map(|artifact| link_sequential(engine, artifact, linked)).transpose()?;
    Ok(artifact)
}

/// Replaces the typed doors of a component by those of its sequential form.
fn link_sequential(
    engine: &SequentialEngine,
    artifact: &Artifact,
    linked: &mut LinkedComponent,
) -> Result<()> {
    let component = artifact.load(engine.wasmtime())?;
    let pre = engine.linker().instantiate_pre(&component).map_err(anyhow::Error::from)?;
    let assign = AssignPre::of(&component, &pre).map_err(anyhow::Error::from)?;
    let fast = linked.fast.as_ref().map(|_| FastPre::new(pre)).transpose();
    let fast = fast.map_err(anyhow::Error::from)?;
    ensure!(assign.is_some() == linked.assign.is_some(), "it has lost its assignment door");
    (linked.fast, linked.assign) = (fast, assign);
    Ok(())
}

fn link(engine: &Engine, artifact: &Artifact) -> Result<LinkedComponent> {
    let component = artifact.load(engine.wasmtime()).context("it cannot be loaded")?;
    let denying = denied::deny(engine.linker(), &component)?;
    let (linker, denied) = match &denying {
        Some((linker, denied)) => (linker, denied.clone()),
        None => (engine.linker(), Vec::new()),
    };
    let pre = linker.instantiate_pre(&component).map_err(anyhow::Error::from);
    let pre = pre.context("it imports something this host does not provide")?;
    let exports_fast = component.get_export_index(None, fast::EXPORT).is_some();
    let fast = exports_fast.then(|| FastPre::new(pre.clone())).transpose();
    let fast =
        fast.map_err(anyhow::Error::from).context("its fast door does not match the interface")?;
    let assign = AssignPre::of(&component, &pre)
        .map_err(anyhow::Error::from)
        .context("its assignment door does not match the interface")?;
    let exports_spin_1 = component.get_export_index(None, spin_1::EXPORT).is_some();
    let spin_1 = exports_spin_1.then(|| spin_1::Spin1Pre::new(pre.clone())).transpose();
    let spin_1 = spin_1
        .map_err(anyhow::Error::from)
        .with_context(|| format!("its export {} does not match the interface", spin_1::EXPORT))?;
    let standard = standard::pre(&pre);
    let types = component.component_type();
    let mut exports = types.exports(engine.wasmtime());
    let is_command = exports.any(|(name, _)| name.starts_with(wagi::EXPORT));
    let wagi = is_command.then(|| wagi::WagiPre::new(pre.clone())).transpose();
    let wagi = wagi
        .map_err(anyhow::Error::from)
        .context("its export wasi:cli/run does not match the interface")?;
    ensure!(
        fast.is_some()
            || standard.is_some()
            || assign.is_some()
            || spin_1.is_some()
            || wagi.is_some(),
        "it exports no HTTP handler (wasi:http/handler, wasi:http/incoming-handler or \
         spinfer:serve/buffered-handler)"
    );
    let required = component.resources_required();
    let pages = required.and_then(|required| required.max_initial_memory_size).unwrap_or(0);
    let mut imports = types.imports(engine.wasmtime());
    let logs_predictions = imports.any(|(name, _)| name.starts_with(prediction_log::INTERFACE));
    Ok(LinkedComponent {
        fast,
        assign,
        spin_1,
        standard,
        wagi,
        initial_memory: pages.saturating_mul(WASM_PAGE),
        logs_predictions,
        denied,
    })
}
