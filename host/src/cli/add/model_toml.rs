//! The `model.toml` of a model that is added.

use anyhow::{Result, bail, ensure};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value, value};

use super::examine::Examined;
use super::labels::Labels;
use crate::cli::signature::Tensor;

/// What `model.toml` says of the version.
#[derive(Debug)]
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    pub(super) version: u32,
    pub(super) sha256: &'a str,
    /// The file that was given, and its SHA-256 if it is another.
    pub(super) file: &'a str,
    pub(super) file_sha256: Option<&'a str>,
    pub(super) labels: Option<&'a Labels>,
    /// Names of the features; empty if they have none.
    pub(super) fields: &'a [String],
    /// Names that are those of the features if there are no others, and as many.
    pub(super) columns: &'a [String],
    /// What was asked for: the backend, and the threads of one inference.
    pub(super) backend: Option<&'a str>,
    pub(super) threads: Option<u32>,
    /// More of `[provenance]`.
    pub(super) provenance: &'a Table,
}

impl About<'_> {
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
        // What it gives is to be drawn each time.
        if examined.random {
            document["cache_seconds"] = value(0);
        }
        let fields = if fields.is_empty() && fits(columns, &examined.inputs) {
            Fields(vec![columns.to_vec()])
        } else {
            Fields::split(fields, &examined.inputs)?
        };
        document["inputs"] = tensors(&examined.inputs, &fields);
        document["outputs"] = tensors(&examined.outputs, &Fields(Vec::new()));
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
fn fits(columns: &[String], inputs: &[Tensor]) -> bool {
    matches!(inputs, [input] if !columns.is_empty() && input.row() == Some(columns.len()))
}

/// Names of the features of each input.
struct Fields(Vec<Vec<String>>);

impl Fields {
    fn split(names: &[String], inputs: &[Tensor]) -> Result<Self> {
        if names.is_empty() {
            // One input for each column is how tables are converted: their names are the columns'.
            let columns = inputs.len() > 1 && inputs.iter().all(|input| input.row() == Some(1));
            let own = |input: &Tensor| vec![input.name.clone()];
            return Ok(Self(if columns { inputs.iter().map(own).collect() } else { Vec::new() }));
        }
        let mut rest = names;
        let mut fields = Vec::new();
        for input in inputs {
            let Some(width) = input.row() else {
                bail!("--fields: the shape of `{input}` does not say how many features it has");
            };
            let Some((own, others)) = rest.split_at_checked(width) else { break };
            fields.push(own.to_vec());
            rest = others;
        }
        let all: Option<usize> = inputs.iter().map(Tensor::row).sum();
        ensure!(
            fields.len() == inputs.len() && rest.is_empty(),
            "--fields: {} names for {} features",
            names.len(),
            all.unwrap_or_default()
        );
        Ok(Self(fields))
    }
}

fn tensors(tensors: &[Tensor], fields: &Fields) -> Item {
    let table = |(index, tensor): (usize, &Tensor)| {
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
