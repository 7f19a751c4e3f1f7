//! The short form: `{"features": [5.1, 3.5, 1.4, 0.2]}` -> `{"prediction": "setosa", ...}`, and for several
//! rows `{"instances": [[5.1, 3.5, 1.4, 0.2], ...]}` -> `{"predictions": [...]}`, as in the row format of
//! TensorFlow Serving and version 1 of KServe's protocol.
//!
//! A row is an array, or an object with a value per column: `{"features": {"age": 3, "city": "Rome"}}`.
//! Columns have the names in `fields` of `model.toml`; an input of one element may also be named by its own
//! name. `null` is a missing value.
//!
//! A model of one string also accepts the name of its input instead of `features`, and its plural: `{"text":
//! "..."}`, `{"texts": ["...", ...]}`. A file is the request body, by its content type, or base64 under its own
//! key.

mod response;

use std::borrow::Cow;

use self::response::{PredictResponseBody, RowPredictions};
use crate::error::{Error, quoted};
use crate::graph::Graph;
use crate::hooks::ModelHooks;
use crate::json::{self, Entries};
use crate::prediction::{predict_all, predict_rows};
use crate::prediction_log::Draft;
use crate::request::{CONTENT_TYPE, Request};
use crate::response::Response;
use crate::response_buffer;
use crate::row_reader::RowReader;

/// Handles a request to `/predict`.
pub(crate) fn predict(
    graph: &Graph,
    request: &Request,
    hooks: &ModelHooks,
) -> Result<Response, Error> {
    let signature = graph.signature();
    let mut reader = RowReader::new(signature, request.body.len())?;
    let PredictRequest { id, rows, many } = match hooks.file {
        Some(file) if file.is_body(request.header(CONTENT_TYPE).as_deref(), &request.body)? => {
            reader.file(request.body.clone());
            PredictRequest { id: None, rows: "the body".into(), many: false }
        }
        _ => read(&mut reader, hooks, &request.body)?,
    };
    let (id, rows) = (id.as_deref(), reader.rows(&rows)?);
    let buffer = response_buffer::for_rows(signature, &rows)?;
    let (predictions, one);
    let (encoded, predictions) = if many {
        predictions = predict_all(graph, rows, hooks.predict)?;
        (RowPredictions::Many(&predictions), &*predictions)
    } else {
        one = predict_rows(graph, rows, hooks.predict)?;
        (RowPredictions::One(&one), std::slice::from_ref(&one))
    };
    let body = json::encode(buffer, &PredictResponseBody { signature, id, predictions: encoded })?;
    let mut draft = Draft::new(signature, "predict", rows.count as usize);
    draft.id(id);
    match (hooks.file, rows.bytes) {
        (Some(file), [bytes]) if !reader.has_strings() => {
            draft.file(file.content_type, bytes.len());
        }
        _ => draft.rows(&rows),
    }
    draft.predictions(predictions);
    draft.append(request.prediction_id().as_deref());
    Ok(Response::json(200, body))
}

/// The body of a request, without its rows.
struct PredictRequest<'a> {
    id: Option<Cow<'a, str>>,
    /// Key of the rows, for messages.
    rows: Cow<'static, str>,
    /// Whether the response is an array.
    many: bool,
}

/// Reads the rows of a JSON body.
fn read<'a>(
    reader: &mut RowReader<'_>,
    hooks: &ModelHooks,
    body: &'a [u8],
) -> Result<PredictRequest<'a>, Error> {
    let entries = Entries::of_body(body)?;
    let names = RowKeys::of(reader, hooks);
    let RowKeys { one, many, features, plural, file: key } = &names;
    let [id, row, rows, features_row, more, file] =
        entries.pick(&"the body", ["id", one, many, features, plural, key])?;
    let id = match id {
        Some(id) => Some(json::string(id.get()).ok_or_else(|| {
            Error::invalid(format!("id: expected a string, got {}", quoted(id.get())))
        })?),
        None => None,
    };
    let (rows, many) = match ([row, features_row, rows, more, file], hooks.file) {
        ([Some(row), None, None, None, None], _) => {
            reader.row(one, row)?;
            (names.one, false)
        }
        ([None, Some(row), None, None, None], _) => {
            reader.row(features, row)?;
            (names.features, false)
        }
        ([None, None, Some(rows), None, None], _) => {
            reader.each(many, rows)?;
            (names.many, true)
        }
        ([None, None, None, Some(rows), None], _) => {
            reader.each(plural, rows)?;
            (names.plural, true)
        }
        ([None, None, None, None, Some(json)], Some(file)) => {
            reader.file(file.read(json)?);
            (names.file, false)
        }
        _ => return Err(names.expected(reader, hooks)),
    };
    Ok(PredictRequest { id, rows, many })
}

/// The keys that rows may have. Those that the model does not have are "instances" as well.
struct RowKeys {
    one: Cow<'static, str>,
    features: Cow<'static, str>,
    many: Cow<'static, str>,
    plural: Cow<'static, str>,
    file: Cow<'static, str>,
}

impl RowKeys {
    fn of(reader: &RowReader<'_>, hooks: &ModelHooks) -> Self {
        let many = "instances";
        let mut names = Self {
            one: "features".into(),
            features: many.into(),
            many: many.into(),
            plural: many.into(),
            file: many.into(),
        };
        if let Some(name) = reader.name_of_string() {
            // With a mapping, rows have the names of its inputs only.
            if hooks.mapping.is_none() {
                names.features = "features".into();
            }
            names.plural = format!("{name}s").into();
            names.one = name.to_owned().into();
        }
        if let Some(file) = hooks.file {
            names.file = file.key.into();
        }
        names
    }

    /// The error for a body without rows, or with several keys of rows.
    #[cold]
    fn expected(&self, reader: &RowReader<'_>, hooks: &ModelHooks) -> Error {
        let Self { one, many, plural, .. } = self;
        let mut message = match (reader.takes_strings(), reader.has_strings()) {
            (true, _) if one != "features" => format!(
                "the body: expected either {one:?}, a string, or {plural:?} or {many:?}, an array of them"
            ),
            (_, false) => format!(
                "the body: expected either {one:?}, one row of numbers, or {many:?}, an array of rows"
            ),
            (_, true) => format!(
                "the body: expected either {one:?}, one row, or {many:?}, an array of rows; a row is an \
                 array, or an object with a value for each column"
            ),
        };
        if let Some(file) = hooks.file {
            message += &format!(", or {}", file.describe());
        }
        Error::invalid(message)
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small in these tests")]
mod tests;
