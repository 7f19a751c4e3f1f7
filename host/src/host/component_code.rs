//! Compiles and links every component file of an application.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use tracing::warn;

use super::{Host, threads};
use crate::config::app::App;
use crate::guest::artifact::{ArtifactStore, CompileTarget, PRIVATE, READABLE};
use crate::guest::component_file::{ComponentFile, LinkedComponent};
use crate::guest::engine::{Engine, portable_compiler};

/// Folder of compiled components in the state directory.
const ARTIFACTS: &str = "compiled";

/// The code of each component file, by the path of the file.
pub(super) type Codes = HashMap<PathBuf, (Arc<ComponentFile>, Arc<LinkedComponent>)>;

impl Host {
    /// Compiles the components of `app` into `state_dir`, readable by every user, unless that was
    /// done before. Returns the number of component files.
    ///
    /// # Errors
    /// The folder cannot be used, or a component cannot be compiled or linked.
    pub fn compile(app: &App, state_dir: &Path, makes: CompileTarget) -> Result<usize> {
        let artifacts =
            ArtifactStore::open(&state_dir.join(ARTIFACTS), READABLE, makes, portable_compiler)?;
        Ok(compile_all(app, &Arc::new(Engine::new(app)?), &artifacts)?.len())
    }
}

/// The code of all components of `app`: mapped from `state_dir` where it was compiled before.
pub(super) fn prepare(app: &App, engine: &Arc<Engine>, state_dir: &Path) -> Result<Codes> {
    let folder = state_dir.join(ARTIFACTS);
    let artifacts =
        ArtifactStore::open(&folder, PRIVATE, CompileTarget::Native, portable_compiler)?;
    let codes = compile_all(app, engine, &artifacts)?;
    // In the background: with a thousand components there are thousands of files.
    std::thread::spawn(move || artifacts.remove_old());
    Ok(codes)
}

/// Warns of interfaces that a component imports and this host does not provide.
fn warn_of_denied(component: &str, linked: &LinkedComponent) {
    if !linked.denied.is_empty() {
        let interfaces = linked.denied.join(", ");
        warn!(component, interfaces, "imports what this host does not provide: calls are denied");
    }
}

/// Compiles on as many threads as can run at the same time.
fn compile_all(app: &App, engine: &Arc<Engine>, artifacts: &ArtifactStore) -> Result<Codes> {
    let mut sources: Vec<&PathBuf> = app.components.values().map(|spec| &spec.source).collect();
    sources.sort_unstable();
    sources.dedup();
    let next = AtomicUsize::new(0);
    // A separate pool: its threads exit at the end, which frees the memory they hold.
    let compiling = rayon::ThreadPoolBuilder::new().num_threads(threads()?).build()?;
    let worker = || {
        let numbered = || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            Some((index + 1, sources.get(index)?))
        };
        std::iter::from_fn(numbered)
            .map(|(number, source)| {
                let progress = format!("{number} of {}", sources.len());
                let prepare = || ComponentFile::prepare(engine, artifacts, source, &progress);
                let prepared = compiling.install(prepare);
                let (code, linked) = prepared.with_context(|| {
                    let user = app.components.values().find(|spec| spec.source == **source);
                    let id = user.map_or("", |spec| &spec.id);
                    format!("component `{id}`, {}", source.display())
                })?;
                let specs = app.components.values().filter(|spec| spec.source == **source);
                specs.for_each(|spec| warn_of_denied(&spec.id, &linked));
                Ok(((*source).clone(), (Arc::new(code), linked)))
            })
            .collect::<Vec<Result<_>>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads()?).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().map(|worker| {
            worker.join().unwrap_or_else(|_| vec![Err(anyhow!("the compiler panicked"))])
        });
        let mut codes = Codes::new();
        let mut problems = Vec::new();
        for result in results.flatten() {
            match result {
                Ok((source, code)) => drop(codes.insert(source, code)),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        problems.sort_unstable();
        if problems.is_empty() { Ok(codes) } else { Err(anyhow!(problems.join("\n"))) }
    })
}
