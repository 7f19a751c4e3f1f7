//! `spinfer pull`: adds a model from another system as `spinfer add` adds a file.

use std::env;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::add::{CandidateGraph, ModelTarget, add_graph};
use crate::registry::mlflow::client::MlflowClient;
use crate::registry::mlflow::settings::INSECURE_TLS;
use crate::registry::mlflow::{FetchedGraph, Locator, MlflowSettings, ModelSource};

#[derive(Debug, Args)]
pub struct PullOptions {
    #[command(subcommand)]
    from: PullSource,
}

#[derive(Debug, Subcommand)]
enum PullSource {
    /// Add an MLflow model with the ONNX flavor
    Mlflow(MlflowOptions),
}

const EXAMPLES: &str = "\
Examples:
  spinfer pull mlflow models:/iris/3              a registered version
  spinfer pull mlflow models:/iris@champion       the version of an alias
  spinfer pull mlflow models:/iris/latest         the version with the highest number
  spinfer pull mlflow runs:/<run id>/model        a model logged by a run
  spinfer pull mlflow models:/m-<model id>        a logged model, by its id
  spinfer pull mlflow ./model                     a folder with an MLmodel

To authenticate, set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct MlflowOptions {
    /// Model: an MLflow URI, or a folder
    source: ModelSource,

    /// URL of the tracking server [default: MLFLOW_TRACKING_URI]
    #[arg(long, value_name = "URL")]
    tracking_uri: Option<String>,

    #[command(flatten)]
    target: ModelTarget,
}

/// Fetches a model and adds it; prints to `out` what was added and how to send a request.
///
/// # Errors
/// If the model cannot be fetched or served, or a name, version or route is not available.
pub fn run(pull: &PullOptions, out: &mut impl Write) -> Result<()> {
    let PullSource::Mlflow(options) = &pull.from;
    let MlflowOptions { source, tracking_uri, target } = options;
    let variable = |name: &str| env::var(name).ok();
    let client = match source {
        ModelSource::Folder(_) => None,
        _ => Some(MlflowClient::new(MlflowSettings::read(tracking_uri.as_deref(), variable)?)?),
    };
    if client.is_some() && variable(INSECURE_TLS).is_some_and(|value| is_true(&value)) {
        writeln!(
            std::io::stderr(),
            "{INSECURE_TLS} is not honoured: certificates are always verified; set SSL_CERT_FILE to a \
             file of certificates to trust"
        )?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let graph = runtime.block_on(fetch(&Locator { client }, source, target))?;
    add_graph(graph, target, out)
}

/// Locates and downloads a model. The name, the version and the manifest are checked first.
async fn fetch(
    locator: &Locator,
    source: &ModelSource,
    target: &ModelTarget,
) -> Result<CandidateGraph> {
    let located = locator.locate(source).await?;
    let (name, version) = (located.name.clone(), located.version);
    let base = target.check(name.as_deref(), version)?;
    // A large model is downloaded to the application's file system, which needs the space anyway.
    let system = env::temp_dir();
    let scratch: &Path = if base.is_dir() { &base } else { &system };
    let fetched = located.fetch(scratch).await.with_context(|| source.to_string())?;
    let FetchedGraph { graph: bytes, file, inlined, columns, provenance } = fetched;
    Ok(CandidateGraph {
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

/// Whether MLflow reads the value of a variable as true.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1")
}
