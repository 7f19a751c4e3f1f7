//! `spinfer add`: adds an ONNX file to an application as a model version with a route.
//!
//! The file, the names and the manifest are checked before anything is written, and all files are
//! written or none.

pub(super) mod component;
pub(super) mod examine;
pub(crate) mod example;
pub(crate) mod external;
mod formats;
pub(crate) mod labels;
mod model_toml;
pub(super) mod request;
pub(super) mod routing;
mod side_files;
mod target;

mod axes;
mod onnx;
mod shapes;
mod trials;
mod uses;
pub(super) mod values;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use sha2::{Digest, Sha256};
use toml_edit::Table;

use self::examine::Examined;
use self::labels::Labels;
use self::model_toml::ModelTomlParts;
use self::request::Request;
use self::routing::Routing;
pub(crate) use self::target::ModelTarget;
use self::target::RequestedBackend;
use super::atomic_files::FileTransaction;
use super::edit::{Edit, NewComponent};
use super::signature::{DeclaredTensor, list};
use crate::config::manifest::names;
use crate::inference::{GRAPH, SIGNATURE, hex};

#[derive(Debug, Args)]
pub struct AddOptions {
    /// ONNX file to add
    file: PathBuf,

    #[command(flatten)]
    target: ModelTarget,
}

/// Default path of the manifest.
pub(super) const MANIFEST: &str = "spin.toml";

/// A graph to add, and where it comes from.
#[derive(Debug)]
pub(crate) struct CandidateGraph {
    pub(crate) bytes: Vec<u8>,
    /// Source of the graph, for messages.
    pub(crate) shown: String,
    /// File name, for `[provenance]`.
    pub(crate) file: String,
    /// SHA-256 of the original file, if `bytes` differ from it.
    pub(crate) file_sha256: Option<String>,
    /// Model name, if the source has one; `--name` overrides it.
    pub(crate) name: Option<String>,
    /// Version number, if the source has one; `--version` overrides it.
    pub(crate) version: Option<u32>,
    /// Column names of the training data: the feature names, if their number matches.
    pub(crate) columns: Vec<String>,
    /// Further keys of `[provenance]`.
    pub(crate) provenance: Table,
}

/// Adds an ONNX file, and prints to `out` what was added and how to send a request.
///
/// # Errors
/// If the file cannot be served, or a name, version, route or component is not available.
pub fn run(add: &AddOptions, out: &mut impl Write) -> Result<()> {
    let file = add.file.display();
    if let Some(problem) = add.file.exists().then(|| formats::conversion(&add.file)).flatten() {
        bail!("{file}: {problem}");
    }
    let mut bytes = fs::read(&add.file).with_context(|| format!("{file}: cannot be read"))?;
    let bundled = side_files::bundle(&add.file, &bytes)
        .with_context(|| format!("{file}: cannot be served"))?;
    let file_sha256 = bundled.as_ref().map(|_| hex(&Sha256::digest(&bytes)));
    if let Some(bundled) = bundled {
        bytes = bundled;
    }
    let text =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
    let graph = CandidateGraph {
        bytes,
        shown: file.to_string(),
        file: text(add.file.file_name()).unwrap_or_else(|| GRAPH.to_owned()),
        file_sha256,
        name: text(add.file.file_stem()),
        version: None,
        columns: Vec::new(),
        provenance: Table::new(),
    };
    add_graph(graph, &add.target, out)
}

