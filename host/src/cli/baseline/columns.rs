//! Reference data: columns of a CSV file, and the graph's outputs for its rows.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;
use spinfer_backend::{Tensor, TensorType};

use super::run_graph::{Numbers, OutputColumn, Runner};
use crate::cli::add::values::{put_float, put_integer, put_string};
use crate::cli::signature::datatype;
use crate::drift::baseline::{Summary, Values, summarize_categories, summarize_numbers};
use crate::drift::signature::{Signature, SignatureTensor};
use crate::process::text::shortened;

/// Maximum number of values held, rows times features and outputs: of 4 or 8 bytes each, for the
/// deciles. A random sample of 100,000 rows gives them to a thousandth.
const MAX_VALUES: u64 = 20_000_000;

/// Summaries by name.
type Summaries = BTreeMap<String, Summary>;

/// All that was read and computed.
#[derive(Debug)]
pub(super) struct Reference {
    rows: u64,
    features: Vec<Feature>,
    /// In the order of the graph.
    outputs: Vec<(String, Numbers)>,
}

/// A column of the file: an element of an input.
#[derive(Debug)]
struct Feature {
    name: String,
    /// Of the file.
    column: usize,
    values: Numbers,
}

/// An input of the graph, and the rows that wait to be run.
struct Input {
    name: String,
    ty: TensorType,
    /// Of one row, without the first axis.
    dimensions: Vec<u32>,
    /// Of `features`.
    first: usize,
    width: usize,
    /// Whether it has an axis of rows at all.
    rows: bool,
    data: Vec<u8>,
}

impl Reference {
    pub(super) fn read(file: impl Read, signature: &Signature, runner: &Runner) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
        let header = reader.headers()?.clone();
        let (mut features, mut inputs) = columns(signature, runner, &header)?;
        let per_row = features.len() as u64 + expected_outputs(signature);
        let batch = runner.batch();
        let mut reference = Self { rows: 0, features: Vec::new(), outputs: Vec::new() };
        let mut waiting = 0;
        let mut record = StringRecord::new();
        while reader.read_record(&mut record)? {
            reference.rows += 1;
            ensure!(
                reference.rows.saturating_mul(per_row) <= MAX_VALUES,
                "it has more than {} rows, {MAX_VALUES} values with the outputs, the most that are \
                 held for the deciles: take a random sample of 100,000 rows",
                MAX_VALUES / per_row.max(1)
            );
            let line = record.position().map_or(0, csv::Position::line);
            let pushed = push(&record, &mut features, &mut inputs);
            // Where a missing value would have to be an integer, the outputs are missing too.
            waiting += usize::from(pushed.with_context(|| format!("line {line}"))?);
            if waiting == batch {
                reference.run(runner, &mut inputs, waiting)?;
                waiting = 0;
            }
        }
        if waiting > 0 {
            reference.run(runner, &mut inputs, waiting)?;
        }
        reference.features = features;
        Ok(reference)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    fn run(&mut self, runner: &Runner, inputs: &mut [Input], rows: usize) -> Result<()> {
        let tensors =
            inputs.iter_mut().map(|input| input.take(rows)).collect::<Result<Vec<_>>>()?;
        let columns = runner
            .run(tensors, rows)
            .with_context(|| format!("the graph fails on the rows up to {}", self.rows))?;
        if self.outputs.is_empty() {
            self.outputs = columns.into_iter().map(|c| (c.name, c.values)).collect();
            return Ok(());
        }
        ensure!(columns.len() == self.outputs.len(), "the graph's outputs differ in width by row");
        for ((name, values), OutputColumn { values: more, .. }) in
            self.outputs.iter_mut().zip(columns)
        {
            ensure!(values.append(more), "the output `{name}` is not always of one type");
        }
        Ok(())
    }

