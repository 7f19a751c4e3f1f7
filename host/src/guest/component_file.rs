//! A component file's code: mapped and linked while someone uses it, by everybody together.

use std::path::Path;
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, bail};
use tokio::sync::Mutex;
use wasmtime_wasi_http::handler::ProxyPre;

use crate::guest::artifact::{Artifact, Artifacts};
use crate::capabilities::prediction_log;
use crate::guest::door::{assign, fast, standard};
use crate::guest::engine::Engine;
use crate::guest::imports;
use crate::guest::instance::InstanceState;

/// A component file, ready to be loaded.
#[derive(Debug)]
pub struct Code {
    engine: Arc<Engine>,
    artifact: Artifact,
    /// Loading happens under this lock, so that whoever needs it shares one.
    linked: Mutex<Weak<Linked>>,
}

/// Loaded code: what instances are made from, for each door the component exports.
pub struct Linked {
    pub fast: Option<fast::Pre>,
    pub assign: Option<assign::Pre>,
    pub standard: Option<ProxyPre<InstanceState>>,
    /// Bytes its largest memory begins with.
    pub memory: u64,
    /// Whether it imports the prediction log.
    pub logs: bool,
}

/// Of WebAssembly's memories.
const PAGE: u64 = 64 << 10;

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked").finish_non_exhaustive()
    }
}

impl Code {
    /// Compiles the component in `source`, if it was not before, and loads it. Fails if it imports
    /// what the host has not, or exports no door.
    pub fn prepare(
        engine: &Arc<Engine>,
        artifacts: &Artifacts,
        source: &Path,
        progress: &str,
    ) -> Result<(Self, Arc<Linked>)> {
        let artifact = artifacts.prepare(engine.wasmtime(), source, progress)?;
        let linked = Arc::new(link(engine, &artifact)?);
        let weak = Mutex::new(Arc::downgrade(&linked));
        Ok((Self { engine: Arc::clone(engine), artifact, linked: weak }, linked))
    }

    /// The SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        self.artifact.digest()
    }

    /// The loaded code, or loads it again. A load that has begun is finished, even if who asked
    /// for it cannot wait.
    pub async fn linked(self: &Arc<Self>) -> Result<Arc<Linked>> {
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

fn link(engine: &Engine, artifact: &Artifact) -> Result<Linked> {
    let component = artifact.load(engine.wasmtime()).context("it cannot be loaded")?;
    let pre = engine.linker().instantiate_pre(&component).map_err(|error| {
        match imports::missing(engine.linker(), &component).as_slice() {
            [] => anyhow::Error::from(error),
            missing => anyhow::anyhow!("{}", missing.join("\n")),
        }
        .context("it imports something this host does not offer")
    })?;
    let exports_fast = component.get_export_index(None, fast::EXPORT).is_some();
    let fast = exports_fast.then(|| fast::Pre::new(pre.clone())).transpose();
    let fast = fast.map_err(anyhow::Error::from).context("it has no usable fast door")?;
    let exports_assign = component.get_export_index(None, assign::EXPORT).is_some();
    let assign = exports_assign.then(|| assign::Pre::new(pre.clone())).transpose();
    let assign = assign.map_err(anyhow::Error::from).context("it has no usable assignment door")?;
    let standard = standard::pre(&pre);
    if fast.is_none() && standard.is_none() && assign.is_none() {
        bail!(
            "it exports no HTTP handler (wasi:http/handler, wasi:http/incoming-handler or \
             spinfer:serve/buffered-handler)"
        );
    }
    let required = component.resources_required();
    let pages = required.and_then(|required| required.max_initial_memory_size).unwrap_or(0);
    let types = component.component_type();
    let mut imports = types.imports(engine.wasmtime());
    let logs = imports.any(|(name, _)| name.starts_with(prediction_log::INTERFACE));
    Ok(Linked { fast, assign, standard, memory: pages.saturating_mul(PAGE), logs })
}
