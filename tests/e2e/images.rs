//! The digits classifier with PNG files of other encoders (`tests/images`): every colour type, many sizes,
//! interlaced or not, damaged files and decompression bombs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer, root};

const PREDICT: &str = "/v2/models/digits-classifier/predict";
/// The tolerance of the model's golden file.
const TOLERANCE: f64 = 1e-5;

fn digits(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with_model("digits-classifier", "digits", 1, "/...", settings))
        .up()
}

fn image(name: &str) -> Vec<u8> {
    std::fs::read(root().join(format!("tests/images/{name}.png"))).unwrap()
}

fn send(spinfer: &Spinfer, content_type: &str, body: &[u8]) -> Response {
    spinfer.send("POST", PREDICT, &[("content-type", content_type)], body)
}

/// ONNX Runtime's outputs for the pixels that `tests/images/make.py` computes.
fn expected() -> serde_json::Map<String, Value> {
    let text = std::fs::read(root().join("tests/images/expected.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_slice(&text).unwrap();
    assert!(expected.len() >= 11, "the file of expected outputs is complete");
    expected
}

fn check(name: &str, response: &Response, expected: &Value) {
    assert_eq!(response.status, 200, "{name}: {}", response.text());
    let response = response.json();
    assert_eq!(response["prediction"], expected["prediction"], "{name}");
    for digit in 0..10 {
        let probability = response["probabilities"][digit.to_string()].as_f64().unwrap();
        let expected = expected["probabilities"][digit].as_f64().unwrap();
        assert!((probability - expected).abs() <= TOLERANCE, "{name}: {digit}: {response}");
    }
}

#[test]
fn every_kind_of_png_is_accepted_as_body_and_as_base64() {
    for settings in ["", STANDARD_DOOR] {
        let spinfer = digits(settings);
        for (name, expected) in &expected() {
            let png = image(name);
            check(name, &send(&spinfer, "image/png", &png), expected);
            let body = json!({"image": STANDARD.encode(&png)}).to_string();
            check(name, &spinfer.post(PREDICT, body), expected);
            let body = json!({"features": expected["pixels"]}).to_string();
            check(name, &send(&spinfer, "application/json", body.as_bytes()), expected);
        }
    }
}

#[test]
fn truncated_png_is_400() {
    let spinfer = digits("");
    let png = image("grey-28x28");
    for length in [0, 7, 20, 33, 60, png.len() / 2, png.len() - 20] {
        let response = send(&spinfer, "image/png", &png[..length]);
        assert_eq!(response.status, 400, "{length}: {}", response.text());
        assert!(response.error().contains("is truncated"), "{length}: {}", response.error());
    }
}

#[test]
fn invalid_image_is_refused_with_the_expected_format() {
    let spinfer = digits("");
    let mut damaged = image("grey-8x8");
    let middle = damaged.len() - 30;
    damaged[middle] ^= 1;
    let json = json!({"features": [0]}).to_string();
    let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0".as_slice();
    for (content_type, body, status, part) in [
        ("image/png", jpeg, 400, "the image: expected a PNG"),
        ("image/png", json.as_bytes(), 400, "the image: expected a PNG"),
        ("image/png", &damaged[..], 400, "the image: expected a PNG"),
        ("image/jpeg", jpeg, 415, "content-type \"image/jpeg\": expected image/png"),
        ("application/json", jpeg, 415, "expected image/png, or a JSON object"),
        ("application/json", json.as_bytes(), 400, "features: expected 64 numbers"),
        ("application/json", b"{}", 400, "\"image\", image/png in base64"),
        (
            "application/json",
            br#"{"image": "?"}"#,
            400,
            "image: expected a string, image/png in base64",
        ),
        ("application/json", br#"{"image": "AAAA"}"#, 400, "the image: "),
    ] {
        let response = send(&spinfer, content_type, body);
        assert_eq!(response.status, status, "{content_type}: {}", response.text());
        assert!(response.error().contains(part), "{part:?} is not in {:?}", response.error());
    }
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// Each bomb is a few kilobytes. The instance has half of the default memory.
#[test]
fn image_bomb_is_contained() {
    let spinfer = digits("tool.spinfer.limits.instance_memory = \"64MiB\"\n");
    let expected = expected();
    for (bomb, status, part) in [
        ("bomb-picture", 413, "the image: expected at most 4194304 pixels, got 60000x60000"),
        // Data after the last row, text chunks and colour profiles are skipped without decompression.
        ("bomb-scanlines", 200, "prediction"),
        ("bomb-chunks", 200, "prediction"),
    ] {
        let response = send(&spinfer, "image/png", &image(bomb));
        assert_eq!(response.status, status, "{bomb}: {}", response.text());
        assert!(response.text().contains(part), "{bomb}: {}", response.text());
    }
    let name = "grey-28x28";
    check(name, &send(&spinfer, "image/png", &image(name)), &expected[name]);
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
