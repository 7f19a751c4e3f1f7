//! The code of a component file: mapped and linked while a component uses it, once for all.

use std::path::Path;
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use wasmtime_wasi_http::handler::ProxyPre;

use crate::capabilities::prediction_log;
use crate::guest::artifact::{Artifact, ArtifactStore};
use crate::guest::door::{assign, fast, spin_1, standard, wagi};
use crate::guest::engine::Engine;
use crate::guest::imports::{self, denied};
use crate::guest::instance::InstanceState;

/// A component file, ready to be loaded.
#[derive(Debug)]
pub struct ComponentFile {
    engine: Arc<Engine>,
    artifact: Artifact,
    /// Locked while the code is loaded, so that concurrent requests share one load.
    linked: Mutex<Weak<LinkedComponent>>,
}

/// Loaded code: what to instantiate, for each door that the component exports.
pub struct LinkedComponent {
    pub fast: Option<fast::FastPre>,
    pub assign: Option<assign::AssignPre>,
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
        let artifact = artifacts.prepare(engine.wasmtime(), source, progress, &check)?;
        let linked = Arc::new(link(engine, &artifact)?);
        let weak = Mutex::new(Arc::downgrade(&linked));
        Ok((Self { engine: Arc::clone(engine), artifact, linked: weak }, linked))
    }

    /// The SHA-256 of the component file.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        self.artifact.digest()
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
            let load = move || link(&loading.engine, &loading.artifact);
            let loaded = Arc::new(tokio::task::spawn_blocking(load).await??);
            *linked = Arc::downgrade(&loaded);
            Ok(loaded)
        };
        tokio::spawn(loading).await?
    }
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
    let fast = exports_fast.then(|| fast::FastPre::new(pre.clone())).transpose();
    let fast =
        fast.map_err(anyhow::Error::from).context("its fast door does not match the interface")?;
    let assign = assign::AssignPre::of(&component, &pre)
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
