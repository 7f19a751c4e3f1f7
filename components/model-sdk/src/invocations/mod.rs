//! MLflow's scoring protocol: a table as JSON or CSV -> `{"predictions": [...]}`, a class or number per row, as
//! `mlflow models serve` returns for a scikit-learn model.
//! <https://mlflow.org/docs/latest/deployment/deploy-model-locally/#json-input>

mod csv;

use std::borrow::Cow;

use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::datatype::parse::plain;
use crate::error::Error;
use crate::graph::Graph;
use crate::json::{self, Entries};
use crate::prediction::{Predict, Prediction, predict_all};
use crate::prediction_log::Draft;
use crate::request::Request;
use crate::response::Response;
use crate::response_buffer;
use crate::row_reader::{Cell, RowReader};
use crate::signature::Signature;

/// Handles a request to `/invocations`.
pub(crate) fn invoke(
    graph: &Graph,
    request: &Request,
    predict: Predict,
) -> Result<Response, Error> {
    // As MLflow does.
    let mut reader =
        RowReader::new(graph.signature(), request.body.len())?.ignoring_unknown_columns();
    let table = if is_csv(&request.body) {
        csv::read(&mut reader, &request.body)?;
        "CSV"
    } else {
        read_json(&mut reader, graph, &request.body)?
    };
    let rows = reader.rows(table)?;
    let buffer = response_buffer::for_rows(graph.signature(), &rows)?;
    let predictions = predict_all(graph, rows, predict)?;
    let values = PredictionValues { signature: graph.signature(), predictions: &predictions };
    let body = json::encode(buffer, &InvocationsBody { predictions: values })?;
    let mut draft = Draft::new(graph.signature(), "invocations", rows.count as usize);
    draft.rows(&rows);
    draft.predictions(&predictions);
    draft.append(request.prediction_id().as_deref());
    Ok(Response::json(200, body))
}

/// The keys that a table may have. `params` and other keys are ignored.
const TABLES: [&str; 4] = ["dataframe_split", "dataframe_records", "instances", "inputs"];

/// A body that does not start as JSON is CSV, whatever its content type: if the header were read here, the
/// host would pass it with every request to any path.
fn is_csv(body: &[u8]) -> bool {
    !matches!(body.trim_ascii_start(), [] | [b'{' | b'[', ..])
}

/// Reads the table of a JSON body, and returns its key.
fn read_json(
    reader: &mut RowReader<'_>,
    graph: &Graph,
    body: &[u8],
) -> Result<&'static str, Error> {
    let entries = Entries::of_body(body)?;
    match entries.pick(&"the body", TABLES)? {
        [Some(split), None, None, None] => {
            read_split(reader, split)?;
            Ok("dataframe_split")
        }
        [None, Some(records), None, None] => {
            reader.each("dataframe_records", records)?;
            Ok("dataframe_records")
        }
        [None, None, Some(instances), None] => {
            reader.each("instances", instances)?;
            Ok("instances")
        }
        [None, None, None, Some(inputs)] => {
            read_inputs(reader, graph, inputs)?;
            Ok("inputs")
        }
        _ => Err(Error::invalid(
            "the body: expected exactly one of \"dataframe_split\", \"dataframe_records\", \
             \"instances\" and \"inputs\"",
        )),
    }
}

/// Reads a table in pandas' orientation `split`, without its `index`.
fn read_split(reader: &mut RowReader<'_>, split: &RawValue) -> Result<(), Error> {
    let what = "dataframe_split";
    let entries = Entries::of_part(&what, split)?;
    let [columns, data] = entries.pick(&what, ["columns", "data"])?;
    let data = data.ok_or_else(|| Error::invalid("dataframe_split: expected \"data\", rows"))?;
    let Some(columns) = columns else {
        return reader.each("dataframe_split: data", data);
    };
    let what = "dataframe_split: columns";
    let columns = json::items(&what, columns)?;
    // A data frame without column names has numbers instead.
    let names: Vec<Cow<'_, str>> =
        columns.into_iter().map(|column| column_name(column.get())).collect();
    let columns = reader.columns_in_order(&what, &names)?;
    let rows = json::items(&"dataframe_split: data", data)?;
    reader.expect(rows.len(), data)?;
    for (index, row) in rows.into_iter().enumerate() {
        let what = format_args!("dataframe_split: data[{index}]");
        let cells = json::items(&what, row)?;
        let mut cells = cells.iter().map(|cell| Cell::Json(cell.get()));
        reader.cells(&what, &columns, &mut cells)?;
    }
    Ok(())
}

/// The name of a column: a string, or a number in one notation, as the host's cache cannot tell `1` from `1.0`.
fn column_name(json: &str) -> Cow<'_, str> {
    json::string(json).unwrap_or_else(|| plain(json).map_or(json.into(), Cow::Owned))
}

/// Reads an array of rows, an object of columns by name, or an object of all rows by the name of the only
/// input.
fn read_inputs(reader: &mut RowReader<'_>, graph: &Graph, json: &RawValue) -> Result<(), Error> {
    if !json.get().starts_with('{') {
        return reader.each("inputs", json);
    }
    let Entries(entries) = Entries::of_part(&"inputs", json)?;
    if let ([(name, rows)], [input]) = (&*entries, &*graph.signature().inputs)
        && *name == input.name
    {
        return reader.each(&format!("inputs: {name}"), rows);
    }
    let mut names = Vec::with_capacity(entries.len());
    let mut columns: Vec<Vec<&RawValue>> = Vec::with_capacity(entries.len());
    for (name, values) in entries {
        columns.push(json::items(&format_args!("inputs: {name:?}"), values)?);
        names.push(name);
    }
    let features = reader.columns(&"inputs", &names)?;
    let rows = columns.first().map_or(0, Vec::len);
    if let Some(other) = columns.iter().position(|column| column.len() != rows) {
        return Err(Error::invalid(format!(
            "inputs: {:?} has {rows} values, but {:?} has {}",
            names[0],
            names[other],
            columns[other].len()
        )));
    }
    reader.expect(rows, json)?;
    for row in 0..rows {
        let what = format_args!("inputs: row {row}");
        let mut cells = columns.iter().map(|column| Cell::Json(unnested(column[row])));
        reader.cells(&what, &features, &mut cells)?;
    }
    Ok(())
}

/// Unwraps a value of a column that is an array of one: MLflow's tensors have the shape [-1, 1].
fn unnested(value: &RawValue) -> &str {
    if value.get().starts_with('[')
        && let Ok([value]) = json::items(&"", value).as_deref()
    {
        return value.get();
    }
    value.get()
}

#[derive(Serialize)]
struct InvocationsBody<'a> {
    predictions: PredictionValues<'a>,
}

/// `["setosa", ...]`
struct PredictionValues<'a> {
    signature: &'a Signature,
    predictions: &'a [Prediction],
}

impl Serialize for PredictionValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut values = serializer.serialize_seq(None)?;
        for row in self.predictions.iter().flat_map(|some| some.by_row(self.signature)) {
            values.serialize_element(&row.map_err(S::Error::custom)?)?;
        }
        values.end()
    }
}

#[cfg(test)]
mod tests;
