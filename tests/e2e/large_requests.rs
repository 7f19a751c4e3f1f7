//! Requests close to the memory of an instance: those that fit are served, and the others are refused with
//! what to send instead.

use spinfer_tests::{Launch, Manifest, Spinfer};

const MODEL: &str = "/v2/models/iris-classifier";

/// Settings with which bodies of any length go through the fast door, and through the standard door.
fn doors() -> [String; 2] {
    let fast = |size: &str| format!("tool.spinfer.limits.buffered_body = \"{size}\"\n");
    [fast("16MiB"), fast("1KiB")]
}

fn is_quiet(spinfer: &Spinfer) -> bool {
    let log = spinfer.log();
    !log.contains("WARN") && !log.contains("ERROR")
}

fn instances(count: usize) -> String {
    format!("{{\"instances\":[{}]}}", vec!["[5,3,1,0]"; count].join(","))
}

fn tensor(count: usize) -> String {
    let data = vec!["5,3,1,0"; count].join(",");
    format!(
        "{{\"inputs\":[{{\"name\":\"features\",\"shape\":[{count},4],\"datatype\":\"FP32\",\"data\":[{data}]}}]}}"
    )
}

#[test]
fn batch_whose_response_exceeds_memory_is_413_before_inference() {
    for door in doors() {
        let manifest = Manifest::default().with_iris("iris", 1, "/...", &door);
        let spinfer = Launch::new(&manifest).up();
        let csv = "sepal_length,sepal_width,petal_length,petal_width\n".to_owned()
            + &"5,3,1,0\n".repeat(1_000_000);
        for (operation, body) in [
            ("predict", instances(1_000_000)),
            ("invocations", instances(1_500_000)),
            ("invocations", csv),
            ("infer", tensor(2_000_000)),
        ] {
            let response = spinfer.post(&format!("{MODEL}/{operation}"), &body);
            assert_eq!(response.status, 413, "{operation}: {}", response.error());
            let expected = "send it in several requests, with fewer rows in each";
            assert!(response.error().contains(expected), "{}", response.error());
        }
        assert!(is_quiet(&spinfer), "{}", spinfer.log());
    }
}

#[test]
fn batch_that_fits_in_memory_is_served() {
    for door in doors() {
        let manifest = Manifest::default().with_iris("iris", 1, "/...", &door);
        let spinfer = Launch::new(&manifest).up();
        let response = spinfer.post(&format!("{MODEL}/predict"), instances(400_000));
        assert_eq!(response.status, 200, "{}", response.text());
        let predictions = response.text().matches("\"prediction\":\"setosa\"").count();
        assert_eq!(predictions, 400_000);
        assert!(is_quiet(&spinfer), "{}", spinfer.log());
    }
}

#[test]
fn millions_of_texts_are_413() {
    for door in doors() {
        let manifest = Manifest::default();
        let manifest = manifest.with_model("language-identifier", "language", 1, "/...", &door);
        let spinfer = Launch::new(&manifest).up();
        let texts = |text: &str, count: usize| vec![text; count].join(",");
        let list = |key: &str, text, count| format!("{{\"{key}\":[{}]}}", texts(text, count));
        let infer = format!(
            "{{\"inputs\":[{{\"name\":\"text\",\"shape\":[5000000],\"datatype\":\"BYTES\",\"data\":[{}]}}]}}",
            texts("\"\"", 5_000_000)
        );
        for (operation, body) in [
            ("predict", list("texts", "\"\"", 5_000_000)),
            ("predict", list("texts", "\"a\"", 4_000_000)),
            ("predict", list("instances", "[\"\"]", 3_000_000)),
            ("invocations", list("inputs", "\"\"", 5_000_000)),
            ("infer", infer),
        ] {
            let response =
                spinfer.post(&format!("/v2/models/language-identifier/{operation}"), &body);
            assert_eq!(response.status, 413, "{operation}: {}", response.error());
        }
        assert!(is_quiet(&spinfer), "{}", spinfer.log());
    }
}

#[test]
fn error_message_truncates_the_quoted_input() {
    let manifest = Manifest::default().with_iris("iris", 1, "/...", "");
    let spinfer = Launch::new(&manifest).up();
    let long = "9".repeat(14 << 20);
    let name = "\u{80}".repeat(6 << 20);
    for (operation, body, start) in [
        (
            "predict",
            format!("{{\"features\":[1],\"id\":{long}}}"),
            "id: expected a string, got 999",
        ),
        ("predict", format!("{{\"features\":[{long}]}}"), "features[0]: 999"),
        (
            "invocations",
            format!("sepal_length,sepal_width,petal_length,petal_width\n1,2,3,{long}"),
            "CSV row 1",
        ),
        (
            "infer",
            format!(
                "{{\"inputs\":[{{\"name\":\"{name}\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}}]}}"
            ),
            "input \"\\u{80}",
        ),
    ] {
        let response = spinfer.post(&format!("{MODEL}/{operation}"), &body);
        assert_eq!(response.status, 400, "{operation}: {}", response.error());
        let error = response.error();
        assert!(error.starts_with(start) && error.ends_with("...") && error.len() < 600, "{error}");
    }
    assert!(is_quiet(&spinfer), "{}", spinfer.log());
}
