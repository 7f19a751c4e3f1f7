//! Reads the columns of a CSV file, and collects the graph's outputs for its rows.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;
use spinfer_backend::{Tensor, TensorType};
use spinfer_model_toml::{ModelToml, TensorEntry, row};

use super::calibrate::LabelColumn;
use super::run_graph::{Numbers, OutputColumn, Runner};
use crate::cli::add::values::{put_float, put_integer, put_string};
use crate::drift::baseline::{
    CalibrationEntry, PresentValues, Summary, summarize_categories, summarize_numbers,
};
use crate::drift::signature;
use crate::inference::datatype;
use crate::process::text::shortened;

/// Maximum number of values held in memory, rows times features and outputs, of 4 or 8 bytes each: the
/// deciles need all of them. A random sample of 100,000 rows gives deciles with an error of about 0.1 %.
const MAX_VALUES: u64 = 20_000_000;

/// Of axes that do not include the one of rows.
const NO_BATCH_AXIS: usize = usize::MAX;

/// Summaries by name.
type Summaries = BTreeMap<String, Summary>;

/// The values of all features and outputs.
#[derive(Debug)]
pub(super) struct ReferenceColumns {
    rows: u64,
    features: Vec<Feature>,
    /// Outputs in the order of the graph.
    outputs: Vec<(String, Numbers)>,
    labels: Option<LabelColumn>,
}

/// A column of the file, which is an element of an input.
#[derive(Debug)]
struct Feature {
    name: String,
    /// Index of the column in the file.
    column: usize,
    values: Numbers,
}

/// An input of the graph, and the rows of the next run.
struct GraphInput {
    name: String,
    ty: TensorType,
    /// Dimensions of one row, without the first axis.
    dimensions: Vec<u32>,
    /// Index of its first element in `features`.
    first: usize,
    /// Number of elements of one row.
    width: usize,
    /// Whether it has an axis of rows.
    rows: bool,
    data: Vec<u8>,
}

impl ReferenceColumns {
    pub(super) fn read(
        file: impl Read,
        model: &ModelToml,
        runner: &Runner,
        label: Option<&str>,
    ) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
        let header = reader.headers()?.clone();
        let (mut features, mut inputs) = columns(model, runner, &header)?;
        let per_row = features.len() as u64 + expected_outputs(model);
        let batch = runner.batch();
        let labels = label.map(|name| LabelColumn::find(name, &header, model)).transpose()?;
        let mut reference = Self { rows: 0, features: Vec::new(), outputs: Vec::new(), labels };
        let mut pending = 0;
        let mut record = StringRecord::new();
        while reader.read_record(&mut record)? {
            reference.rows += 1;
            ensure!(
                reference.rows.saturating_mul(per_row) <= MAX_VALUES,
                "the file has more than {} rows, which with the outputs exceeds the limit of \
                 {MAX_VALUES} values; use a random sample of 100,000 rows",
                MAX_VALUES / per_row.max(1)
            );
            let line = record.position().map_or(0, csv::Position::line);
            let pushed = push(&record, &mut features, &mut inputs);
            // A row with a missing integer cannot be run: its outputs are missing too.
            let complete = pushed.with_context(|| format!("line {line}"))?;
            if let Some(labels) = reference.labels.as_mut().filter(|_| complete) {
                labels.push(&record).with_context(|| format!("line {line}"))?;
            }
            pending += usize::from(complete);
            if pending == batch {
                reference.run(runner, &mut inputs, pending)?;
                pending = 0;
            }
        }
        if pending > 0 {
            reference.run(runner, &mut inputs, pending)?;
        }
        reference.features = features;
        Ok(reference)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    fn run(&mut self, runner: &Runner, inputs: &mut [GraphInput], rows: usize) -> Result<()> {
        let tensors =
            inputs.iter_mut().map(|input| input.take(rows)).collect::<Result<Vec<_>>>()?;
        let columns = runner
            .run(tensors, rows)
            .with_context(|| format!("the graph failed on the rows up to {}", self.rows))?;
        if self.outputs.is_empty() {
            self.outputs = columns.into_iter().map(|c| (c.name, c.values)).collect();
            return Ok(());
        }
        ensure!(
            columns.len() == self.outputs.len(),
            "the width of the graph's outputs differs between rows"
        );
        for ((name, values), OutputColumn { values: more, .. }) in
            self.outputs.iter_mut().zip(columns)
        {
            ensure!(values.append(more), "the type of the output `{name}` differs between rows");
        }
        Ok(())
    }

    /// The calibration, if there are labels.
    pub(super) fn calibrate(&self, model: &ModelToml) -> Result<Option<CalibrationEntry>> {
        let labels = self.labels.as_ref();
        labels.map(|labels| labels.calibrate(&self.outputs, model)).transpose()
    }

