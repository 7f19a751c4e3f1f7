//! The bodies of the events that KServe's payload logger sends: a request and a response of the Open
//! Inference Protocol (V2), rebuilt from the records of consecutive rows.

use std::borrow::Cow;

use serde_json::{Map, Number, Value, json};

use crate::prediction_log::reader::{Member, StoredRecord};
use crate::prediction_log::scalar::{Members, Scalar};
use crate::prediction_log::settings::base_name;

/// The body of the request event: the inputs of `rows`, which are of one request and model version.
pub(super) fn request(rows: &[&StoredRecord]) -> Value {
    let inputs = tensors(rows.iter().map(|row| row.inputs.as_str()));
    let mut body = head(rows);
    body.insert("inputs".into(), inputs);
    body.into()
}

/// The body of the response event.
pub(super) fn response(rows: &[&StoredRecord]) -> Value {
    let outputs = tensors(rows.iter().map(|row| row.outputs.as_str()));
    let mut body = Map::new();
    if let Some(StoredRecord { model, version, .. }) = rows.first() {
        body.insert("model_name".into(), model.as_str().into());
        body.insert("model_version".into(), version.as_str().into());
    }
    body.append(&mut head(rows));
    body.insert("outputs".into(), outputs);
    body.into()
}

/// The id, and what the log has beyond the protocol.
fn head(rows: &[&StoredRecord]) -> Map<String, Value> {
    let Some(first) = rows.first() else { return Map::new() };
    let mut parameters = Map::new();
    for (name, member) in first.members() {
        // A value of a parameter is a string, a number or a boolean.
        let value: Value = match (name, member) {
            // The event and its body have these.
            ("id" | "time" | "model" | "version" | "inputs" | "outputs", _) => continue,
            (_, Member::Integer(number)) => number.into(),
            (_, Member::Number(number)) => number.into(),
            (_, Member::Object("{}")) => Value::Null,
            (_, Member::Optional(text) | Member::List(text)) => text.into(),
            (_, member) => member.text().into(),
        };
        if !value.is_null() {
            parameters.insert(name.into(), value);
        }
    }
    let head = json!({ "id": first.id.to_string(), "parameters": parameters });
    if let Value::Object(head) = head { head } else { Map::new() }
}

/// The datatype of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Datatype {
    Bool,
    Int64,
    Fp64,
    Bytes,
}

impl Datatype {
    fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int64 => "INT64",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The datatype that has all `values`; `null` fits each, and alone is a missing number.
    fn of<'a>(values: impl Iterator<Item = &'a Scalar<'a>>) -> Self {
        let mut common = None;
        for value in values {
            let datatype = match value {
                Scalar::Null => continue,
                Scalar::Boolean(_) => Self::Bool,
                Scalar::Integer(_) => Self::Int64,
                Scalar::Number(_) => Self::Fp64,
                Scalar::Text(_) | Scalar::Nested => Self::Bytes,
            };
            common = match (common, datatype) {
                (None, datatype) => Some(datatype),
                (Some(other), datatype) if other == datatype => common,
                (Some(Self::Int64 | Self::Fp64), Self::Int64 | Self::Fp64) => Some(Self::Fp64),
                _ => Some(Self::Bytes),
            };
        }
        common.unwrap_or(Self::Fp64)
    }

    fn value(self, value: &Scalar<'_>) -> Value {
        match value {
            Scalar::Null | Scalar::Nested => Value::Null,
            Scalar::Text(text) => (&**text).into(),
            Scalar::Boolean(value) if self == Self::Bytes => value.to_string().into(),
            Scalar::Integer(value) if self == Self::Bytes => value.to_string().into(),
            Scalar::Number(value) if self == Self::Bytes => value.to_string().into(),
            Scalar::Boolean(value) => (*value).into(),
            Scalar::Integer(value) => (*value).into(),
            Scalar::Number(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        }
    }
}