    /// Columns of strings, of which a baseline has nothing.
    pub(super) fn strings(&self) -> Vec<&str> {
        let strings = self.features.iter().filter(|f| matches!(f.values, Numbers::Text(_)));
        strings.map(|feature| feature.name.as_str()).collect()
    }

    /// Of the features, and of the outputs.
    pub(super) fn summarize(self, signature: &Signature) -> Result<(Summaries, Summaries)> {
        let classes = signature.classes();
        let rows = self.rows;
        let numbers = |feature: &Feature| !matches!(feature.values, Numbers::Text(_));
        let features = self.features.into_iter().filter(numbers);
        let features = features.map(|Feature { name, values, .. }| {
            let summary = summarize(values, rows, None)?;
            Ok((name, summary))
        });
        let features = features.collect::<Result<_>>()?;
        let outputs = self.outputs.into_iter().map(|(name, values)| {
            // One integer a row, in a model with labels: classes.
            let is_class = matches!(values, Numbers::Integer(_))
                && signature.outputs.iter().any(|output| output.name == name);
            let classes = (is_class && !classes.is_empty()).then_some(&*classes);
            let summary =
                summarize(values, rows, classes).with_context(|| format!("the output `{name}`"))?;
            Ok((name, summary))
        });
        Ok((features, outputs.collect::<Result<_>>()?))
    }
}

/// Values that the signature says a row has of outputs.
fn expected_outputs(signature: &Signature) -> u64 {
    signature.outputs.iter().filter_map(SignatureTensor::width).map(|width| width as u64).sum()
}

fn summarize(values: Numbers, rows: u64, classes: Option<&[i64]>) -> Result<Summary> {
    Ok(match values {
        Numbers::Single(mut values) => {
            values.retain(|x| !x.is_nan());
            let missing = rows - values.len() as u64;
            summarize_numbers(Values::Single(values), missing)
        }
        Numbers::Double(mut values) => {
            values.retain(|x| !x.is_nan());
            let missing = rows - values.len() as u64;
            summarize_numbers(Values::Double(values), missing)
        }
        Numbers::Text(_) => bail!("strings have no summary"),
        Numbers::Integer(values) => {
            let missing = rows - values.len() as u64;
            match classes {
                Some(classes) => {
                    summarize_categories(&values, missing, classes).map_err(|value| {
                        anyhow::anyhow!("{value} is none of the classes that `labels` names")
                    })?
                }
                None => {
                    let values = values.into_iter().map(|x| x as f64).collect();
                    summarize_numbers(Values::Double(values), missing)
                }
            }
        }
    })
}

