//! One graph of each kind (`tests/onnx/kinds.py`), from the file to the response: `spinfer add`, the host,
//! the generic component, `/infer`.

use std::fmt::Write;
use std::fs;

use serde_json::{Value, json};
use spinfer_tests::{Spinfer, root};

use crate::add::AppFolder;

/// Relative, and absolute below 1: for FP16, and for sums in another order.
const TOLERANCE: f64 = 5e-3;

#[test]
fn onnx_kinds_are_served_correctly_or_refused_with_400() {
    let folder = root().join("target/onnx-cases/kinds");
    let text = fs::read_to_string(folder.join("cases.json")).expect("run `make onnx-cases`");
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let cases: Vec<Value> = cases.into_iter().filter(|case| case["http"] == true).collect();
    assert!(cases.len() > 20);

    let application = AppFolder::new();
    let mut wrong = String::new();
    let mut added = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        match application.add(&folder.join(format!("{name}.onnx")), &[]) {
            (true, _) => added.push(case),
            (false, text) => writeln!(wrong, "{name} is not added: {text}").unwrap(),
        }
    }
    let spinfer = application.up();
    for case in added {
        if let Err(how) = check(&spinfer, case) {
            writeln!(wrong, "{}: {how}", case["name"]).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn check(spinfer: &Spinfer, case: &Value) -> Result<(), String> {
    let name = case["name"].as_str().unwrap();
    let inputs: Vec<Value> = case["inputs"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, input)| {
            let datatype = datatype(input["dtype"].as_str().unwrap());
            json!({ "name": name, "shape": input["shape"], "datatype": datatype, "data": input["data"] })
        })
        .collect();
    let body = json!({ "inputs": inputs }).to_string();
    let response = spinfer.post(&format!("/v2/models/{name}/infer"), body);
    let expected = match case["expected"].as_object() {
        None if response.status == 400 => return without_internals(&response.error()),
        None => return Err(format!("{} , not 400: {}", response.status, response.text())),
        // JSON cannot represent NaN and infinity.
        Some(expected) if expected.values().any(has_null) => {
            let error = response.text();
            let refused = response.status == 400 && error.contains("binary");
            return if refused { Ok(()) } else { Err(format!("{}: {error}", response.status)) };
        }
        Some(expected) => expected,
    };
    if response.status != 200 {
        return Err(format!("{}: {}", response.status, response.text()));
    }
    let json_body = response.json();
    let outputs = json_body["outputs"].as_array().unwrap();
    for (name, expected) in expected {
        let Some(output) = outputs.iter().find(|output| output["name"] == **name) else {
            return Err(format!("no output {name}: {json_body}"));
        };
        if output["shape"] != expected["shape"] || !is_near(&output["data"], &expected["data"]) {
            return Err(format!("{output}, not {expected}"));
        }
    }
    Ok(())
}

/// The protocol's name of a numpy type.
fn datatype(dtype: &str) -> String {
    match dtype {
        "object" => "BYTES".into(),
        "bool" => "BOOL".into(),
        other => other.to_uppercase().replace("FLOAT", "FP"),
    }
}

fn has_null(output: &Value) -> bool {
    output["data"].as_array().unwrap().contains(&Value::Null)
}

fn without_internals(message: &str) -> Result<(), String> {
    let internal = [".cc", ".h:", "::", "/", "onnxruntime", "0.25", "0.125", "0.0625"];
    match internal.iter().find(|part| message.contains(**part)) {
        None => Ok(()),
        Some(part) => Err(format!("the message contains `{part}`: {message}")),
    }
}

fn is_near(got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Array(got), Value::Array(expected)) => {
            got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| is_near(a, b))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= TOLERANCE * b.abs().max(1.0)
        }
        (got, expected) => got == expected,
    }
}
