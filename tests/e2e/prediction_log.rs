//! The prediction log: which responses have records, and their content.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer, root, run};

const ID: &str = "spinfer-prediction-id";
const PREDICT: &str = "/v2/models/iris-classifier/predict";
const INFER: &str = "/v2/models/iris-classifier/infer";
const INVOCATIONS: &str = "/v2/models/iris-classifier/invocations";
const SETOSA: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
const TENSOR: &str =
    r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}"#;
const TABLE: &str = r#"{"inputs": [[5.1, 3.5, 1.4, 0.2]]}"#;

fn iris(settings: &str) -> Manifest {
    Manifest::default().with_iris("iris", 1, "/...", settings)
}

/// The id of a response: a UUID of version 7.
fn id(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    let id = response.header(ID).unwrap_or_else(|| panic!("no {ID} in {response:?}")).to_owned();
    assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id}");
    id
}

#[test]
fn each_prediction_response_has_a_unique_id() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = Launch::new(&iris(door)).up();
        let mut ids = HashSet::new();
        for (path, body) in [(PREDICT, SETOSA), (INFER, TENSOR), (INVOCATIONS, TABLE)] {
            // An id in the request is ignored, and a cached response has its own.
            let forged = "00000000-0000-7000-8000-000000000000";
            for (headers, cached) in [(&[][..], false), (&[(ID, forged)], true)] {
                let response = spinfer.send("POST", path, headers, body.as_bytes());
                let hit =
                    response.header("cache-status").is_some_and(|status| status.contains("hit"));
                assert_eq!(hit, cached, "{path} {response:?}");
                assert!(ids.insert(id(&response)), "an id is used twice");
            }
        }
        for response in [
            spinfer.get("/v2/models/iris-classifier"),
            spinfer.get("/v2/models/iris-classifier/ready"),
            spinfer.post(PREDICT, "{}"),
            spinfer.get("/v2"),
        ] {
            assert_eq!(response.header(ID), None, "{response:?}");
        }
    }
}

#[test]
fn unlogged_response_has_no_id() {
    for settings in ["enabled = false", "sample = 0.0"] {
        let settings = format!("tool.spinfer.prediction_log.{settings}\n");
        let spinfer = Launch::new(&iris(&settings)).up();
        assert_eq!(spinfer.post(PREDICT, SETOSA).header(ID), None);
    }
    // A component overrides the setting of the application.
    let off = "tool.spinfer.prediction_log.enabled = false\n";
    let manifest = Manifest::default()
        .with_settings(off)
        .with_iris("on", 1, "/on/...", "tool.spinfer.prediction_log.enabled = true\n")
        .with_iris("off", 1, "/off/...", "");
    let spinfer = Launch::new(&manifest).up();
    id(&spinfer.post("/on/predict", SETOSA));
    assert_eq!(spinfer.post("/off/predict", SETOSA).header(ID), None);
}

#[test]
fn sample_selects_a_share_of_the_requests() {
    let spinfer = Launch::new(&iris("tool.spinfer.prediction_log.sample = 0.5\n")).up();
    let client = spinfer.client();
    let responses = (0..200).map(|_| client.send("POST", PREDICT, &[], SETOSA.as_bytes()));
    let sampled = responses.filter(|response| response.header(ID).is_some()).count();
    // Six standard deviations, which one run in a billion exceeds.
    assert!((58..=142).contains(&sampled), "{sampled}");
}

#[test]
fn unknown_field_in_drop_is_reported_at_startup() {
    let spinfer = Launch::new(&iris("tool.spinfer.prediction_log.drop = [\"sepal\"]\n")).up();
    spinfer.wait_for_log(
        "prediction_log.drop: no mounted model has a field \"sepal\"; available fields: sepal_length",
    );
    spinfer.wait_for_log("probabilities, prediction, probability; attributes: operation, id");
}

#[test]
fn invalid_appends_are_refused_and_reported_once() {
    let spinfer =
        Launch::new(&Manifest::default().with("/a/...", "a", "hostile", "")).uncached().up();
    id(&spinfer.get("/a/log/one?x"));
    for _ in 0..2 {
        let response = spinfer.get("/a/log/nonsense");
        assert_eq!((response.text().as_str(), response.header(ID)), ("14 of 14 refused", None));
        let response = spinfer.get("/a/log/flood?1000");
        assert!(response.text().contains("the limit is 1048576"), "{}", response.text());
    }
    let refused = "predictions refused";
    spinfer.wait_for_log(refused);
    assert_eq!(spinfer.log().matches(refused).count(), 1);
}

/// The records of an application after its host has exited, in the order in which they were written.
fn records(folder: &Path) -> Vec<Value> {
    let (manifest, state) = (folder.join("spin.toml"), folder.join("state"));
    let paths = [manifest.to_str().unwrap(), state.to_str().unwrap()];
    let [manifest, state] = paths;
    let arguments =
        ["log", "export", "--from", manifest, "--state-dir", state, "--format", "jsonl", "-o", "-"];
    let (status, text) = run(&arguments);
    assert!(status.success(), "{text}");
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The result of `send` on a host, and the records that they leave.
fn recorded<T>(manifest: &Manifest, send: impl FnOnce(&Spinfer) -> T) -> (T, Vec<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest.text()).unwrap();
    let state = dir.path().join("state");
    let mut spinfer = Launch::from_file(&path).state_dir(state).up();
    let got = send(&spinfer);
    spinfer.terminate();
    assert!(spinfer.wait().success());
    (got, records(dir.path()))
}