/// Which column of the file is which element of which input.
fn columns(
    signature: &Signature,
    runner: &Runner,
    header: &StringRecord,
) -> Result<(Vec<Feature>, Vec<Input>)> {
    let (mut features, mut inputs, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    ensure!(
        signature.inputs.len() == runner.inputs().len(),
        "the model takes {} inputs, and its graph {}: its component makes the graph's from them, \
         and this command runs the graph alone",
        signature.inputs.len(),
        runner.inputs().len()
    );
    for tensor in &signature.inputs {
        let name = &tensor.name;
        let Some(info) = runner.input(name) else {
            bail!(
                "the graph has no input `{name}`: the model's component makes the graph's inputs \
                 from it, and this command runs the graph alone"
            );
        };
        ensure!(
            tensor.datatype == datatype(info.ty),
            "the input `{name}` is {}, and the graph's is {}: the model's component makes the one from \
             the other, and this command runs the graph alone",
            tensor.datatype,
            datatype(info.ty)
        );
        ensure!(
            tensor.batch_axis == 0,
            "the rows of the input `{name}` are along its axis {}, and rows of a table are whole: there \
             is no baseline for such a model",
            tensor.batch_axis
        );
        let Some(names) = tensor.element_names() else {
            bail!(
                "the input `{name}` has the shape {:?}: rows with one number for each of at most \
                 256 features can be read from a table",
                tensor.shape
            );
        };
        let values = match info.ty {
            TensorType::Fp32 | TensorType::Fp16 | TensorType::Bf16 => Numbers::Single(Vec::new()),
            TensorType::Fp64 => Numbers::Double(Vec::new()),
            TensorType::String => Numbers::Text(String::new()),
            _ => Numbers::Integer(Vec::new()),
        };
        // A free axis has as many as there are fields.
        let axes = match tensor.shape.get(1..) {
            Some(axes) if tensor.width() == Some(names.len()) => axes.to_vec(),
            _ => vec![i64::try_from(names.len())?],
        };
        inputs.push(Input {
            name: name.clone(),
            ty: info.ty,
            dimensions: axes.iter().map(|&axis| Ok(u32::try_from(axis)?)).collect::<Result<_>>()?,
            first: features.len(),
            width: names.len(),
            rows: !tensor.shape.is_empty(),
            data: Vec::new(),
        });
        for name in names {
            let mut found = header.iter().enumerate().filter(|(_, other)| *other == name);
            let column = found.next().map(|(column, _)| column);
            ensure!(found.next().is_none(), "the column `{name}` stands twice");
            match column {
                Some(column) => features.push(Feature { name, column, values: values.clone() }),
                None => missing.push(name),
            }
        }
    }
    let unnamed: Vec<_> = signature.inputs.iter().filter(|input| input.fields.is_empty()).collect();
    if let (Some(input), false) = (unnamed.first(), missing.is_empty()) {
        bail!(
            "there is no column {}; found {}. The model's features have no names: write fields = \
             [...] in the [[inputs]] of {} in its model.toml, in the order of the graph, or add the \
             model with --fields",
            listed(missing.iter().map(String::as_str)),
            listed(header.iter()),
            input.name
        );
    }
    ensure!(
        missing.is_empty(),
        "there is no column {}; expected are {}, found {}",
        listed(missing.iter().map(String::as_str)),
        listed(signature.inputs.iter().filter_map(SignatureTensor::element_names).flatten()),
        listed(header.iter())
    );
    Ok((features, inputs))
}

/// Names in a message: the first few.
fn listed(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<_> =
        names.into_iter().map(|name| format!("`{}`", shortened(name.as_ref()))).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

/// Takes a row in; whether the graph can be run on it.
fn push(record: &StringRecord, features: &mut [Feature], inputs: &mut [Input]) -> Result<bool> {
    let mut whole = true;
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
            Numbers::Integer(_) if missing => whole = false,
            Numbers::Integer(values) => values.push(integer(cell).with_context(wrong)?),
            // An empty string is one.
            Numbers::Text(text) => cell.clone_into(text),
        }
    }
    if !whole {
        return Ok(false);
    }
    for input in inputs.iter_mut() {
        for feature in &features[input.first..][..input.width] {
            input.push(&feature.values)?;
        }
    }
    Ok(true)
}

/// As spreadsheets and pandas write it.
fn is_missing(cell: &str) -> bool {
    ["", "nan", "na", "null", "none"].iter().any(|word| cell.eq_ignore_ascii_case(word))
}

/// `3`, or `3.0`, as pandas writes integers of a column with missing values; `True` is 1.
fn integer(cell: &str) -> Result<i64> {
    match cell {
        "true" | "True" | "TRUE" => return Ok(1),
        "false" | "False" | "FALSE" => return Ok(0),
        _ => {}
    }
    Ok(cell.strip_suffix(".0").unwrap_or(cell).parse()?)
}

impl Input {
    /// Takes the last of `values` in.
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

    /// The rows that wait, as a tensor.
    fn take(&mut self, rows: usize) -> Result<(String, Tensor)> {
        let mut dimensions = self.dimensions.clone();
        if self.rows {
            dimensions.insert(0, u32::try_from(rows)?);
        }
        let data = std::mem::take(&mut self.data);
        Ok((self.name.clone(), Tensor { dimensions, ty: self.ty, data }))
    }
}