/// Adds a graph, and prints to `out` what was added and how to send a request.
pub(crate) fn add_graph(
    graph: CandidateGraph,
    target: &ModelTarget,
    out: &mut impl Write,
) -> Result<()> {
    let CandidateGraph { bytes: given, shown: file, name, version, columns, provenance, .. } =
        graph;

    // 1 Examine the graph: inputs, outputs and labels.
    let given = Bytes::from(given);
    let given_sha256 = hex(&Sha256::digest(&given));
    let (found, changed) = labels::find(&given);
    let (examined, bytes) = target
        .examine(&given, changed.map(Bytes::from))
        .with_context(|| format!("{file}: cannot be served"))?;
    let labels = choose_labels(found, &target.labels, &examined)?;

    // 2 Edit the manifest: name, version, component and routes.
    let mut edit = Edit::open(&target.from)?;
    let name = target.name(name.as_deref())?;
    let version = target.version(&edit.base, &name, version)?;
    let id = names::component_id(&name, version);
    let component = component::find(target.component.as_deref(), &edit.base)?;
    let folder = format!("models/{name}/{version}");
    let routing = Routing { routes: &target.routes, promote: target.promote };
    let routes = routing.route(&mut edit, &name, &version.to_string(), &id)?;
    edit.add_component(&NewComponent {
        id: &id,
        source: &component.source,
        model: (&name, &folder),
        build: None,
    })?;

    // 3 Write the files.
    let sha256 = hex(&Sha256::digest(&bytes));
    let file_sha256 = graph.file_sha256.as_deref();
    let about = ModelTomlParts {
        name: &name,
        version,
        sha256: &sha256,
        file: &graph.file,
        file_sha256: file_sha256
            .or_else(|| (given_sha256 != sha256).then_some(given_sha256.as_str())),
        labels: labels.as_ref(),
        fields: &target.fields,
        columns: &columns,
        backend: target.backend.map(RequestedBackend::name),
        threads: target.threads,
        provenance: &provenance,
    };
    let signature = about.text(&examined)?;
    let text = edit.text()?;
    let mut files = FileTransaction::default();
    let contents = [(GRAPH, &*bytes), (SIGNATURE, signature.as_bytes())];
    files.create_folder_with(&edit.base.join(&folder), &contents)?;
    component.write(&edit.base, &mut files)?;
    let path = routes.path(&name, &version.to_string());
    let request = Request::new(&path, &format!("{name}-{version}"), &edit.base, &examined);
    if let Some((path, body)) = &request.file {
        files.write_file(&edit.base.join(path), body)?;
    }
    files.replace(&edit.path, edit.before.as_deref(), &text)?;
    files.commit();

    // 4 Report what was added and the next steps.
    let Examined { backend, reason, inputs, outputs, notes, .. } = &examined;
    let (inputs, outputs) = (list(inputs), list(outputs));
    writeln!(out, "Added {name}, version {version} ({backend}): {inputs} -> {outputs}")?;
    writeln!(out, "  backend {backend}: {reason}")?;
    if let Some(labels) = &labels {
        writeln!(out, "  labels  {}", labels.shown())?;
    }
    if given_sha256 != sha256 {
        writeln!(out, "          strings in {file}; the added graph returns class indices")?;
    }
    if file_sha256.is_some() {
        writeln!(out, "  weights merged into the graph from external data files")?;
    }
    for note in notes {
        writeln!(out, "  note    {note}")?;
    }
    writeln!(out, "  model   {folder}/{GRAPH}, {folder}/{SIGNATURE}")?;
    component.print(out)?;
    routes.print(out, &name, &id, &edit.path)?;
    Ok(print_next_steps(out, &target.from, &request)?)
}

/// Prints how to serve the model and a request for it.
pub(super) fn print_next_steps(
    out: &mut impl Write,
    from: &Path,
    Request { line, file }: &Request,
) -> std::io::Result<()> {
    let from =
        if from == Path::new(MANIFEST) { String::new() } else { format!(" -f {}", from.display()) };
    if let Some((file, _)) = file {
        writeln!(out, "  request {file}")?;
    }
    writeln!(out, "Serve it:\n  spinfer up{from}\nSend a request:\n  {line}")
}

/// The labels found in the graph, or the given ones; class numbers for a classifier without labels.
fn choose_labels(
    found: Option<Labels>,
    given: &[String],
    examined: &Examined,
) -> Result<Option<Labels>> {
    let (classes, scores) = classifier(examined);
    let scores = scores.filter(|&width| width > 1);
    if given.is_empty() {
        let numbers = || Some(Labels::Numbers((0..i64::try_from(scores?).ok()?).collect()));
        let labels = found.or_else(|| if classes { numbers() } else { None });
        return Ok(labels);
    }
    match &found {
        Some(Labels::Names(names)) if names != given => bail!(
            "--labels: the graph already has labels, {}; omit --labels",
            Labels::Names(names.clone()).shown()
        ),
        Some(Labels::Numbers(numbers)) if !numbers.iter().copied().eq(0..numbers.len() as i64) => {
            bail!(
                "--labels: the graph's classes are {}, but labels name the classes 0, 1, 2, ...; omit \
                 --labels to return the class numbers",
                Labels::Numbers(numbers.clone()).shown()
            )
        }
        _ => {}
    }
    let expected = found.as_ref().map(Labels::len).or(scores);
    ensure!(
        expected.is_none_or(|expected| expected == given.len()),
        "--labels: {} labels for {} classes",
        given.len(),
        expected.unwrap_or_default()
    );
    Ok(Some(Labels::Names(given.to_vec())))
}

/// Whether exactly one output holds one class per row, and the elements per row of the only
/// floating-point output.
fn classifier(examined: &Examined) -> (bool, Option<usize>) {
    let is_class = |output: &&DeclaredTensor| {
        let is_integer = !output.is_float() && !matches!(output.datatype, "BOOL" | "BYTES");
        is_integer && output.row() == Some(1)
    };
    let classes = examined.outputs.iter().filter(is_class).count();
    let scores: Vec<_> = examined.outputs.iter().filter(|output| output.is_float()).collect();
    let scores = if let [only] = scores[..] { only.row() } else { None };
    (classes == 1, scores)
}
