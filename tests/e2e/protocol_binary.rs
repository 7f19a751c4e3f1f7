//! The binary tensor data extension: tensors after the JSON, in requests and responses through both doors,
//! and inconsistent sizes.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer};

use super::protocol::{MODEL, iris};

const ROWS: [[f32; 4]; 2] = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]];

fn bytes() -> Vec<u8> {
    ROWS.iter().flatten().flat_map(|feature| feature.to_le_bytes()).collect()
}

/// A request for the two rows, which `data` contains or announces.
fn request(data: &Value, more: &Value) -> String {
    let mut input = json!({"name": "features", "shape": [2, 4], "datatype": "FP32"});
    input.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    let mut body = json!({"inputs": [input]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

fn infer(spinfer: &Spinfer, json: &str, header: Option<&str>, behind: &[u8]) -> Response {
    let body = [json.as_bytes(), behind].concat();
    let header = header.map(|value| ("Inference-Header-Content-Length", value));
    spinfer.send("POST", &format!("{MODEL}/infer"), header.as_slice(), &body)
}

/// The JSON of a response, and the bytes after it.
fn split(response: &Response) -> (Value, &[u8]) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/octet-stream"));
    let length = response.header("inference-header-content-length").unwrap();
    let (json, behind) = response.body.split_at(length.parse().unwrap());
    (serde_json::from_slice(json).unwrap(), behind)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn binary_tensors_are_accepted_and_returned() {
    let size = json!({"parameters": {"binary_data_size": 32}});
    let all = json!({"id": "b", "parameters": {"binary_data_output": true}});
    for settings in ["", STANDARD_DOOR] {
        let spinfer = Launch::new(&Manifest::default().with_iris("iris", 1, "/...", settings)).up();
        let plain = infer(&spinfer, &request(&json!({"data": ROWS}), &json!({})), None, &[]).json();
        let probabilities: Vec<f32> =
            serde_json::from_value(plain["outputs"][1]["data"].clone()).unwrap();

        // Binary request, JSON response.
        let json = request(&size, &json!({}));
        let response = infer(&spinfer, &json, Some(&json.len().to_string()), &bytes());
        assert_eq!(response.json()["outputs"], plain["outputs"]);

        // Binary response to a binary request, and to a JSON request.
        let binary = request(&size, &all);
        let length = binary.len().to_string();
        let from_json = request(&json!({"data": ROWS}), &all);
        for response in [
            infer(&spinfer, &binary, Some(&length), &bytes()),
            infer(&spinfer, &from_json, None, &[]),
        ] {
            let (json, behind) = split(&response);
            assert_eq!(
                (&json["id"], &json["model_name"]),
                (&json!("b"), &json!("iris-classifier"))
            );
            assert_eq!(json["outputs"][0]["parameters"], json!({"binary_data_size": 16}));
            assert_eq!(json["outputs"][0].get("data"), None);
            assert_eq!(json["outputs"][1]["shape"], json!([2, 3]));
            let labels = [0_i64.to_le_bytes(), 2_i64.to_le_bytes()].concat();
            assert_eq!(behind[..16], labels);
            assert_eq!(floats(&behind[16..]), probabilities);
        }

        // One output of each form, in the requested order.
        let outputs = json!({"outputs": [
            {"name": "probabilities", "parameters": {"binary_data": true}},
            {"name": "label", "parameters": {"binary_data": false}},
        ]});
        let response = infer(&spinfer, &request(&json!({"data": ROWS}), &outputs), None, &[]);
        let (json, behind) = split(&response);
        assert_eq!(json["outputs"][1], plain["outputs"][0]);
        assert_eq!(floats(behind), probabilities);
    }
}

#[test]
fn inconsistent_binary_sizes_are_refused() {
    let spinfer = iris();
    let json = |size: u64| request(&json!({"parameters": {"binary_data_size": size}}), &json!({}));
    let length = json(32).len();
    for (json, header, behind, part) in [
        (json(32), Some(length), 31, "binary_data_size is 32, but only 31 bytes are left"),
        (json(32), Some(length), 33, "the body has 1 bytes after the JSON"),
        (
            json(31),
            Some(length),
            31,
            "binary_data_size is 31, but its shape and datatype require 32",
        ),
        (json(u64::MAX), Some(json(u64::MAX).len()), 32, "require 32 bytes"),
        (json(32), Some(length + 33), 32, "at most"),
        (json(32), Some(length - 1), 33, "the body: EOF"),
        (json(32), Some(length + 1), 31, "the body: "),
        (json(32), None, 0, "requires the header Inference-Header-Content-Length"),
    ] {
        let header = header.map(|length| length.to_string());
        let response = infer(&spinfer, &json, header.as_deref(), &vec![0; behind]);
        assert_eq!(response.status, 400, "{part}: {}", response.text());
        assert!(response.error().contains(part), "{part:?} is not in {:?}", response.error());
    }
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
