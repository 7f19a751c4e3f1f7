//! `spinfer pull`: a model from elsewhere becomes a version, and a route, as with `spinfer add`.

use std::env;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::add::{Graph, Target, add_graph};
use crate::registry::mlflow::client::Client;
use crate::registry::mlflow::settings::INSECURE_TLS;
use crate::registry::mlflow::{Fetched, Locator, Settings, Source};

#[derive(Debug, Args)]
pub struct Pull {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Add a model of MLflow that has the ONNX flavor
    Mlflow(Mlflow),
}

const EXAMPLES: &str = "\
Examples:
  spinfer pull mlflow models:/iris/3              a registered version
  spinfer pull mlflow models:/iris@champion       the version an alias points at
  spinfer pull mlflow models:/iris/latest         the version with the highest number
  spinfer pull mlflow runs:/<run id>/model        what a run logged
  spinfer pull mlflow models:/m-<model id>        a logged model
  spinfer pull mlflow ./model                     a folder that holds an MLmodel

To sign in, set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Mlflow {
    /// Which model: a URI of MLflow, or a folder
    source: Source,

    /// The tracking server [default: that of MLFLOW_TRACKING_URI]
    #[arg(long, value_name = "URL")]
    tracking_uri: Option<String>,

    #[command(flatten)]
    target: Target,
}

/// Adds a model from elsewhere, telling `out` what was done and how to ask it.
pub fn run(pull: &Pull, out: &mut impl Write) -> Result<()> {
    let From::Mlflow(options) = &pull.from;
    let Mlflow { source, tracking_uri, target } = options;
    let variable = |name: &str| env::var(name).ok();
    let client = match source {
        Source::Folder(_) => None,
        _ => Some(Client::new(Settings::read(tracking_uri.as_deref(), variable)?)?),
    };
    if client.is_some() && variable(INSECURE_TLS).is_some_and(|value| is_true(&value)) {
        writeln!(
            std::io::stderr(),
            "{INSECURE_TLS} is not honoured: certificates are checked; SSL_CERT_FILE names a file of \
             those to trust"
        )?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let graph = runtime.block_on(fetch(&Locator { client }, source, target))?;
    add_graph(graph, target, out)
}

/// Whatever can be wrong with the name, the version or the manifest is, before anything is downloaded.
async fn fetch(locator: &Locator, source: &Source, target: &Target) -> Result<Graph> {
    let located = locator.locate(source).await?;
    let (name, version) = (located.name.clone(), located.version);
    let base = target.check(name.as_deref(), version)?;
    // Where the version will be, if that is there: what is large needs room there anyway.
    let system = env::temp_dir();
    let scratch: &Path = if base.is_dir() { &base } else { &system };
    let fetched = located.fetch(scratch).await.with_context(|| source.to_string())?;
    let Fetched { graph: bytes, file, inlined, columns, provenance } = fetched;
    Ok(Graph {
        bytes,
        shown: source.to_string(),
        file,
        file_sha256: inlined,
        name,
        version,
        columns,
        provenance,
    })
}

/// As MLflow reads its variables.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1")
}