    /// Columns of strings, which are not in a baseline.
    pub(super) fn strings(&self) -> Vec<&str> {
        let strings = self.features.iter().filter(|f| matches!(f.values, Numbers::Text(_)));
        strings.map(|feature| feature.name.as_str()).collect()
    }

    /// The summaries of the features, and of the outputs.
    pub(super) fn summarize(self, model: &ModelToml) -> Result<(Summaries, Summaries)> {
        let classes = signature::classes(model);
        let rows = self.rows;
        let numbers = |feature: &Feature| !matches!(feature.values, Numbers::Text(_));
        let features = self.features.into_iter().filter(numbers);
        let features = features.map(|Feature { name, values, .. }| {
            let summary = summarize(values, rows, None)?;
            Ok((name, summary))
        });
        let features = features.collect::<Result<_>>()?;
        let outputs = self.outputs.into_iter().map(|(name, values)| {
            // One integer per row in a model with labels is a class.
            let is_class = matches!(values, Numbers::Integer(_))
                && model.outputs.iter().any(|output| output.name == name);
            let classes = (is_class && !classes.is_empty()).then_some(&*classes);
            let summary =
                summarize(values, rows, classes).with_context(|| format!("the output `{name}`"))?;
            Ok((name, summary))
        });
        Ok((features, outputs.collect::<Result<_>>()?))
    }
}

/// Number of output values per row, as `model.toml` declares them.
fn expected_outputs(model: &ModelToml) -> u64 {
    model.outputs.iter().filter_map(TensorEntry::row).map(|width| width as u64).sum()
}

fn summarize(values: Numbers, rows: u64, classes: Option<&[i64]>) -> Result<Summary> {
    Ok(match values {
        Numbers::Single(mut values) => {
            values.retain(|x| !x.is_nan());
            let missing = rows - values.len() as u64;
            summarize_numbers(PresentValues::Single(values), missing)
        }
        Numbers::Double(mut values) => {
            values.retain(|x| !x.is_nan());
            let missing = rows - values.len() as u64;
            summarize_numbers(PresentValues::Double(values), missing)
        }
        Numbers::Text(_) => bail!("strings have no summary"),
        Numbers::Integer(values) => {
            let missing = rows - values.len() as u64;
            match classes {
                Some(classes) => {
                    summarize_categories(&values, missing, classes).map_err(|value| {
                        anyhow::anyhow!("{value} is not one of the classes named by `labels`")
                    })?
                }
                None => {
                    let values = values.into_iter().map(|x| x as f64).collect();
                    summarize_numbers(PresentValues::Double(values), missing)
                }
            }
        }
    })
}

/// Maps columns of the file to elements of the inputs.
fn columns(
    model: &ModelToml,
    runner: &Runner,
    header: &StringRecord,
) -> Result<(Vec<Feature>, Vec<GraphInput>)> {
    let (mut features, mut inputs, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    ensure!(
        model.inputs.len() == runner.inputs().len(),
        "the model has {} inputs, but its graph {}: the component preprocesses them, and this command \
         runs the graph alone",
        model.inputs.len(),
        runner.inputs().len()
    );
    for tensor in &model.inputs {
        let (ty, names) = check_input(tensor, runner)?;
        let values = match ty {
            TensorType::Fp32 | TensorType::Fp16 | TensorType::Bf16 => Numbers::Single(Vec::new()),
            TensorType::Fp64 => Numbers::Double(Vec::new()),
            TensorType::String => Numbers::Text(String::new()),
            _ => Numbers::Integer(Vec::new()),
        };
        // The size of a free axis is the number of fields.
        let axes = match tensor.shape.get(1..) {
            Some(axes) if row(axes, NO_BATCH_AXIS) == Some(names.len()) => axes.to_vec(),
            _ => vec![i64::try_from(names.len())?],
        };
        inputs.push(GraphInput {
            name: tensor.name.clone(),
            ty,
            dimensions: axes.iter().map(|&axis| Ok(u32::try_from(axis)?)).collect::<Result<_>>()?,
            first: features.len(),
            width: names.len(),
            rows: !tensor.shape.is_empty(),
            data: Vec::new(),
        });
        for name in names {
            let mut found = header.iter().enumerate().filter(|(_, other)| *other == name);
            let column = found.next().map(|(column, _)| column);
            ensure!(found.next().is_none(), "the header has the column `{name}` twice");
            match column {
                Some(column) => features.push(Feature { name, column, values: values.clone() }),
                None => missing.push(name),
            }
        }
    }
    check_missing(&missing, model, header)?;
    Ok((features, inputs))
}

/// The type of an input, and the names of its elements, if rows of a table can be its rows.
fn check_input(tensor: &TensorEntry, runner: &Runner) -> Result<(TensorType, Vec<String>)> {
    let name = &tensor.name;
    let info = runner.input(name).with_context(|| {
        format!(
            "the graph has no input `{name}`: the component preprocesses it, and this command runs the \
             graph alone"
        )
    })?;
    ensure!(
        tensor.datatype == datatype(info.ty),
        "the input `{name}` is {}, but {} in the graph: the component converts it, and this command \
         runs the graph alone",
        tensor.datatype,
        datatype(info.ty)
    );
    ensure!(
        tensor.batch_axis == 0,
        "the rows of the input `{name}` are along its axis {}; a baseline needs rows along axis 0",
        tensor.batch_axis
    );
    let names = signature::names_of(tensor).with_context(|| {
        format!(
            "the input `{name}` has the shape {:?}; a table can only have rows with one number for each \
             of at most 256 features",
            tensor.shape
        )
    })?;
    Ok((info.ty, names))
}

/// Fails if columns are missing in the file.
fn check_missing(missing: &[String], model: &ModelToml, header: &StringRecord) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let (missing, found) = (listed(missing), listed(header));
    if let Some(unnamed) = model.inputs.iter().find(|input| input.fields.is_empty()) {
        bail!(
            "there is no column {missing}; found {found}. The model's features have no names: in its \
             model.toml, add fields = [...] in the order of the graph to the [[inputs]] of {}, or add \
             the model with --fields",
            unnamed.name
        );
    }
    let names = model.inputs.iter().filter_map(signature::names_of).flatten();
    bail!("there is no column {missing}; expected {}, found {found}", listed(names))
}

