//! `spinfer baseline`: a model version's `baseline.json`, made from reference data.
//!
//! What is wrong with the data is found before anything is written; what is written is all there, or
//! nothing of it.

mod columns;
mod folder;
mod run_graph;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tempfile::NamedTempFile;

use self::columns::Reference;
use self::run_graph::Runner;
use crate::drift::BASELINE;
use crate::drift::baseline::{Baseline, BaselineFile, Summary};
use crate::drift::signature::Signature;
use crate::inference::InferenceFlags;

#[derive(Debug, Args)]
pub struct BaselineCommand {
    /// Reference data: a CSV file with a header of the features' names, such as the training data.
    /// Empty cells are missing values; other columns are not looked at
    data: PathBuf,

    /// The model
    #[arg(long, value_name = "NAME")]
    model: String,

    /// Its version, if it has several
    #[arg(long)]
    version: Option<String>,

    /// Overwrite a baseline.json that is there
    #[arg(long)]
    force: bool,

    /// The manifest, or the folder that holds a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    #[command(flatten)]
    inference: InferenceFlags,
}

/// Makes a baseline, and tells `out` what is in it.
pub fn run(command: &BaselineCommand, out: &mut impl Write) -> Result<()> {
    let BaselineCommand { data, model, version, force, from, inference } = command;

    // 1 the version, and what it takes
    let folder = folder::find(from, model, version.as_deref())?;
    let path = folder.join(BASELINE);
    ensure!(
        *force || !path.exists(),
        "{}: is there already, and drift would be told from another; --force overwrites it",
        path.display()
    );
    let signature = Signature::read(&folder)?;
    let missing = |key: &str| format!("{}: model.toml has no `{key}`", folder.display());
    let name = signature.name.clone().with_context(|| missing("name"))?;
    let version = signature.version.clone().with_context(|| missing("version"))?;
    let runner = Runner::load(model, &folder, &inference.backends()?.backends())?;

    // 2 the data, and the graph's outputs for it
    let file = fs::File::open(data).with_context(|| data.display().to_string())?;
    let reference =
        Reference::read(file, &signature, &runner).with_context(|| data.display().to_string())?;
    let rows = reference.rows();
    ensure!(rows > 0, "{}: it has no rows", data.display());
    let strings = reference.strings().join(", ");
    let (features, outputs) = reference.summarize(&signature)?;
    let file = BaselineFile { model: name, version, rows, features, outputs };

    // 3 the file
    let text = to_json(&file)?;
    Baseline::parse(&text, &signature)
        .with_context(|| format!("what was made does not fit {}", folder.display()))?;
    write(&path, &text, *force).with_context(|| path.display().to_string())?;
    let BaselineFile { features, outputs, .. } = &file;
    let (of_features, of_outputs) = (features.len(), outputs.len());
    writeln!(
        out,
        "{}: {rows} rows, {of_features} features, {of_outputs} outputs\nDrift is told from it when \
         the host is started again: spinfer drift",
        path.display()
    )?;
    if !strings.is_empty() {
        writeln!(out, "Not in it, as they are strings: {strings}")?;
    }
    Ok(())
}

/// Writes the file as a whole: whoever reads it meanwhile has the one before, or none.
fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let mut staged = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    staged.write_all(text.as_bytes())?;
    // What is served may be read by another user.
    staged.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    staged.as_file().sync_all()?;
    if force {
        staged.persist(path)?;
    } else {
        staged.persist_noclobber(path)?;
    }
    Ok(())
}

/// As the baselines of the examples are written: a line for each key of a summary.
fn to_json(file: &BaselineFile) -> Result<String> {
    let BaselineFile { model, version, rows, features, outputs } = file;
    let mut text = String::from("{\n");
    let section = |text: &mut String, key: &str, fields: &BTreeMap<String, Summary>| {
        text.push_str(&format!("  {}: {{\n", quoted(key)?));
        for (index, (name, summary)) in fields.iter().enumerate() {
            let summary: BTreeMap<String, serde_json::Value> =
                serde_json::from_value(serde_json::to_value(summary)?)?;
            let lines: Result<Vec<_>> = summary
                .iter()
                .map(|(key, value)| Ok(format!("      {}: {}", quoted(key)?, spaced(value)?)))
                .collect();
            let end = if index + 1 < fields.len() { "," } else { "" };
            let lines = lines?.join(",\n");
            text.push_str(&format!("    {}: {{\n{lines}\n    }}{end}\n", quoted(name)?));
        }
        text.push_str("  },\n");
        anyhow::Ok(())
    };
    section(&mut text, "features", features)?;
    text.push_str(&format!("  \"model\": {},\n", quoted(model)?));
    section(&mut text, "outputs", outputs)?;
    text.push_str(&format!("  \"rows\": {rows},\n  \"version\": {}\n}}\n", quoted(version)?));
    Ok(text)
}

fn quoted(text: &str) -> Result<String> {
    Ok(serde_json::to_string(text)?)
}

/// A list with a space behind each comma.
fn spaced(value: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(value)?;
    let Some(items) = value.as_array() else { return Ok(value.to_string()) };
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    Ok(format!("[{}]", items.join(", ")))
}

#[cfg(test)]
mod tests;
