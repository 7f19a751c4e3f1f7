//! A request that an added model answers, to copy into a shell. Names in it are the file's: nothing of
//! them may mean anything to the shell.

use super::classifier;
use super::examine::Examined;
use super::model_toml::width;
use crate::commands::signature::Tensor;

/// More numbers than that the shell makes.
const WRITTEN_MOST: usize = 64;

/// A part of a request's body.
enum Part {
    /// As it is.
    Text(String),
    /// What a shell makes it with.
    Command(String),
}

/// The line, for a model at `path` of the address that `spinfer up` serves on unless it is told another.
pub(super) fn line(path: &str, examined: &Examined) -> String {
    let url = format!("localhost:3000{path}");
    let features: Option<usize> = examined.inputs.iter().map(width).sum();
    let text = |text: &str| Part::Text(text.to_owned());
    if let Some(features) = features.filter(|_| has_short_form(examined)) {
        let numbers = numbers(features, examined.inputs.iter().any(is_integer));
        let body = word(&[text("{\"features\": ["), numbers, text("]}")]);
        return format!("curl {url}/predict -d {body}");
    }
    let mut body = vec![text("{\"inputs\": [")];
    for (index, tensor) in examined.inputs.iter().enumerate() {
        body.extend((index > 0).then(|| text(", ")));
        body.extend(input(tensor));
    }
    body.push(text("]}"));
    format!("curl {url}/infer -d {}", word(&body))
}

/// As `model_sdk` decides: one prediction for each row.
fn has_short_form(examined: &Examined) -> bool {
    let (classes, _) = classifier(examined);
    match examined.outputs.len() {
        1 => classes || !is_integer(&examined.outputs[0]),
        2 => classes && examined.outputs.iter().filter(|output| is_integer(output)).count() == 1,
        _ => false,
    }
}

fn is_integer(tensor: &Tensor) -> bool {
    matches!(tensor.datatype, "UINT8" | "INT32" | "INT64")
}

/// An input of the Open Inference Protocol: of one row, and other free axes 1.
fn input(tensor: &Tensor) -> [Part; 3] {
    let Tensor { name, datatype, shape } = tensor;
    let shape: Vec<i64> =
        shape.iter().flatten().map(|&axis| if axis == -1 { 1 } else { axis }).collect();
    let sizes = shape.iter().map(|&axis| usize::try_from(axis).ok());
    let count = sizes.into_iter().try_fold(1_usize, |count, size| count.checked_mul(size?));
    let name = serde_json::Value::from(name.as_str());
    let start = format!(
        "{{\"name\": {name}, \"shape\": {shape:?}, \"datatype\": \"{datatype}\", \"data\": ["
    );
    let numbers = numbers(count.unwrap_or(usize::MAX), is_integer(tensor));
    [Part::Text(start), numbers, Part::Text("]}".to_owned())]
}

fn numbers(count: usize, whole: bool) -> Part {
    if count > WRITTEN_MOST {
        let number = if whole { "1" } else { "0.5" };
        return Part::Command(format!("yes {number} | head -n {count} | paste -sd , -"));
    }
    let number = |index: usize| match (whole, index % 10) {
        (true, _) => "1".to_owned(),
        (false, digit) => format!("{}.5", digit / 2),
    };
    Part::Text((0..count).map(number).collect::<Vec<_>>().join(", "))
}

/// One word of a shell: text stands in single quotes, where a shell reads nothing into it.
fn word(parts: &[Part]) -> String {
    let mut word = String::from("'");
    for part in parts {
        match part {
            Part::Text(text) => word += &text.replace('\'', "'\\''"),
            Part::Command(command) => word += &format!("'\"$({command})\"'"),
        }
    }
    word + "'"
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn tensor(name: &str, datatype: &'static str, shape: &[i64]) -> Tensor {
        Tensor { name: name.into(), datatype, shape: Some(shape.to_vec()) }
    }

    fn of(inputs: Vec<Tensor>, outputs: Vec<Tensor>) -> Examined {
        let producer = String::new();
        Examined { backend: "lean", inputs, outputs, producer, random: false, not_run: None }
    }

    /// What a shell makes of it: the arguments of `curl`.
    fn arguments(line: &str) -> Vec<String> {
        let script = format!("curl() {{ printf '%s\\n' \"$@\"; }}; {line}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_short_form_or_tensors() {
        let x = || vec![tensor("x", "FP32", &[-1, 3])];
        let short = of(x(), vec![tensor("y", "FP32", &[-1, 1])]);
        assert_eq!(
            line("/v2/models/m", &short),
            r#"curl localhost:3000/v2/models/m/predict -d '{"features": [0.5, 0.5, 1.5]}'"#
        );
        let outputs = vec![tensor("y", "FP32", &[-1, 1]), tensor("z", "FP32", &[-1])];
        assert_eq!(
            line("/m", &of(x(), outputs)),
            r#"curl localhost:3000/m/infer -d '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.5, 0.5, 1.5]}]}'"#
        );
    }

    #[test]
    fn names_mean_nothing_to_the_shell() {
        let name = "'$(echo gone)`echo gone`\"\\ ''";
        for width in [1, 500] {
            let hostile = of(vec![tensor(name, "INT64", &[-1, -1, width])], Vec::new());
            let arguments = arguments(&line("/m", &hostile));
            assert_eq!(arguments[..2], ["localhost:3000/m/infer", "-d"]);
            let body: serde_json::Value = serde_json::from_str(&arguments[2]).unwrap();
            let input = &body["inputs"][0];
            assert_eq!(input["name"], name);
            assert_eq!(input["data"].as_array().unwrap().len(), usize::try_from(width).unwrap());
        }
    }
}
