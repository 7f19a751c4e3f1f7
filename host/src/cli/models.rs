//! `spinfer models`: lists the models of an application.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;
use spinfer_backend::{Backend, Encoding, ExecutionTarget};

use super::edit::Edit;
use super::signature::{DeclaredTensor, list};
use super::table::write_table;
use crate::config::manifest::{self, Manifest, TextOr};
use crate::guest::files::Files;
use crate::inference::{
    GRAPH, InferenceFlags, LoadRequest, LoadResult, MountedModel, SIGNATURE, check_loaded,
    check_model_folder, load_request, load_with_first,
};

#[derive(Debug, Args)]
pub struct ModelsOptions {
    /// Manifest, or the folder with a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    #[command(flatten)]
    inference: InferenceFlags,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A model that a component mounts.
#[derive(Debug, Serialize)]
struct ModelRow {
    model: String,
    /// `None` if the folder has no `model.toml`.
    version: Option<String>,
    routes: Vec<String>,
    component: String,
    inputs: Vec<DeclaredTensor>,
    outputs: Vec<DeclaredTensor>,
    /// Size of the graph, in bytes.
    bytes: u64,
    /// Backend that runs the graph.
    backend: Option<&'static str>,
    /// Why that backend was chosen.
    reason: Option<String>,
    /// Why no backend runs the graph.
    error: Option<String>,
}

/// Prints the models of an application to `out`.
///
/// # Errors
/// If the manifest cannot be read, it mounts files that do not exist, or a model cannot be served.
pub fn run(models: &ModelsOptions, out: &mut impl Write) -> Result<()> {
    let ModelsOptions { from, json, inference } = models;
    let Edit { path, base, before, manifest, .. } = Edit::open(from)?;
    before.ok_or_else(|| manifest::missing(&path))?;
    let rows = find(&manifest, &base, &inference.backends()?.backends())?;
    if *json {
        serde_json::to_writer_pretty(&mut *out, &rows)?;
        writeln!(out)?;
    } else if rows.is_empty() {
        writeln!(
            out,
            "No component of {} mounts a model; `spinfer add <file.onnx>` adds one.",
            path.display()
        )?;
    } else {
        let head =
            ["model", "version", "component", "backend", "size", "routes", "inputs -> outputs"];
        let lines: Vec<_> =
            [head.map(str::to_owned)].into_iter().chain(rows.iter().map(ModelRow::cells)).collect();
        write_table(&lines, out)?;
        for ModelRow { model, version, backend, reason, .. } in &rows {
            let (Some(backend), Some(reason)) = (backend, reason) else { continue };
            let version = version.as_deref().map(|version| format!(" {version}"));
            writeln!(out, "{model}{} runs on {backend}: {reason}", version.unwrap_or_default())?;
        }
    }
    let errors = rows.iter().filter_map(|row| {
        let error = row.error.as_ref()?;
        Some(error.lines().map(|line| format!("component `{}`: {line}", row.component)).collect())
    });
    let errors: Vec<String> = errors.map(|lines: Vec<_>| lines.join("\n")).collect();
    let count = errors.len();
    ensure!(
        count == 0,
        "{count} of {} models cannot be served:\n{}",
        rows.len(),
        errors.join("\n")
    );
    Ok(())
}

/// Why the backend that loaded a graph was chosen, after the `refusals` of preferred ones.
pub(super) fn reason(request: LoadRequest, refusals: &[(&'static str, String)]) -> String {
    if request.backend.is_some() {
        return "requested".to_owned();
    }
    if refusals.is_empty() {
        return "it supports every operator of the graph, and is the fastest backend".to_owned();
    }
    // Each message names its backend.
    let refusals = refusals.iter().map(|(_, why)| why.as_str());
    refusals.collect::<Vec<_>>().join("; ")
}

fn find(manifest: &Manifest, base: &Path, backends: &[Arc<dyn Backend>]) -> Result<Vec<ModelRow>> {
    let mut rows = Vec::new();
    for (id, component) in &manifest.component {
        let files = Files::resolve(component, base).map_err(|problems| {
            let problems: Vec<_> = problems.into_iter().map(|(_, problem)| problem).collect();
            anyhow::anyhow!("component.{id}.files: {}", problems.join("; "))
        })?;
        let routes = routes(manifest, id);
        for (model, folder) in files.folders.models() {
            rows.push(ModelRow::read(model, folder, id, &routes, backends));
        }
    }
    Ok(rows)
}

fn routes(manifest: &Manifest, id: &str) -> Vec<String> {
    let mut routes = Vec::new();
    for trigger in &manifest.trigger.http {
        let to = matches!(&trigger.component, Some(TextOr::Text(component)) if component == id);
        if let (true, Some(TextOr::Text(route))) = (to, &trigger.route) {
            routes.push(route.clone());
        }
    }
    routes
}

impl ModelRow {
    fn read(
        model: &str,
        folder: &Path,
        id: &str,
        routes: &[String],
        backends: &[Arc<dyn Backend>],
    ) -> Self {
        let graph = folder.join(GRAPH);
        let mut row = Self {
            model: model.to_owned(),
            version: None,
            routes: routes.to_vec(),
            component: id.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            bytes: graph.metadata().map_or(0, |file| file.len()),
            backend: None,
            reason: None,
            error: None,
        };
        if let Err(problems) = row.load(model, folder, backends) {
            row.error = Some(problems.join("\n"));
        }
        row
    }

    fn load(
        &mut self,
        model: &str,
        folder: &Path,
        backends: &[Arc<dyn Backend>],
    ) -> Result<(), Vec<String>> {
        let MountedModel { version, declared, .. } = check_model_folder(model, folder)?;
        self.version = version;
        let one = |error: &dyn fmt::Display| vec![format!("{}: {error}", folder.display())];
        let request = load_request(folder).map_err(|error| one(&error))?;
        let bytes = std::fs::read(folder.join(GRAPH)).map_err(|error| one(&error))?;
        let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
        let LoadResult { backend, refusals, graph } =
            load_with_first(backends, &bytes, encoding, target, request)
                .map_err(|error| one(&error))?;
        let problems = declared.map(|declared| check_loaded(&declared, &graph));
        let problems = problems.unwrap_or_default();
        if !problems.is_empty() {
            let signature = folder.join(SIGNATURE);
            let problems = problems.iter().map(|it| format!("{}: {it}", signature.display()));
            return Err(problems.collect());
        }
        self.backend = Some(backend);
        self.reason = Some(reason(request, &refusals));
        self.inputs = graph.inputs().iter().map(DeclaredTensor::from).collect();
        self.outputs = graph.outputs().iter().map(DeclaredTensor::from).collect();
        Ok(())
    }

    fn cells(&self) -> [String; 7] {
        [
            self.model.clone(),
            self.version.clone().unwrap_or_else(|| "-".into()),
            self.component.clone(),
            self.backend.unwrap_or("-").to_owned(),
            ByteSize(self.bytes).display().si().to_string(),
            if self.routes.is_empty() { "-".into() } else { self.routes.join(", ") },
            match &self.error {
                Some(_) => "cannot be served".to_owned(),
                None => format!("{} -> {}", list(&self.inputs), list(&self.outputs)),
            },
        ]
    }
}
