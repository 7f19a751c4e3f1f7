//! The golden cases of every example model, through both doors and both protocols.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, root};

struct GoldenFile {
    model: &'static str,
    version: u32,
    /// The name and the datatype of the only input.
    input: (String, String),
    labels: Vec<String>,
    tolerance: f64,
    cases: Vec<Value>,
}

impl GoldenFile {
    fn of(model: &'static str, version: u32) -> Self {
        let folder = root().join(format!("models/{model}/{version}"));
        let golden = std::fs::read(folder.join("golden.json")).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let cases = golden["cases"].as_array().unwrap().clone();
        assert!(cases.len() > 20, "the golden file is complete");
        let toml = std::fs::read_to_string(folder.join("model.toml")).unwrap();
        let input = toml.split_once("[[inputs]]").unwrap().1;
        let labels = value(&toml, "labels").map(|labels| serde_json::from_str(labels).unwrap());
        let string = |key| serde_json::from_str(value(input, key).unwrap()).unwrap();
        Self {
            model,
            version,
            input: (string("name"), string("datatype")),
            labels: labels.unwrap_or_default(),
            tolerance: golden["tolerance"].as_f64().unwrap(),
            cases,
        }
    }

    fn check_through(&self, settings: &str) {
        let manifest = Manifest::default();
        let spinfer =
            Launch::new(&manifest.with_model(self.model, "m", self.version, "/...", settings)).up();
        let path = format!("/v2/models/{}/versions/{}", self.model, self.version);
        for case in &self.cases {
            let (name, datatype) = &self.input;
            let given = &case["inputs"][name];
            self.check_infer(&spinfer, &path, datatype, given, &case["outputs"]);
            if given["shape"][0] == 1 {
                let data = &given["data"];
                let body = match datatype.as_str() {
                    "BYTES" => json!({name: data[0]}),
                    _ => json!({"features": data}),
                };
                let response = spinfer.post(&format!("{path}/predict"), body.to_string());
                assert_eq!(response.status, 200, "{}", response.text());
                self.check_predict(&response.json(), &case["outputs"]);
            }
        }
    }

    fn check_infer(
        &self,
        spinfer: &Spinfer,
        path: &str,
        datatype: &str,
        given: &Value,
        expected: &Value,
    ) {
        let input = json!({
            "name": self.input.0, "shape": given["shape"], "datatype": datatype, "data": given["data"]
        });
        let body = json!({"inputs": [input]}).to_string();
        let response = spinfer.post(&format!("{path}/infer"), body);
        assert_eq!(response.status, 200, "{}", response.text());
        let response = response.json();
        let outputs = response["outputs"].as_array().unwrap();
        assert_eq!(outputs.len(), expected.as_object().unwrap().len());
        for output in outputs {
            let expected = &expected[output["name"].as_str().unwrap()];
            assert_eq!(output["shape"], expected["shape"]);
            if output["datatype"] == "FP32" {
                self.assert_close(&output["data"], &expected["data"]);
            } else {
                assert_eq!(output["data"], expected["data"]);
            }
        }
    }

    fn check_predict(&self, response: &Value, expected: &Value) {
        if self.labels.is_empty() {
            let (_, expected) = expected.as_object().unwrap().iter().next().unwrap();
            self.assert_close(&json!([response["prediction"]]), &expected["data"]);
            return;
        }
        let label = expected["label"]["data"][0].as_u64().unwrap() as usize;
        assert_eq!(response["prediction"], json!(self.labels[label]));
        let of_each = self.labels.iter().map(|name| response["probabilities"][name].clone());
        let expected = &expected["probabilities"]["data"];
        self.assert_close(&of_each.collect(), expected);
        self.assert_close(&json!([response["probability"]]), &json!([expected[label]]));
    }

    fn assert_close(&self, got: &Value, expected: &Value) {
        let (got, expected) = (got.as_array().unwrap(), expected.as_array().unwrap());
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            let difference = got.as_f64().unwrap() - expected.as_f64().unwrap();
            assert!(
                difference.abs() <= self.tolerance,
                "{got} is not {expected} within {}",
                self.tolerance
            );
        }
    }
}

/// The value after the first `key =` of a model.toml. Those of the examples are one line of JSON.
fn value<'a>(toml: &'a str, key: &str) -> Option<&'a str> {
    toml.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
}

#[test]
fn logistic_regression_matches_its_golden_file_through_the_fast_door() {
    GoldenFile::of("iris-classifier", 1).check_through("");
}

#[test]
fn logistic_regression_matches_its_golden_file_through_the_standard_door() {
    GoldenFile::of("iris-classifier", 1).check_through(STANDARD_DOOR);
}

#[test]
fn random_forest_matches_its_golden_file_through_the_fast_door() {
    GoldenFile::of("iris-classifier", 2).check_through("");
}

#[test]
fn random_forest_matches_its_golden_file_through_the_standard_door() {
    GoldenFile::of("iris-classifier", 2).check_through(STANDARD_DOOR);
}

#[test]
fn gradient_boosting_matches_its_golden_file_through_the_fast_door() {
    GoldenFile::of("diabetes-regressor", 1).check_through("");
}

#[test]
fn gradient_boosting_matches_its_golden_file_through_the_standard_door() {
    GoldenFile::of("diabetes-regressor", 1).check_through(STANDARD_DOOR);
}

#[test]
fn convolutional_network_matches_its_golden_file_through_the_fast_door() {
    GoldenFile::of("digits-classifier", 1).check_through("");
}

#[test]
fn convolutional_network_matches_its_golden_file_through_the_standard_door() {
    GoldenFile::of("digits-classifier", 1).check_through(STANDARD_DOOR);
}

#[test]
fn naive_bayes_matches_its_golden_file_through_the_fast_door() {
    GoldenFile::of("language-identifier", 1).check_through("");
}

#[test]
fn naive_bayes_matches_its_golden_file_through_the_standard_door() {
    GoldenFile::of("language-identifier", 1).check_through(STANDARD_DOOR);
}
