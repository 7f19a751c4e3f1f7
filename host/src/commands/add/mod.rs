//! `spinfer add`: an ONNX file becomes a version of a model, and a route.
//!
//! What is wrong with the file, the names or the manifest is found before anything is written; what is
//! written is all there, or nothing of it.

pub(super) mod component;
mod curl;
pub(super) mod examine;
pub(crate) mod external;
pub(crate) mod labels;
mod model_toml;
mod onnx;
pub(super) mod routing;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sha2::{Digest, Sha256};
use toml_edit::Table;

use self::examine::{Examined, examine};
use self::labels::Labels;
use self::model_toml::{About, width};
use self::routing::Routing;
use super::edit::{Edit, NewComponent};
use super::files::Made;
use super::signature::list;
use crate::inference::{GRAPH, InferenceFlags, SIGNATURE, hex};

#[derive(Debug, Args)]
pub struct Add {
    /// The ONNX file
    file: PathBuf,

    #[command(flatten)]
    target: Target,
}

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
    routes: Vec<String>,

    /// The classes' names, in the graph's order, if it does not have them: no,yes
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    labels: Vec<String>,

    /// The features' names, in the graph's order: tables are then read by column name
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    fields: Vec<String>,

    /// Put it in production: it takes over the model's plain route, and these --route, from the version
    /// that has them
    #[arg(long)]
    promote: bool,

    /// The component that serves it [default: the generic one that comes with spinfer]
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,

    /// The manifest, or the folder that holds a spin.toml; made if there is none
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = MANIFEST)]
    from: PathBuf,

    #[command(flatten)]
    inference: InferenceFlags,
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
    let bytes = fs::read(&add.file).with_context(|| format!("{file}: cannot be read"))?;
    let text =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
    let graph = Graph {
        bytes,
        shown: file.to_string(),
        file: text(add.file.file_name()).unwrap_or_else(|| GRAPH.to_owned()),
        file_sha256: None,
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
    let given_sha256 = hex(&Sha256::digest(&given));
    let (found, bytes) =
        labels::find(given).with_context(|| format!("{file}: cannot be served"))?;
    let examined = examine(&bytes, &target.inference.backends()?.backends())
        .with_context(|| format!("{file}: cannot be served"))?;
    let labels = choose_labels(found, &target.labels, &examined)?;

    // 2 its place: name, version, component, routes
    let mut edit = Edit::open(&target.from)?;
    let name = target.name(name.as_deref())?;
    let version = target.version(&edit.base, &name, version)?;
    let id = format!("{name}-{version}");
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
    made.replace(&edit.path, edit.before.as_deref(), &text)?;
    made.keep();

    // 4 what was done, and how to go on
    let Examined { backend, inputs, outputs, not_run, .. } = &examined;
    let (inputs, outputs) = (list(inputs), list(outputs));
    writeln!(out, "Added {name}, version {version} ({backend}): {inputs} -> {outputs}")?;
    if let Some(labels) = &labels {
        writeln!(out, "  labels  {}", labels.shown())?;
    }
    if given_sha256 != sha256 {
        writeln!(out, "          were strings in {file}; the graph gives their positions now")?;
    }
    if let Some(why) = not_run {
        writeln!(out, "  shapes  as the graph declares them, as it could not be run: {why}")?;
    }
    writeln!(out, "  model   {folder}/{GRAPH}, {folder}/{SIGNATURE}")?;
    routes.tell(out, &name, &id, &edit.path)?;
    let version = version.to_string();
    Ok(usage(out, &target.from, &routes.path(&name, &version), &examined)?)
}

/// How to serve what was added, and what to ask it at `path`.
pub(super) fn usage(
    out: &mut impl Write,
    from: &Path,
    path: &str,
    examined: &Examined,
) -> std::io::Result<()> {
    let from =
        if from == Path::new(MANIFEST) { String::new() } else { format!(" -f {}", from.display()) };
    let curl = curl::line(path, examined);
    writeln!(out, "Serve it with\n  spinfer up{from}\nand ask\n  {curl}")
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

    /// The one given, or what becomes of `of_source` in a path.
    fn name(&self, of_source: Option<&str>) -> Result<String> {
        let name = self.name.clone().or_else(|| of_source.map(to_name)).unwrap_or_default();
        // It is a folder, a part of a path and of a component's id.
        crate::manifest::names::check_component_id(&name).map_err(|problem| {
            let proposed = to_name(&name);
            let proposed = if proposed.is_empty() { "wine".to_owned() } else { proposed };
            anyhow::anyhow!("the model's name {problem}; try --name {proposed}")
        })?;
        Ok(name)
    }

    /// A number that no version has: the one given, or that of the source, or the next.
    fn version(&self, base: &Path, name: &str, of_source: Option<u32>) -> Result<u32> {
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

/// In lower case, with a hyphen for whatever is no letter or digit.
fn to_name(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
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
    let is_integer = |datatype| matches!(datatype, "UINT8" | "INT32" | "INT64");
    let (classes, others): (Vec<_>, Vec<_>) = examined
        .outputs
        .iter()
        .partition(|output| is_integer(output.datatype) && width(output) == Some(1));
    let scores = if let [only] = others[..] { width(only) } else { None };
    (classes.len() == 1, scores)
}
