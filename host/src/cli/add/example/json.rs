//! JSON examples: a request of the Open Inference Protocol, or an object of nested lists by input.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Array, ElementCount, Elements};

/// An input of the Open Inference Protocol.
#[derive(Deserialize)]
struct V2Input {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Value,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Array>> {
    let mut example: Map<String, Value> = serde_json::from_slice(bytes).context(
        "expected an object: a request {\"inputs\": [...]}, or {\"<input>\": <nested lists>, ...}",
    )?;
    let mut count = ElementCount::default();
    let is_request =
        example.get("inputs").and_then(|inputs| inputs.get(0)).is_some_and(Value::is_object);
    if !is_request {
        let nested = |(name, value): (String, Value)| nested(name, &value, &mut count);
        return example.into_iter().map(nested).collect();
    }
    let inputs: Vec<V2Input> =
        serde_json::from_value(example.remove("inputs").unwrap_or_default()).context("inputs")?;
    inputs.into_iter().map(|input| of_request(input, &mut count)).collect()
}

fn of_request(
    V2Input { name, shape, datatype, data }: V2Input,
    count: &mut ElementCount,
) -> Result<Array> {
    let expected = count.add(&shape)?;
    // Flat, or nested like the shape.
    let mut found = Vec::new();
    flatten(&data, &mut found);
    ensure!(
        found.len() == expected,
        "`{name}`: {} elements, but the shape {shape:?} has {expected}",
        found.len()
    );
    let elements = elements(&found).with_context(|| format!("`{name}`"))?;
    Ok(Array { name, shape, datatype: Some(datatype), elements })
}

fn nested(name: String, value: &Value, count: &mut ElementCount) -> Result<Array> {
    let mut shape = Vec::new();
    let mut inner = value;
    while let Value::Array(items) = inner {
        shape.push(items.len());
        let Some(first) = items.first() else { break };
        inner = first;
    }
    let expected = count.add(&shape)?;
    let mut found = Vec::with_capacity(expected);
    ensure!(
        fill(value, &shape, &mut found),
        "`{name}`: the lists differ in length, but its first elements have the shape {shape:?}"
    );
    let elements = elements(&found).with_context(|| format!("`{name}`"))?;
    Ok(Array { name, shape, datatype: None, elements })
}

/// Collects the elements of `value`; false if its shape is not `shape`.
fn fill<'a>(value: &'a Value, shape: &[usize], found: &mut Vec<&'a Value>) -> bool {
    match (value, shape) {
        (Value::Array(items), [length, rest @ ..]) => {
            items.len() == *length && items.iter().all(|item| fill(item, rest, found))
        }
        (Value::Array(_), []) | (_, [_, ..]) => false,
        (element, []) => {
            found.push(element);
            true
        }
    }
}

fn flatten<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, found)),
        element => found.push(element),
    }
}

/// The elements, which must be of one kind; `null` is NaN.
fn elements(found: &[&Value]) -> Result<Elements> {
    let integer =
        |value: &&Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    let float = |value: &&Value| value.as_f64().or_else(|| value.is_null().then_some(f64::NAN));
    if found.first().is_some_and(|first| first.is_string()) {
        let strings = found.iter().map(|value| Some(value.as_str()?.as_bytes().to_vec()));
        if let Some(strings) = strings.collect() {
            return Ok(Elements::Strings(strings));
        }
    } else if let Some(bools) = found.iter().map(|value| value.as_bool()).collect()
        && !found.is_empty()
    {
        return Ok(Elements::Bools(bools));
    } else if let Some(integers) = found.iter().map(integer).collect()
        && !found.is_empty()
    {
        return Ok(Elements::Integers(integers));
    } else if let Some(floats) = found.iter().map(float).collect() {
        return Ok(Elements::Floats(floats));
    }
    bail!("expected elements of one kind: numbers (or null), booleans or strings")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Array, String> {
        parse(json.as_bytes()).map(|mut arrays| arrays.remove(0)).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn requests_and_nested_lists_are_read() {
        let array = parsed(r#"{"x": [[[1, 2]], [[3, 4.5]]]}"#).unwrap();
        let floats = Elements::Floats(vec![1.0, 2.0, 3.0, 4.5]);
        assert_eq!((array.shape, array.elements), (vec![2, 1, 2], floats));
        let request = r#"{"id": "1", "inputs": [{"name": "x", "shape": [2, 1], "datatype": "INT64", "data": [[1], [2]], "parameters": {}}]}"#;
        let array = parsed(request).unwrap();
        assert_eq!((array.shape, array.datatype.as_deref()), (vec![2, 1], Some("INT64")));
        assert_eq!(array.elements, Elements::Integers(vec![1, 2]));
        assert_eq!(parsed(r#"{"x": 7}"#).unwrap().shape, [0_usize; 0]);
        assert_eq!(parsed(r#"{"x": [[], []]}"#).unwrap().shape, [2, 0]);
        // An input may be named `inputs`.
        assert_eq!(parsed(r#"{"inputs": [[1, 2]]}"#).unwrap().shape, [1, 2]);
    }

    #[test]
    fn invalid_examples_are_refused() {
        for (json, part) in [
            ("[1]", "expected an object"),
            (r#"{"x": [[1], [2, 3]]}"#, "the lists differ in length"),
            (r#"{"x": [1, "a"]}"#, "of one kind"),
            (r#"{"x": {"y": 1}}"#, "of one kind"),
            (r#"{"inputs": [{"name": "x"}]}"#, "missing field"),
            (
                r#"{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1]}]}"#,
                "1 elements, but the shape [3] has 3",
            ),
            (
                r#"{"inputs": [{"name": "x", "shape": [9999999999], "datatype": "FP32", "data": []}]}"#,
                "more than 16777216 elements",
            ),
        ] {
            let error = parsed(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
