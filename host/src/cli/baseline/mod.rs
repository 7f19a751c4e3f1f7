//! `spinfer baseline`: computes a model version's `baseline.json` from reference data.
//!
//! The data is checked before anything is written, and the file is written atomically.

mod calibrate;
mod columns;
mod folder;
mod run_graph;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use spinfer_model_toml::ModelToml;
use spinfer_statistics::expected_accuracy::Calibration;

use self::columns::ReferenceColumns;
use self::run_graph::Runner;
use crate::drift::BASELINE;
use crate::drift::baseline::{Baseline, BaselineFile, CalibrationEntry, Summary};
use crate::inference::{self, InferenceFlags};
use crate::process::atomic_file::{self, Existing, READABLE};

#[derive(Debug, Args)]
pub struct BaselineOptions {
    /// Reference data, such as the training data: a CSV file with a header of feature names. Empty cells
    /// are missing values; other columns are ignored
    data: PathBuf,

    /// Name of the model
    #[arg(long, value_name = "NAME")]
    model: String,

    /// Version of the model, if it has several
    #[arg(long)]
    version: Option<String>,

    /// Column with the true class of each row: accuracy is then expected without labels. Of a version
    /// with a baseline, only the calibration is added to it
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,

    /// Overwrite an existing baseline.json
    #[arg(long)]
    force: bool,

    /// Manifest, or the folder with a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    #[command(flatten)]
    inference: InferenceFlags,
}

/// Computes a baseline, and prints a summary to `out`.
///
/// # Errors
/// If the model or the data cannot be read, the data does not match the model's features, or a
/// baseline exists.
pub fn run(command: &BaselineOptions, out: &mut impl Write) -> Result<()> {
    let BaselineOptions { data, model, version, label, force, from, inference } = command;

    // 1 Load the model version.
    let folder = folder::find(from, model, version.as_deref())?;
    let path = folder.join(BASELINE);
    let existing = if *force { None } else { existing(&path, label.is_some())? };
    let declared = inference::declared(&folder)?;
    let (name, version) = (declared.name.clone(), declared.version.clone());
    let runner = Runner::load(model, &folder, &inference.backends()?.backends())?;

    // 2 Read the data, and run the graph on it.
    let file = File::open(data).with_context(|| data.display().to_string())?;
    let reference = ReferenceColumns::read(file, &declared, &runner, label.as_deref())
        .with_context(|| data.display().to_string())?;
    let rows = reference.rows();
    ensure!(rows > 0, "{}: the file has no rows", data.display());
    let strings = reference.strings().join(", ");
    let calibration = reference.calibrate(&declared).with_context(|| data.display().to_string())?;
    if let Some((text, calibration)) = existing.zip(calibration.as_ref()) {
        let text = with_calibration(&text, calibration)?;
        return add_calibration(&path, &text, &declared, calibration, out);
    }
    let (features, outputs) = reference.summarize(&declared)?;
    let file = BaselineFile { model: name, version, rows, features, outputs, calibration };

    // 3 Write the baseline.
    let text = to_json(&file)?;
    Baseline::parse(&text, &declared)
        .with_context(|| format!("the baseline does not match {}", folder.display()))?;
    write(&path, &text, *force).with_context(|| path.display().to_string())?;
    let BaselineFile { features, outputs, calibration, .. } = &file;
    let (of_features, of_outputs) = (features.len(), outputs.len());
    writeln!(
        out,
        "{}: {rows} rows, {of_features} features, {of_outputs} outputs\nRestart the host to use it: \
         spinfer drift",
        path.display()
    )?;
    if let Some(CalibrationEntry { fitted: Calibration { rows, accuracy, .. }, .. }) = calibration {
        writeln!(out, "Calibrated on {rows} rows with labels; accuracy {accuracy:.3}")?;
    }
    if !strings.is_empty() {
        writeln!(out, "Skipped string columns: {strings}")?;
    }
    Ok(())
}

/// The text of the baseline at `path`, to which a calibration can be added; `None` if there is none.
fn existing(path: &Path, labelled: bool) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    ensure!(
        labelled,
        "{}: already exists, and drift is computed against it; add --force to overwrite it, or --label \
         <COLUMN> to add a calibration to it",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file: BaselineFile<serde_json::Value> =
        serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    ensure!(
        file.calibration.is_none(),
        "{}: already has a calibration; add --force to overwrite the whole file",
        path.display()
    );
    Ok(Some(text))
}

/// The text of a baseline with a calibration, and with the same reference.
fn with_calibration(text: &str, calibration: &CalibrationEntry) -> Result<String> {
    let rest = text.trim_start().strip_prefix('{').context("the file is not a JSON object")?;
    Ok(format!("{{\n{}{}", calibration_text(calibration)?, rest.trim_start_matches(['\r', '\n'])))
}

/// Writes the `text` of a baseline to which the calibration was added.
fn add_calibration(
    path: &Path,
    text: &str,
    declared: &ModelToml,
    calibration: &CalibrationEntry,
    out: &mut impl Write,
) -> Result<()> {
    Baseline::parse(text, declared).with_context(|| path.display().to_string())?;
    write(path, text, true).with_context(|| path.display().to_string())?;
    let Calibration { rows, accuracy, .. } = &calibration.fitted;
    writeln!(
        out,
        "{}: added a calibration; the reference for drift is unchanged\nRestart the host to use it: \
         spinfer drift\nCalibrated on {rows} rows with labels; accuracy {accuracy:.3}",
        path.display()
    )?;
    Ok(())
}

fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let existing = if force { Existing::Replace } else { Existing::Keep };
    Ok(atomic_file::write(path, text.as_bytes(), READABLE, existing)?)
}

/// The JSON text, in the style of the examples' baselines: a line for each key of a summary.
fn to_json(file: &BaselineFile) -> Result<String> {
    let BaselineFile { model, version, rows, features, outputs, calibration } = file;
    let mut text = String::from("{\n");
    if let Some(calibration) = calibration {
        text.push_str(&calibration_text(calibration)?);
    }
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

/// The member `calibration`, with a comma.
fn calibration_text(calibration: &CalibrationEntry) -> Result<String> {
    let CalibrationEntry { class, probabilities, fitted } = calibration;
    let Calibration { rows, accuracy, classes } = fitted;
    let lines = classes.iter().map(|class| Ok(format!("      {}", serde_json::to_string(class)?)));
    let lines = lines.collect::<Result<Vec<_>>>()?.join(",\n");
    Ok(format!(
        "  \"calibration\": {{\n    \"accuracy\": {accuracy:?},\n    \"class\": {},\n    \"classes\": \
         [\n{lines}\n    ],\n    \"probabilities\": {},\n    \"rows\": {rows}\n  }},\n",
        quoted(class)?,
        quoted(probabilities)?
    ))
}

fn quoted(text: &str) -> Result<String> {
    Ok(serde_json::to_string(text)?)
}

/// A JSON value; a list with a space after each comma.
fn spaced(value: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(value)?;
    let Some(items) = value.as_array() else { return Ok(value.to_string()) };
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    Ok(format!("[{}]", items.join(", ")))
}

#[cfg(test)]
mod tests;
