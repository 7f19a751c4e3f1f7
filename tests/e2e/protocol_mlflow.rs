//! MLflow's scoring protocol, at the model's path and at MLflow's own paths, through both doors.

use serde_json::json;
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR};

use super::protocol::{MODEL, iris};

const CSV: &str = "\
petal_width,petal_length,sepal_width,sepal_length
0.2,1.4,3.5,5.1
2.3,5.2,3.0,6.7
";

#[test]
fn every_mlflow_input_format_is_accepted() {
    let columns = ["petal_width", "petal_length", "sepal_width", "sepal_length"];
    let rows = [[0.2, 1.4, 3.5, 5.1], [2.3, 5.2, 3.0, 6.7]];
    let in_order = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]];
    let records = rows.map(|row| {
        columns.into_iter().map(str::to_owned).zip(row.map(|cell| json!(cell))).collect()
    });
    let records: [serde_json::Map<_, _>; 2] = records;
    let by_column = json!({
        "petal_width": [0.2, 2.3], "petal_length": [1.4, 5.2],
        "sepal_width": [3.5, 3.0], "sepal_length": [5.1, 6.7],
    });
    for settings in ["", STANDARD_DOOR] {
        let spinfer = Launch::new(&Manifest::default().with_iris("iris", 1, "/...", settings)).up();
        for path in ["/invocations", "/v2/models/iris-classifier/invocations"] {
            let invoke = |content_type: &str, body: &str| {
                let response =
                    spinfer.send("POST", path, &[("content-type", content_type)], body.as_bytes());
                assert_eq!(response.status, 200, "{body}: {}", response.text());
                assert_eq!(
                    response.json(),
                    json!({"predictions": ["setosa", "virginica"]}),
                    "{body}"
                );
            };
            for body in [
                json!({"dataframe_split": {"columns": columns, "index": [0, 1], "data": rows}}),
                json!({"dataframe_records": records}),
                json!({"instances": in_order}),
                json!({"instances": records}),
                json!({"inputs": in_order, "params": {}}),
                json!({"inputs": {"features": in_order}}),
                json!({"inputs": by_column}),
            ] {
                invoke("application/json", &body.to_string());
            }
            invoke("text/csv", CSV);
            invoke("text/csv; charset=utf-8", &CSV.replace('\n', "\r\n"));
        }
        for path in ["/ping", "/health", "/iris/ping"] {
            let response = spinfer.get(path);
            assert_eq!((response.status, response.text()), (200, "\n".to_owned()));
        }
        let version = spinfer.get("/version");
        assert_eq!(version.status, 200);
        assert_eq!(version.text().split('.').count(), 3, "{}", version.text());
    }
}

#[test]
fn invalid_table_is_400_with_the_expected_form() {
    let spinfer = iris();
    let json = "application/json";
    for (content_type, body, status, parts) in [
        (json, "{}", 400, vec!["dataframe_split", "dataframe_records", "instances", "inputs"]),
        (json, r#"{"inputs": [[1, 2, 3]]}"#, 400, vec!["inputs[0]", "expected 4 numbers"]),
        (json, r#"{"dataframe_records": [{"a": 1}]}"#, 400, vec!["\"sepal_length\" is missing"]),
        (
            json,
            r#"{"dataframe_split": {"columns": ["a"], "data": [[1]]}}"#,
            400,
            vec!["columns", "\"sepal_length\" is missing"],
        ),
        ("text/csv", "5.1,3.5,1.4,0.2\n", 400, vec!["the first line", "sepal_length"]),
        ("text/csv", &CSV.replace("5.2", "x"), 400, vec!["CSV row 2", "petal_length", "got x"]),
        ("text/csv", "", 400, vec!["the body"]),
        ("application/vnd.apache.parquet", "PAR1", 400, vec!["the body as CSV"]),
    ] {
        let headers = [("content-type", content_type)];
        let response =
            spinfer.send("POST", &format!("{MODEL}/invocations"), &headers, body.as_bytes());
        assert_eq!(response.status, status, "{body}: {}", response.text());
        for part in parts {
            assert!(response.error().contains(part), "{part:?} is not in {:?}", response.error());
        }
    }
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
