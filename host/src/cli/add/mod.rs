//! `spinfer add`: an ONNX file becomes a version of a model, and a route.
//!
//! What is wrong with the file, the names or the manifest is found before anything is written; what is
//! written is all there, or nothing of it.

pub(super) mod component;
pub(super) mod examine;
pub(crate) mod example;
pub(crate) mod external;
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
use self::model_toml::About;
use self::request::Request;
use self::routing::Routing;
use self::target::AskedBackend;
pub(crate) use self::target::Target;
use super::edit::{Edit, NewComponent};
use super::atomic_files::Made;
use super::signature::{Tensor, list};
use crate::inference::{GRAPH, SIGNATURE, hex};
use crate::config::manifest::names;

#[derive(Debug, Args)]
pub struct Add {
    /// The ONNX file
    file: PathBuf,

    #[command(flatten)]
    target: Target,
}

/// The manifest, unless another is given.
pub(super) const MANIFEST: &str = "spin.toml";

/// A graph that is to be added, and what is known of it.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) bytes: Vec<u8>,
    /// Where it is from, for messages.
    pub(crate) shown: String,
    /// The name of its file, for its provenance.
    pub(crate) file: String,
    /// The SHA-256 of that file, if these are not its bytes.
    pub(crate) file_sha256: Option<String>,
    /// What it is called, unless the command line says otherwise.
    pub(crate) name: Option<String>,
    /// Its number, unless the command line says otherwise.
    pub(crate) version: Option<u32>,
    /// Names of columns, which are the fields if there are as many features.
    pub(crate) columns: Vec<String>,
    /// More of its `[provenance]`.
    pub(crate) provenance: Table,
}

/// Adds a model, telling `out` what was done and how to ask it.
pub fn run(add: &Add, out: &mut impl Write) -> Result<()> {
    let file = add.file.display();
    let mut bytes = fs::read(&add.file).with_context(|| format!("{file}: cannot be read"))?;
    let bundled = side_files::bundle(&add.file, &bytes)
        .with_context(|| format!("{file}: cannot be served"))?;
    let file_sha256 = bundled.as_ref().map(|_| hex(&Sha256::digest(&bytes)));
    if let Some(bundled) = bundled {
        bytes = bundled;
    }
    let text =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
    let graph = Graph {
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

/// Adds a graph, telling `out` what was done and how to ask it.
pub(crate) fn add_graph(graph: Graph, target: &Target, out: &mut impl Write) -> Result<()> {
    let Graph { bytes: given, shown: file, name, version, columns, provenance, .. } = graph;

    // 1 the file: what it takes and gives, and its labels
    let given = Bytes::from(given);
    let given_sha256 = hex(&Sha256::digest(&given));
    let (found, changed) = labels::find(&given);
    let (examined, bytes) = target
        .examine(&given, changed.map(Bytes::from))
        .with_context(|| format!("{file}: cannot be served"))?;
    let labels = choose_labels(found, &target.labels, &examined)?;

    // 2 its place: name, version, component, routes
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

    // 3 the files
    let sha256 = hex(&Sha256::digest(&bytes));
    let file_sha256 = graph.file_sha256.as_deref();
    let about = About {
        name: &name,
        version,
        sha256: &sha256,
        file: &graph.file,
        file_sha256: file_sha256
            .or_else(|| (given_sha256 != sha256).then_some(given_sha256.as_str())),
        labels: labels.as_ref(),
        fields: &target.fields,
        columns: &columns,
        backend: target.backend.map(AskedBackend::name),
        threads: target.threads,
        provenance: &provenance,
    };
    let signature = about.text(&examined)?;
    let text = edit.text()?;
    let mut made = Made::default();
    let contents = [(GRAPH, &*bytes), (SIGNATURE, signature.as_bytes())];
    made.folder_with(&edit.base.join(&folder), &contents)?;
    if let Some(bytes) = &component.copy {
        made.file(&edit.base.join(&component.source), bytes)?;
    }
    let path = routes.path(&name, &version.to_string());
    let request = Request::new(&path, &format!("{name}-{version}"), &edit.base, &examined);
    if let Some((path, body)) = &request.file {
        made.any_file(&edit.base.join(path), body)?;
    }
    made.replace(&edit.path, edit.before.as_deref(), &text)?;
    made.keep();

    // 4 what was done, and how to go on
    let Examined { backend, reason, inputs, outputs, notes, .. } = &examined;
    let (inputs, outputs) = (list(inputs), list(outputs));
    writeln!(out, "Added {name}, version {version} ({backend}): {inputs} -> {outputs}")?;
    writeln!(out, "  backend {backend}: {reason}")?;
    if let Some(labels) = &labels {
        writeln!(out, "  labels  {}", labels.shown())?;
    }
    if given_sha256 != sha256 {
        writeln!(out, "          were strings in {file}; the graph gives their positions now")?;
    }
    if file_sha256.is_some() {
        writeln!(out, "  weights were in files of their own, and are in the graph now")?;
    }
    for note in notes {
        writeln!(out, "  note    {note}")?;
    }
    writeln!(out, "  model   {folder}/{GRAPH}, {folder}/{SIGNATURE}")?;
    routes.tell(out, &name, &id, &edit.path)?;
    Ok(usage(out, &target.from, &request)?)
}

/// How to serve what was added, and what to ask it.
pub(super) fn usage(
    out: &mut impl Write,
    from: &Path,
    Request { line, file }: &Request,
) -> std::io::Result<()> {
    let from =
        if from == Path::new(MANIFEST) { String::new() } else { format!(" -f {}", from.display()) };
    if let Some((file, _)) = file {
        writeln!(out, "  request {file}")?;
    }
    writeln!(out, "Serve it with\n  spinfer up{from}\nand ask\n  {line}")
}

/// The labels of the graph, or those given; numbers for a classifier that has none.
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
            "--labels: the graph has labels itself, {}; leave it out",
            Labels::Names(names.clone()).shown()
        ),
        Some(Labels::Numbers(numbers)) if !numbers.iter().copied().eq(0..numbers.len() as i64) => {
            bail!(
                "--labels: the graph's classes are {}, and labels name the classes 0, 1, 2, ...; leave \
                 it out, and the answers have those numbers",
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

/// Whether an output is a class for each row, and how many numbers for each row are in the other, or in
/// the only one.
fn classifier(examined: &Examined) -> (bool, Option<usize>) {
    let is_class = |output: &&Tensor| {
        let is_integer = !output.is_float() && !matches!(output.datatype, "BOOL" | "BYTES");
        is_integer && output.row() == Some(1)
    };
    let classes = examined.outputs.iter().filter(is_class).count();
    let scores: Vec<_> = examined.outputs.iter().filter(|output| output.is_float()).collect();
    let scores = if let [only] = scores[..] { only.row() } else { None };
    (classes == 1, scores)
}