/// The first few names, for a message.
pub(super) fn listed(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<_> =
        names.into_iter().map(|name| format!("`{}`", shortened(name.as_ref()))).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

/// Adds a row; returns whether the graph can run on it.
fn push(
    record: &StringRecord,
    features: &mut [Feature],
    inputs: &mut [GraphInput],
) -> Result<bool> {
    let mut complete = true;
    for Feature { name, column, values } in features.iter_mut() {
        let cell = record.get(*column).unwrap_or_default();
        let wrong = || format!("the column `{name}`: `{}` is not a number", shortened(cell));
        let missing = is_missing(cell);
        match values {
            Numbers::Single(values) => {
                values.push(if missing { f32::NAN } else { cell.parse().with_context(wrong)? });
            }
            Numbers::Double(values) => {
                values.push(if missing { f64::NAN } else { cell.parse().with_context(wrong)? });
            }
            Numbers::Integer(_) if missing => complete = false,
            Numbers::Integer(values) => values.push(integer(cell).with_context(wrong)?),
            // An empty string is a value.
            Numbers::Text(text) => cell.clone_into(text),
        }
    }
    if !complete {
        return Ok(false);
    }
    for input in inputs.iter_mut() {
        for feature in &features[input.first..][..input.width] {
            input.push(&feature.values)?;
        }
    }
    Ok(true)
}

/// Whether spreadsheets or pandas write a missing value so.
pub(super) fn is_missing(cell: &str) -> bool {
    ["", "nan", "na", "null", "none"].iter().any(|word| cell.eq_ignore_ascii_case(word))
}

/// Parses `3`, or `3.0`, which pandas writes for integers of a column with missing values; `True` is 1.
fn integer(cell: &str) -> Result<i64> {
    match cell {
        "true" | "True" | "TRUE" => return Ok(1),
        "false" | "False" | "FALSE" => return Ok(0),
        _ => {}
    }
    Ok(cell.strip_suffix(".0").unwrap_or(cell).parse()?)
}

impl GraphInput {
    /// Appends the last of `values`.
    fn push(&mut self, values: &Numbers) -> Result<()> {
        match values {
            Numbers::Single(values) => {
                put_float(
                    self.ty,
                    values.last().copied().unwrap_or_default().into(),
                    &mut self.data,
                );
            }
            Numbers::Double(values) => {
                put_float(self.ty, values.last().copied().unwrap_or_default(), &mut self.data);
            }
            Numbers::Integer(values) => {
                let value = values.last().copied().unwrap_or_default();
                put_integer(self.ty, value.into(), &mut self.data)?;
            }
            Numbers::Text(text) => put_string(text.as_bytes(), &mut self.data),
        }
        Ok(())
    }

    /// Takes the rows of the next run, as a tensor.
    fn take(&mut self, rows: usize) -> Result<(String, Tensor)> {
        let mut dimensions = self.dimensions.clone();
        if self.rows {
            dimensions.insert(0, u32::try_from(rows)?);
        }
        let data = std::mem::take(&mut self.data);
        Ok((self.name.clone(), Tensor { dimensions, ty: self.ty, data }))
    }
}
