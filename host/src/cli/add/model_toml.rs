//! Writes the `model.toml` of an added model.

use anyhow::{Result, bail, ensure};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value, value};

use super::examine::Examined;
use super::labels::Labels;
use crate::cli::signature::DeclaredTensor;

/// The contents of `model.toml`.
#[derive(Debug)]
pub(super) struct ModelTomlParts<'a> {
    pub(super) name: &'a str,
    pub(super) version: u32,
    pub(super) sha256: &'a str,
    /// Name of the original file, and its SHA-256 if it differs from the graph.
    pub(super) file: &'a str,
    pub(super) file_sha256: Option<&'a str>,
    pub(super) labels: Option<&'a Labels>,
    /// Feature names; empty if there are none.
    pub(super) fields: &'a [String],
    /// Column names, used as feature names if there are no others and their number matches.
    pub(super) columns: &'a [String],
    /// Requested backend.
    pub(super) backend: Option<&'a str>,
    /// Requested threads per inference.
    pub(super) threads: Option<u32>,
    /// Further keys of `[provenance]`.
    pub(super) provenance: &'a Table,
}

impl ModelTomlParts<'_> {
    pub(super) fn text(&self, examined: &Examined) -> Result<String> {
        let Self {
            name,
            version,
            sha256,
            file,
            file_sha256,
            labels,
            fields,
            columns,
            backend,
            threads,
            provenance: more,
        } = self;
        let mut document = DocumentMut::new();
        document["name"] = value(*name);
        document["version"] = value(version.to_string());
        document["sha256"] = value(*sha256);
        match labels {
            Some(Labels::Names(names)) => document["labels"] = list(names),
            Some(Labels::Numbers(numbers)) => document["labels"] = list(numbers),
            None => {}
        }
        if let Some(backend) = backend {
            document["backend"] = value(*backend);
        }
        if let Some(threads) = threads {
            document["threads"] = value(i64::from(*threads));
        }
        // Random outputs must not be cached.
        if examined.random {
            document["cache_seconds"] = value(0);
        }
        let fields = if fields.is_empty() && fits(columns, &examined.inputs) {
            FieldNames(vec![columns.to_vec()])
        } else {
            FieldNames::split(fields, &examined.inputs)?
        };
        document["inputs"] = tensors(&examined.inputs, &fields);
        document["outputs"] = tensors(&examined.outputs, &FieldNames(Vec::new()));
        let mut provenance = Table::new();
        provenance["file"] = value(*file);
        if let Some(sha256) = file_sha256 {
            provenance["file_sha256"] = value(*sha256);
        }
        if !examined.producer.is_empty() {
            provenance["converter"] = value(&examined.producer);
        }
        for (key, item) in more.iter() {
            provenance.insert(key, item.clone());
        }
        document["provenance"] = Item::Table(provenance);
        Ok(document.to_string())
    }
}

/// Whether `columns` are the features of the only input.
fn fits(columns: &[String], inputs: &[DeclaredTensor]) -> bool {
    matches!(inputs, [input] if !columns.is_empty() && input.row() == Some(columns.len()))
}

/// Feature names of each input.
struct FieldNames(Vec<Vec<String>>);

impl FieldNames {
    fn split(names: &[String], inputs: &[DeclaredTensor]) -> Result<Self> {
        if names.is_empty() {
            // Converters of tables write one input per column, named after it.
            let columns = inputs.len() > 1 && inputs.iter().all(|input| input.row() == Some(1));
            let own = |input: &DeclaredTensor| vec![input.name.clone()];
            return Ok(Self(if columns { inputs.iter().map(own).collect() } else { Vec::new() }));
        }
        let mut rest = names;
        let mut fields = Vec::new();
        for input in inputs {
            let Some(width) = input.row() else {
                bail!("--fields: the shape of `{input}` does not fix its number of features");
            };
            let Some((own, others)) = rest.split_at_checked(width) else { break };
            fields.push(own.to_vec());
            rest = others;
        }
        let all: Option<usize> = inputs.iter().map(DeclaredTensor::row).sum();
        ensure!(
            fields.len() == inputs.len() && rest.is_empty(),
            "--fields: {} names for {} features",
            names.len(),
            all.unwrap_or_default()
        );
        Ok(Self(fields))
    }
}

fn tensors(tensors: &[DeclaredTensor], fields: &FieldNames) -> Item {
    let table = |(index, tensor): (usize, &DeclaredTensor)| {
        let mut table = Table::new();
        table["name"] = value(&tensor.name);
        table["datatype"] = value(tensor.datatype);
        table["shape"] = list(tensor.shape.as_deref().unwrap_or_default());
        if tensor.counts_rows() && tensor.batch_axis > 0 {
            table["batch_axis"] = value(i64::try_from(tensor.batch_axis).unwrap_or(i64::MAX));
        }
        if let Some(fields) = fields.0.get(index) {
            table["fields"] = list(fields);
        }
        table
    };
    Item::ArrayOfTables(tensors.iter().enumerate().map(table).collect::<ArrayOfTables>())
}

fn list<T: Clone + Into<Value>>(items: &[T]) -> Item {
    value(items.iter().cloned().collect::<Array>())
}