fn by_id(records: &[Value]) -> HashMap<String, Vec<&Value>> {
    let mut by_id: HashMap<_, Vec<_>> = HashMap::new();
    for record in records {
        by_id.entry(record["id"].as_str().unwrap().to_owned()).or_default().push(record);
    }
    by_id
}

#[test]
fn record_is_the_same_for_every_protocol_and_door() {
    for door in ["", STANDARD_DOOR] {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (ids, records) = recorded(&iris(door), |spinfer| {
            [(PREDICT, SETOSA), (INFER, TENSOR), (INVOCATIONS, TABLE)].map(|(path, body)| {
                let headers = [("traceparent", traceparent)];
                id(&spinfer.send("POST", path, &headers, body.as_bytes()))
            })
        });
        assert_eq!(records.len(), 3, "{records:?}");
        let by_id = by_id(&records);
        for (id, operation) in ids.iter().zip(["predict", "infer", "invocations"]) {
            let [record] = *by_id[id] else { panic!("not one record of {id}") };
            for (key, value) in [
                ("row", json!(0)),
                ("model", json!("iris-classifier")),
                ("version", json!("1")),
                ("route", json!("/...")),
                ("component", json!("iris")),
                ("experiment", Value::Null),
                ("variant", Value::Null),
                ("unit", Value::Null),
                ("propensity", Value::Null),
                ("failed_over", Value::Null),
                ("cache", json!("miss")),
                ("status", json!(200)),
                ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
                ("attributes", json!({ "operation": operation })),
            ] {
                assert_eq!(record[key], value, "{operation} {key}: {record}");
            }
            assert!(record["latency_us"].as_u64().unwrap() > 0);
            let inputs = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
                .map(|name| record["inputs"][name].as_f64().unwrap());
            assert_eq!(inputs.map(|value| (value * 10.0).round()), [51.0, 35.0, 14.0, 2.0]);
            let outputs = record["outputs"].as_object().unwrap();
            let names: HashSet<_> = outputs.keys().map(String::as_str).collect();
            let expected = [
                "prediction",
                "probability",
                "label",
                "probabilities[0]",
                "probabilities[1]",
                "probabilities[2]",
            ];
            assert_eq!(names, expected.into(), "{operation}");
            assert_eq!(outputs["prediction"], "setosa");
            assert_eq!(outputs["label"], 0);
            assert_eq!(outputs["probability"], outputs["probabilities[0]"]);
        }
    }
}

#[test]
fn batch_is_logged_as_one_record_per_row() {
    let body = r#"{"id": "mine", "instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}"#;
    let (id, records) = recorded(&iris(""), |spinfer| id(&spinfer.post(PREDICT, body)));
    assert_eq!(records.len(), 2);
    for (row, (record, species)) in records.iter().zip(["setosa", "virginica"]).enumerate() {
        assert_eq!((&record["id"], &record["row"]), (&json!(id), &json!(row)));
        assert_eq!(record["outputs"]["prediction"], species);
        assert_eq!(record["attributes"], json!({"operation": "predict", "id": "mine"}));
    }
}

#[test]
fn cached_response_has_its_own_record() {
    let (ids, records) =
        recorded(&iris(""), |spinfer| [(); 3].map(|()| id(&spinfer.post(PREDICT, SETOSA))));
    assert_eq!(records.len(), 3);
    let by_id = by_id(&records);
    let outcomes = ids.each_ref().map(|id| by_id[id][0]["cache"].as_str().unwrap());
    assert_eq!(outcomes, ["miss", "hit", "hit"]);
    let outputs = ids.each_ref().map(|id| (&by_id[id][0]["inputs"], &by_id[id][0]["outputs"]));
    assert!(outputs.iter().all(|of| *of == outputs[0]));
}

