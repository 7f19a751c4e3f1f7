//! Command-line options of a model to add: its name, version, routes and backend.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;

use super::MANIFEST;
use super::component;
use super::examine::{Examined, examine};
use super::example::Example;
use crate::cli::edit::Edit;
use crate::config::manifest::names;
use crate::inference::{BackendName, InferenceFlags, LoadRequest};

/// Options shared by `spinfer add` and `spinfer pull`.
#[derive(Debug, Args)]
pub(crate) struct ModelTarget {
    /// Name of the model [default: the file name, or the registered name in MLflow]
    #[arg(long)]
    name: Option<String>,

    /// Number of the version; an existing version is never overwritten [default: the next number, or
    /// the registered one in MLflow]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,

    /// Serve the model on this route too, such as /wine/...; can be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    pub(super) routes: Vec<String>,

    /// Class labels in the graph's order, if the graph has none: no,yes
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub(super) labels: Vec<String>,

    /// Feature names in the graph's order; tables are then read by column name
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) fields: Vec<String>,

    /// Put the version in production: move the model's plain route, and each --route, to it from the
    /// version that has them
    #[arg(long)]
    pub(super) promote: bool,

    /// Component that serves the model [default: the generic one shipped with spinfer]
    #[arg(long, value_name = "FILE")]
    pub(super) component: Option<PathBuf>,

    /// Manifest, or the folder with a spin.toml; created if missing
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = MANIFEST)]
    pub(super) from: PathBuf,

    /// Example inputs for the trial run: a JSON file with an Open Inference Protocol request or an
    /// object of nested lists by input, or an .npz file of arrays by input [default: small generated
    /// values]
    #[arg(long, value_name = "FILE")]
    example: Option<PathBuf>,

    /// Backend that must run the graph, lean or onnxruntime; written to model.toml [default: lean if it
    /// supports the graph, otherwise onnxruntime]
    #[arg(long, value_name = "NAME")]
    pub(super) backend: Option<RequestedBackend>,

    /// Threads per inference with onnxruntime; written to model.toml [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threads: Option<u32>,

    #[command(flatten)]
    inference: InferenceFlags,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum RequestedBackend {
    Lean,
    Onnxruntime,
}

impl RequestedBackend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Onnxruntime => "onnxruntime",
        }
    }
}

impl ModelTarget {
    /// Checks before a download that a model of this name and version can be added; the folder of the
    /// manifest.
    pub(crate) fn check(&self, name: Option<&str>, version: Option<u32>) -> Result<PathBuf> {
        let edit = Edit::open(&self.from)?;
        if self.name.is_some() || name.is_some() {
            self.version(&edit.base, &self.name(name)?, version)?;
        }
        component::find(self.component.as_deref(), &edit.base)?;
        Ok(edit.base)
    }

    /// Examines the graph: `changed` if that runs, otherwise `given`. Returns the bytes that ran.
    pub(super) fn examine(
        &self,
        given: &Bytes,
        changed: Option<Bytes>,
    ) -> Result<(Examined, Bytes)> {
        let example = self.example.as_deref().map(Example::read).transpose()?;
        let backends = self.inference.backends()?.backends();
        let mut request = LoadRequest {
            backend: self.backend.map(|backend| match backend {
                RequestedBackend::Lean => BackendName::Lean,
                RequestedBackend::Onnxruntime => BackendName::OnnxRuntime,
            }),
            ..LoadRequest::default()
        };
        if let Some(threads) = self.threads {
            request.options.threads = threads as usize;
        }
        let one = |bytes: &Bytes| examine(bytes, &backends, request, example.as_ref());
        let (examined, bytes) = match changed.map(|bytes| (one(&bytes), bytes)) {
            Some((Ok(examined), bytes)) => (examined, bytes),
            Some((Err(_), _)) | None => (one(given)?, given.clone()),
        };
        ensure!(
            self.threads.is_none_or(|threads| threads == 1) || examined.backend != "lean",
            "--threads: lean runs this graph with one thread; add --backend onnxruntime to use more"
        );
        Ok((examined, bytes))
    }

    /// The given name, or `of_source` with the characters a model name can have.
    pub(super) fn name(&self, of_source: Option<&str>) -> Result<String> {
        let name = self.name.clone().or_else(|| of_source.map(to_name)).unwrap_or_default();
        // The name becomes a folder, a segment of the URL and a part of the component's id.
        names::check_model_name(&name).map_err(|problem| {
            let proposed = to_name(&name);
            let proposed = if proposed.is_empty() { "wine".to_owned() } else { proposed };
            anyhow::anyhow!("the model's name {problem}; try --name {proposed}")
        })?;
        Ok(name)
    }

    /// A free version number: the given one, that of the source, or the next.
    pub(super) fn version(&self, base: &Path, name: &str, of_source: Option<u32>) -> Result<u32> {
        let wanted = self.version.or(of_source.filter(|&version| version > 0));
        let folder = base.join("models").join(name);
        let existing = match fs::read_dir(&folder) {
            Ok(entries) => {
                entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(wanted.unwrap_or(1));
            }
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        };
        let last: u32 = existing.max().unwrap_or(0);
        let next = last.checked_add(1).context("no number is left for a version")?;
        let version = wanted.unwrap_or(next);
        ensure!(
            !folder.join(version.to_string()).exists(),
            "version {version} of {name} already exists, and versions are immutable; {}",
            if self.version.is_some() && of_source.is_none() {
                format!("omit --version to use {next}")
            } else {
                format!("add --version {next}")
            }
        );
        Ok(version)
    }
}

/// `text` in lower case, with a hyphen for characters other than letters, digits and underscores, and
/// starting with a letter.
fn to_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
        // Words are separated by a single character.
        let is_separator = matches!(c, '-' | '_');
        if !(is_separator && (name.is_empty() || name.ends_with(['-', '_']))) {
            name.push(c);
        }
    }
    let name = name.trim_end_matches(['-', '_']);
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    if digit { format!("model-{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_model_names() {
        for (file, name) in [
            ("my_model", "my_model"),
            ("Wine Quality (v2)", "wine-quality-v2"),
            ("_private__x_", "private_x"),
            ("a_-b", "a_b"),
            ("8bit", "model-8bit"),
            ("...", ""),
        ] {
            assert_eq!(to_name(file), name, "{file}");
        }
    }
}