/// The tensors of rows, which are JSON objects of one form: `pixels[0]`, `pixels[1]` and so on are
/// one tensor. A row that lacks a name has `null` there.
fn tensors<'a>(rows: impl Iterator<Item = &'a str>) -> Value {
    let rows: Vec<_> = rows.map(Members::of).collect();
    let names = rows.first().map_or(&[][..], |row| &row.0[..]);
    let mut tensors: Vec<Value> = Vec::new();
    let mut at = 0;
    while at < names.len() {
        let (name, width) = tensor_at(&names[at..]);
        let is_tensor = name != names[at].0;
        let columns = &names[at..at + width];
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in &rows {
            for (offset, (column, _)) in columns.iter().enumerate() {
                // The rows of one request have their names in the same order.
                let same = row.0.get(at + offset).filter(|(name, _)| name == column);
                let value = same.map(|(_, value)| value).or_else(|| row.get(column));
                values.push(value.unwrap_or(&Scalar::Null));
            }
        }
        let datatype = Datatype::of(values.iter().copied());
        let data: Vec<_> = values.into_iter().map(|value| datatype.value(value)).collect();
        let shape = if is_tensor { vec![rows.len(), width] } else { vec![rows.len()] };
        tensors.push(json!({
            "name": name, "shape": shape, "datatype": datatype.name(), "data": data,
        }));
        at += width;
    }
    tensors.into()
}

/// Name and width of the tensor that `names` start with.
fn tensor_at<'a, T>(names: &'a [(Cow<'_, str>, T)]) -> (&'a str, usize) {
    let name = base_name(&names[0].0);
    let elements = names.iter().enumerate().take_while(|(index, (column, _))| {
        let element = column.strip_prefix(name).and_then(|rest| rest.strip_prefix('['));
        element.and_then(|rest| rest.strip_suffix(']')) == Some(index.to_string().as_str())
    });
    match elements.count() {
        // A single column, or one whose first element is not logged.
        0 => (&names[0].0, 1),
        width => (name, width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors_of(rows: &[&str]) -> Value {
        tensors(rows.iter().copied())
    }

    #[test]
    fn columns_of_a_tensor_are_one_tensor() {
        let rows =
            [r#"{"a":1.5,"p[0]":1,"p[1]":2,"b":"x"}"#, r#"{"a":null,"p[0]":3,"p[1]":4,"b":"y"}"#];
        let expected = json!([
            { "name": "a", "shape": [2], "datatype": "FP64", "data": [1.5, null] },
            { "name": "p", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4] },
            { "name": "b", "shape": [2], "datatype": "BYTES", "data": ["x", "y"] },
        ]);
        assert_eq!(tensors_of(&rows), expected);
        let expected = json!([
            { "name": "p[1]", "shape": [1], "datatype": "BOOL", "data": [true] },
            { "name": "q", "shape": [1, 1], "datatype": "FP64", "data": [null] },
        ]);
        assert_eq!(tensors_of(&[r#"{"p[1]":true,"q[0]":null}"#]), expected, "the first is dropped");
        assert_eq!(tensors_of(&["{}"]), json!([]));
    }

    #[test]
    fn datatype_is_the_one_that_has_all_values() {
        for (rows, datatype, data) in [
            ([r#"{"a":1}"#, r#"{"a":2.5}"#], "FP64", json!([1, 2.5])),
            ([r#"{"a":1}"#, r#"{"a":"x"}"#], "BYTES", json!(["1", "x"])),
            ([r#"{"a":true}"#, r#"{"a":1}"#], "BYTES", json!(["true", "1"])),
            (
                [r#"{"a":9007199254740993}"#, r#"{"a":null}"#],
                "INT64",
                json!([9007199254740993_i64, null]),
            ),
            ([r#"{"a":1}"#, r#"{"b":2}"#], "INT64", json!([1, null])),
        ] {
            let tensors = tensors_of(&rows);
            assert_eq!((&tensors[0]["datatype"], &tensors[0]["data"]), (&datatype.into(), &data));
        }
    }
}