#[test]
fn concurrent_requests_have_separate_records() {
    const CLIENTS: usize = 32;
    const EACH: usize = 20;
    let settings = format!("{STANDARD_DOOR}tool.spinfer.reuse.concurrency = 16\n");
    let (sent, records) = recorded(&iris(&settings), |spinfer| {
        std::thread::scope(|scope| {
            let client = |client: usize| {
                scope.spawn(move || {
                    let connection = spinfer.client();
                    let send = |n: usize| {
                        let length = client * EACH + n;
                        let body = format!(r#"{{"features": [{length}, 3.5, 1.4, 0.2]}}"#);
                        let response = connection.send("POST", PREDICT, &[], body.as_bytes());
                        (id(&response), length as f64)
                    };
                    (0..EACH).map(send).collect::<Vec<_>>()
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
        })
    });
    assert_eq!(records.len(), CLIENTS * EACH);
    let by_id = by_id(&records);
    for (id, length) in sent {
        let [record] = *by_id[&id] else { panic!("not one record of {id}") };
        assert_eq!(record["inputs"]["sepal_length"].as_f64(), Some(length), "{record}");
    }
}

#[test]
fn fields_are_dropped_and_hashed() {
    let settings = "tool.spinfer.prediction_log.drop = [\"probabilities\", \"petal_width\"]\n\
                    tool.spinfer.prediction_log.hash = [\"sepal_length\", \"id\"]\n";
    let (_, records) = recorded(&iris(settings), |spinfer| {
        let body = r#"{"id": "ada", "features": [5.1, 3.5, 1.4, 0.2]}"#;
        [(); 2].map(|()| id(&spinfer.post(PREDICT, body)))
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        let names = |key: &str| {
            let names = record[key].as_object().unwrap().keys();
            names.map(String::as_str).collect::<HashSet<_>>()
        };
        assert_eq!(names("inputs"), ["sepal_length", "sepal_width", "petal_length"].into());
        assert_eq!(names("outputs"), ["prediction", "probability", "label"].into());
        for hashed in [&record["inputs"]["sepal_length"], &record["attributes"]["id"]] {
            let token = hashed.as_str().unwrap();
            assert!(token.len() == 16 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert_eq!(record["inputs"], records[0]["inputs"]);
    }
}

#[test]
fn image_is_logged_by_type_and_length() {
    let manifest = Manifest::default().with_model("digits-classifier", "digits", 1, "/...", "");
    let png = std::fs::read(root().join("tests/images/grey-8x8.png")).unwrap();
    let (_, records) = recorded(&manifest, |spinfer| {
        let headers = [("content-type", "image/png")];
        id(&spinfer.send("POST", "/predict", &headers, &png))
    });
    let [record] = &*records else { panic!("{records:?}") };
    assert_eq!(record["inputs"], json!({}));
    assert_eq!(record["omitted"], json!(["pixels[64]"]));
    let attributes = json!({
        "operation": "predict",
        "content_type": "image/png",
        "content_length": png.len().to_string(),
    });
    assert_eq!(record["attributes"], attributes);
    assert!(record["outputs"]["prediction"].is_string());
}

#[test]
fn failed_request_is_logged_with_what_it_appended_whatever_the_sample() {
    for sample in ["1.0", "0.0"] {
        let settings = format!("tool.spinfer.prediction_log.sample = {sample}\n");
        let manifest = Manifest::default().with("/a/...", "a", "hostile", &settings);
        let (failed, records) = recorded(&manifest, |spinfer| {
            let nothing_appended = spinfer.get("/a/log/aliased");
            assert_eq!((nothing_appended.status, nothing_appended.header(ID)), (500, None));
            let failed = spinfer.get("/a/log/one-and-trap?failed");
            assert_eq!(failed.status, 500);
            let served = spinfer.get("/a/log/one?served");
            assert_eq!(served.header(ID).is_some(), sample == "1.0");
            failed.header(ID).expect("the failed request is logged").to_owned()
        });
        let of_failed = records.iter().find(|record| record["id"] == failed.as_str()).unwrap();
        assert_eq!((&of_failed["status"], &of_failed["sample"]), (&json!(500), &json!(1.0)));
        assert_eq!(of_failed["inputs"], json!({"x": "failed"}));
        assert_eq!(records.len(), if sample == "1.0" { 2 } else { 1 });
    }
}

#[test]
fn request_that_asks_for_it_is_logged_unless_the_operator_forbids_it() {
    let iris = iris("tool.spinfer.prediction_log.sample = 0.0\n");
    let predict = |spinfer: &Spinfer, value: &str| {
        spinfer.send("POST", PREDICT, &[("spinfer-log", value)], SETOSA.as_bytes())
    };
    let (asked, records) = recorded(&iris, |spinfer| {
        assert_eq!(predict(spinfer, "yes").header(ID), None);
        // Also if the response is cached by then.
        [id(&predict(spinfer, "always")), id(&predict(spinfer, "always"))]
    });
    let ids: Vec<_> = records.iter().map(|record| record["id"].as_str().unwrap()).collect();
    assert_eq!(ids, asked);
    assert!(records.iter().all(|record| record["sample"] == 1.0), "{records:?}");
    let forbidden = Launch::new(&iris).runtime_config("prediction_log.on_request = false\n").up();
    assert_eq!(predict(&forbidden, "always").header(ID), None);
}

#[test]
fn allow_list_and_rounding_hold_for_records_and_cached_responses() {
    let settings = "tool.spinfer.prediction_log.keep = [\"prediction\", \"sepal_width\"]\n\
                    tool.spinfer.prediction_log.round = { petal_length = 0.5, probability = 0.1 }\n";
    let (_, records) = recorded(&iris(settings), |spinfer| {
        [id(&spinfer.post(PREDICT, SETOSA)), id(&spinfer.post(PREDICT, SETOSA))]
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        assert_eq!(record["inputs"], json!({ "sepal_width": 3.5, "petal_length": 1.5 }));
        assert_eq!(record["outputs"], json!({ "prediction": "setosa", "probability": 1.0 }));
        assert_eq!(record["attributes"], json!({}));
    }
}
