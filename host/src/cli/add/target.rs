//! What the command line says of a model that is added.

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
use crate::inference::{BackendName, InferenceFlags, LoadRequest};
use crate::config::manifest::names;

/// What a model that is added is called, and who serves it.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The model's name [default: the file's; of MLflow, the registered one]
    #[arg(long)]
    name: Option<String>,

    /// The version's number; a version is never overwritten [default: the next; of MLflow, the
    /// registered one]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,

    /// Answer on this route too, such as /wine/...; may be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    pub(super) routes: Vec<String>,

    /// The classes' names, in the graph's order, if it does not have them: no,yes
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub(super) labels: Vec<String>,

    /// The features' names, in the graph's order: tables are then read by column name
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) fields: Vec<String>,

    /// Put it in production: it takes over the model's plain route, and these --route, from the version
    /// that has them
    #[arg(long)]
    pub(super) promote: bool,

    /// The component that serves it [default: the generic one that comes with spinfer]
    #[arg(long, value_name = "FILE")]
    pub(super) component: Option<PathBuf>,

    /// The manifest, or the folder that holds a spin.toml; made if there is none
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = MANIFEST)]
    pub(super) from: PathBuf,

    /// Inputs that the graph can take, to try it with: a JSON file that holds a request of the Open
    /// Inference Protocol or an object of nested lists by input, or an .npz file of arrays by input
    /// [default: small values that are made up]
    #[arg(long, value_name = "FILE")]
    example: Option<PathBuf>,

    /// The backend that has to run it, lean or onnxruntime; model.toml keeps it [default: lean if it
    /// can, else onnxruntime]
    #[arg(long, value_name = "NAME")]
    pub(super) backend: Option<AskedBackend>,

    /// Threads that one inference may use, with onnxruntime; model.toml keeps it [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threads: Option<u32>,

    #[command(flatten)]
    inference: InferenceFlags,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum AskedBackend {
    Lean,
    Onnxruntime,
}

impl AskedBackend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Onnxruntime => "onnxruntime",
        }
    }
}

impl Target {
    /// The folder of the manifest, and whether a model of this name and version could be added: what
    /// is found out before it is fetched.
    pub(crate) fn check(&self, name: Option<&str>, version: Option<u32>) -> Result<PathBuf> {
        let edit = Edit::open(&self.from)?;
        if self.name.is_some() || name.is_some() {
            self.version(&edit.base, &self.name(name)?, version)?;
        }
        component::find(self.component.as_deref(), &edit.base)?;
        Ok(edit.base)
    }

    /// Examines the graph, `changed` if that runs; which of the two it is.
    pub(super) fn examine(
        &self,
        given: &Bytes,
        changed: Option<Bytes>,
    ) -> Result<(Examined, Bytes)> {
        let example = self.example.as_deref().map(Example::read).transpose()?;
        let backends = self.inference.backends()?.backends();
        let mut request = LoadRequest {
            backend: self.backend.map(|backend| match backend {
                AskedBackend::Lean => BackendName::Lean,
                AskedBackend::Onnxruntime => BackendName::OnnxRuntime,
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
            "--threads: lean runs this graph, with one thread; --backend onnxruntime has more of them \
             run it"
        );
        Ok((examined, bytes))
    }

    /// The one given, or what becomes of `of_source` in a path.
    pub(super) fn name(&self, of_source: Option<&str>) -> Result<String> {
        let name = self.name.clone().or_else(|| of_source.map(to_name)).unwrap_or_default();
        // It is a folder, a part of a path and of a component's id.
        names::check_model_name(&name).map_err(|problem| {
            let proposed = to_name(&name);
            let proposed = if proposed.is_empty() { "wine".to_owned() } else { proposed };
            anyhow::anyhow!("the model's name {problem}; try --name {proposed}")
        })?;
        Ok(name)
    }

    /// A number that no version has: the one given, or that of the source, or the next.
    pub(super) fn version(&self, base: &Path, name: &str, of_source: Option<u32>) -> Result<u32> {
        let wanted = self.version.or(of_source.filter(|&version| version > 0));
        let folder = base.join("models").join(name);
        let there = match fs::read_dir(&folder) {
            Ok(there) => there.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(wanted.unwrap_or(1));
            }
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        };
        let last: u32 = there.max().unwrap_or(0);
        let next = last.checked_add(1).context("no number is left for a version")?;
        let version = wanted.unwrap_or(next);
        ensure!(
            !folder.join(version.to_string()).exists(),
            "version {version} of {name} is there already, and a version is never overwritten: {}",
            if self.version.is_some() && of_source.is_none() {
                format!("leave out --version, and it is {next}")
            } else {
                format!("give it another number, --version {next}")
            }
        );
        Ok(version)
    }
}

/// In lower case, with a hyphen for whatever is no letter, digit or underscore, and a letter first.
fn to_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
        // Between two words stands one of them.
        let between = matches!(c, '-' | '_');
        if !(between && (name.is_empty() || name.ends_with(['-', '_']))) {
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
    fn a_files_name_becomes_a_models() {
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
