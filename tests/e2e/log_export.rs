//! Datasets that `spinfer log export --to` writes: to a folder and to a real S3 server, read back by pandas,
//! pyarrow and DuckDB.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Spinfer, root, run, run_in, wait_until};

const SECRET: &str = "secret";

fn python(script: &str) -> Command {
    let python = root().join("target/python/bin/python");
    assert!(
        python.exists(),
        "the Python packages are not installed at {}: run `make clients`, which needs the network once",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(root().join("tests/python").join(script));
    command
}

/// The dataset at `arguments`, as `read_dataset.py` prints it.
fn read(arguments: &[&str]) -> Value {
    let output = python("read_dataset.py").args(arguments).output().expect("python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// An S3 server with the bucket `logs`.
struct S3Server {
    process: Child,
    url: String,
}

impl S3Server {
    fn start() -> Self {
        let mut process = python("s3_server.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { process, url: url.trim().to_owned() }
    }

    fn environment(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.url),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
        ]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It exits at the end of its standard input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Models that return their input, of each datatype, and iris.
struct LoggedModels {
    spinfer: Spinfer,
    folder: tempfile::TempDir,
}

impl LoggedModels {
    fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest =
            Manifest::default().with_iris("iris", 1, "/v2/models/iris-classifier/...", "");
        for (model, datatype) in [("fp32", "FP32"), ("fp64", "FP64"), ("i64", "INT64")] {
            let version = folder.path().join(model);
            std::fs::create_dir(&version).unwrap();
            let graph = root().join(format!("tests/models/identity-{model}.onnx"));
            std::fs::copy(graph, version.join("model.onnx")).unwrap();
            let tensor = |key: &str, name: &str| {
                format!("[[{key}]]\nname = \"{name}\"\ndatatype = \"{datatype}\"\nshape = [-1]\n")
            };
            let text = format!("name = \"{model}\"\nversion = \"1\"\n");
            let text = text + &tensor("inputs", "x") + &tensor("outputs", "y");
            std::fs::write(version.join("model.toml"), text).unwrap();
            manifest = manifest.with(
                &format!("/v2/models/{model}/..."),
                model,
                "generic_model",
                &mounted(&version, model),
            );
        }
        let echo = root().join("tests/models/datatypes/echo");
        let manifest =
            manifest.with("/v2/models/echo/...", "echo", "generic_model", &mounted(&echo, "echo"));
        let spinfer = Launch::new(&manifest).uncached().state_dir(folder.path().join("state")).up();
        Self { spinfer, folder }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Sends the values to the model of that name.
    fn infer(&self, model: &str, tensors: &[(&str, &str, &str)]) {
        let tensor = |(name, datatype, data): &(&str, &str, &str)| {
            let shape = if model == "echo" {
                "[2, 1]".to_owned()
            } else {
                format!("[{}]", data.split(',').count())
            };
            format!(
                r#"{{"name": "{name}", "datatype": "{datatype}", "shape": {shape}, "data": [{data}]}}"#
            )
        };
        let tensors: Vec<_> = tensors.iter().map(tensor).collect();
        let body = format!(r#"{{"inputs": [{}]}}"#, tensors.join(","));
        let response = self.spinfer.post(&format!("/v2/models/{model}/infer"), body);
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// Predicts with iris. Returns the id, once the record is in the file.
    fn predict(&self, features: &str) -> String {
        let body = format!(r#"{{"features": {features}}}"#);
        let response = self.spinfer.post("/v2/models/iris-classifier/predict", body);
        assert_eq!(response.status, 200, "{}", response.text());
        let id = response.header("spinfer-prediction-id").expect("it is logged").to_owned();
        let state = self.state();
        let show = ["log", "show", &id, "--state-dir", state.to_str().unwrap()];
        wait_until("the record is written", || run(&show).0.success());
        id
    }

    fn export(&self, environment: &[(&str, &str)], to: &str) -> Result<String, String> {
        export(&self.state(), environment, to)
    }
}

fn mounted(folder: &Path, model: &str) -> String {
    format!("files = [{{ source = \"{}\", destination = \"/models/{model}\" }}]", folder.display())
}

fn export(state: &Path, environment: &[(&str, &str)], to: &str) -> Result<String, String> {
    let state = state.to_str().unwrap();
    let arguments = ["log", "export", "--to", to, "--state-dir", state];
    let (status, text) = run_in(environment, &arguments);
    if status.success() { Ok(text) } else { Err(text) }
}

fn bits(value: f64) -> Value {
    format!("bits {:016x}", value.to_bits()).into()
}

/// The values of `column` in a table, after a check that all readers agree on every value.
fn column(dataset: &Value, table: &str, column: &str) -> Vec<Value> {
    let readers = &dataset[table];
    assert_eq!(readers["pyarrow"], readers["duckdb"], "{table}");
    assert_eq!(readers["pyarrow"], readers["pandas"], "{table}");
    let rows = readers["pyarrow"].as_array().unwrap_or_else(|| panic!("{table} in {dataset}"));
    rows.iter().map(|row| row[column].clone()).collect()
}

#[test]
fn dataset_is_read_back_bit_for_bit_by_pandas_pyarrow_and_duckdb() {
    let app = LoggedModels::up();
    let singles = [0.1_f32, -0.0, f32::from_bits(1), f32::MIN_POSITIVE, f32::MAX, 16_777_217.0];
    let doubles = [0.1, -0.0, f64::from_bits(1), f64::MIN_POSITIVE, f64::MAX, 1.0 / 3.0];
    let integers = [i64::MIN, i64::MAX, -1, 9_007_199_254_740_993];
    let listed = |texts: Vec<String>| texts.join(",");
    app.infer(
        "fp32",
        &[("x", "FP32", &listed(singles.iter().map(|x| format!("{x:?}")).collect()))],
    );
    app.infer(
        "fp64",
        &[("x", "FP64", &listed(doubles.iter().map(|x| format!("{x:?}")).collect()))],
    );
    app.infer(
        "i64",
        &[("x", "INT64", &listed(integers.iter().map(ToString::to_string).collect()))],
    );
    app.infer(
        "echo",
        &[
            ("x0", "BOOL", "true,false"),
            ("x1", "INT8", "-128,127"),
            ("x2", "INT16", "0,1"),
            ("x3", "UINT16", "0,65535"),
            ("x4", "UINT32", "0,4294967295"),
            ("x5", "UINT64", "0,1"),
            ("x6", "BYTES", r#""R\u00f3ma \"\n\ud83c\udf3f","""#),
        ],
    );
    let missing = app.predict("[5.1, null, 1.4, 0.2]");
    let feedback = json!({ "prediction_id": missing, "label": "setosa" }).to_string();
    assert_eq!(app.spinfer.post("/v2/feedback", feedback).status, 200);
    let server = S3Server::start();
    let folder = app.folder.path().join("data set");
    let folder = folder.to_str().unwrap();
    let expected = "6 objects with 19 records and 1 feedback item";
    for (environment, to, read_at) in [
        (&[][..], folder, vec![folder]),
        (&server.environment()[..], "s3://logs/a b/c", vec!["logs/a b/c", &server.url]),
    ] {
        let text = app.export(environment, to).unwrap();
        assert!(text.contains(expected), "{text}");
        let dataset = read(&read_at);
        let doubles_of = |values: &[f64]| values.iter().map(|x| bits(*x)).collect::<Vec<_>>();
        for name in ["input.x", "output.y"] {
            assert_eq!(column(&dataset, "model=fp64", name), doubles_of(&doubles), "{to} {name}");
            let exact = integers.map(|value| Value::from(format!("integer {value}")));
            assert_eq!(column(&dataset, "model=i64", name), exact, "{to} {name}");
            // The shortest decimal of each single-precision number.
            let found = column(&dataset, "model=fp32", name);
            let found = found.iter().map(|value| {
                let bits = u64::from_str_radix(&value.as_str().unwrap()[5..], 16).unwrap();
                (f64::from_bits(bits) as f32).to_bits()
            });
            assert!(found.eq(singles.iter().map(|x| x.to_bits())), "{to} {name}");
        }
        assert_eq!(column(&dataset, "model=echo", "input.x0"), [true, false]);
        assert_eq!(column(&dataset, "model=echo", "input.x6"), ["R\u{f3}ma \"\n\u{1f33f}", ""]);
        assert_eq!(column(&dataset, "model=echo", "input.x4")[1], "integer 4294967295");
        let iris = "model=iris-classifier";
        assert_eq!(column(&dataset, iris, "input.sepal_width"), [Value::Null]);
        assert_eq!(column(&dataset, iris, "output.prediction").len(), 1);
        // Without a feature, the probabilities are NaN.
        assert_eq!(column(&dataset, iris, "output.probabilities[1]"), [Value::Null]);
        assert_eq!(column(&dataset, "feedback", "prediction_id"), [missing.as_str()]);
        assert_eq!(column(&dataset, "feedback", "label"), ["setosa"]);
        let partitions = dataset["partitions"].as_array().unwrap();
        let models: Vec<_> = partitions.iter().map(|partition| partition[0].as_str()).collect();
        assert_eq!(models, ["echo", "fp32", "fp64", "i64", "iris-classifier"].map(Some));
        assert!(partitions.iter().all(|partition| partition[1] == "1"), "{partitions:?}");
        assert_eq!(dataset["uploads"], 0);
    }
}

#[test]
fn incremental_exports_have_each_record_and_late_feedback_once() {
    let app = LoggedModels::up();
    let server = S3Server::start();
    let (environment, to) = (&server.environment()[..], "s3://logs");
    let first = app.predict("[5.1, 3.5, 1.4, 0.2]");
    assert!(app.export(environment, to).unwrap().contains("1 object with 1 record and 0 feedback"));
    assert!(app.export(environment, to).unwrap().contains("nothing new since the last export"));
    let second = app.predict("[6.7, 3.1, 4.7, 1.5]");
    for label in ["setosa", "virginica"] {
        let late = json!({ "prediction_id": first, "label": label }).to_string();
        assert_eq!(app.spinfer.post("/v2/feedback", late).status, 200);
        app.export(environment, to).unwrap();
    }
    let dataset = read(&["logs", &server.url]);
    let ids = column(&dataset, "model=iris-classifier", "id");
    let ids: HashSet<_> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(ids, HashSet::from([first.as_str(), second.as_str()]));
    assert_eq!(column(&dataset, "feedback", "label").len(), 2, "the replaced label, too");
    // Options that would leave records out of the next export are refused.
    let state = app.state();
    let arguments = ["log", "export", "--to", to, "--model", "iris-classifier", "--state-dir"];
    let (status, text) = run(&[&arguments[..], &[state.to_str().unwrap()]].concat());
    assert!(!status.success() && text.contains("cannot be used with"), "{text}");
}

#[test]
fn failed_export_reveals_no_credentials_and_the_next_one_has_everything() {
    let app = LoggedModels::up();
    app.predict("[5.1, 3.5, 1.4, 0.2]");
    let server = S3Server::start();
    let environment = server.environment();
    let error = app.export(&environment, "s3://no-such-bucket/x").unwrap_err();
    assert!(error.contains("s3://no-such-bucket/x at http://127.0.0.1:"), "{error}");
    assert!(error.contains("NoSuchBucket") && !error.contains(SECRET), "{error}");
    let error = app.export(&environment, "s3://key:secret@logs/x").unwrap_err();
    assert!(error.contains("without credentials") && !error.contains(SECRET), "{error}");
    let incomplete = [environment[0], environment[1]];
    let error = app.export(&incomplete, "s3://logs/x").unwrap_err();
    assert!(error.contains("--to: ") && error.contains("SecretAccessKey"), "{error}");
    let text = app.export(&environment, "s3://logs/x").unwrap();
    assert!(text.contains("1 object with 1 record"), "{text}");
}
