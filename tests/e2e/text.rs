//! The language identifier: texts in many languages, and strings in every protocol.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};

const MODEL: &str = "/v2/models/language-identifier";

fn identifier(settings: &str) -> Spinfer {
    let manifest = Manifest::default();
    Launch::new(&manifest.with_model("language-identifier", "language", 1, "/...", settings)).up()
}

/// Texts that are not in the training data.
const TEXTS: [(&str, &str); 14] = [
    ("en", "The old man and the sea had known each other for a very long time."),
    ("de", "Der Zug nach Hamburg fährt heute leider von einem anderen Gleis ab."),
    ("fr", "Je voudrais un café et un croissant, s'il vous plaît."),
    ("es", "¿Dónde está la estación de tren más cercana?"),
    ("it", "Domani andiamo al mare con gli amici, se non piove."),
    ("pl", "Pociąg odjeżdża o ósmej rano z peronu trzeciego."),
    ("tr", "Yarın sabah erkenden kalkıp denize gideceğiz."),
    ("fi", "Huomenna menemme järvelle uimaan ja kalastamaan."),
    ("vi", "Ngày mai chúng tôi sẽ đi thăm bà ngoại ở quê."),
    ("el", "Αύριο θα πάμε στη θάλασσα με τους φίλους μας."),
    ("uk", "Завтра ми поїдемо до бабусі в село."),
    ("he", "מחר ניסע לים עם החברים שלנו."),
    ("ja", "明日は友達と一緒に海へ行きます。"),
    ("ko", "내일은 친구들과 바다에 갈 거예요."),
];

#[test]
fn languages_are_identified() {
    for settings in ["", STANDARD_DOOR] {
        let spinfer = identifier(settings);
        for (language, text) in TEXTS {
            let body = json!({"text": text}).to_string();
            let response = spinfer.post(&format!("{MODEL}/predict"), body).json();
            assert_eq!(response["prediction"], language, "{text}: {response}");
            assert_eq!(response["probabilities"][language], response["probability"]);
        }
        let texts: Vec<_> = TEXTS.iter().map(|(_, text)| text).collect();
        let languages: Vec<_> = TEXTS.iter().map(|(language, _)| json!(language)).collect();
        for body in [json!({"texts": texts}), json!({"instances": texts})] {
            let response = spinfer.post(&format!("{MODEL}/predict"), body.to_string()).json();
            let predictions = response["predictions"].as_array().unwrap();
            let predictions: Vec<_> =
                predictions.iter().map(|one| one["prediction"].clone()).collect();
            assert_eq!(predictions, languages);
        }
        let rows: Vec<_> = texts.iter().map(|text| json!([0, text])).collect();
        for body in [
            json!({"inputs": texts}),
            json!({"inputs": {"text": texts}}),
            json!({"dataframe_split": {"columns": ["id", "text"], "data": rows}}),
        ] {
            let response = spinfer.post("/invocations", body.to_string()).json();
            assert_eq!(response["predictions"], json!(languages));
        }
    }
}

#[test]
fn strings_are_accepted_and_returned_as_tensors() {
    let spinfer = identifier("");
    let metadata = spinfer.get(MODEL).json();
    let input = json!({"name": "text", "datatype": "BYTES", "shape": [-1]});
    assert_eq!(metadata["inputs"], json!([input]));
    let output = json!({"name": "language", "datatype": "BYTES", "shape": [-1]});
    assert_eq!(metadata["outputs"][2], output);

    let input = json!({"name": "text", "shape": [2], "datatype": "BYTES", "data": ["Guten Morgen, liebe Freunde", "добър ден, приятели"]});
    let infer = |body: Value| spinfer.post(&format!("{MODEL}/infer"), body.to_string()).json();
    let response = infer(json!({"inputs": [input]}));
    let names: Vec<_> =
        response["outputs"].as_array().unwrap().iter().map(|o| &o["name"]).collect();
    assert_eq!(names, ["label", "probabilities", "language"]);
    assert_eq!(response["outputs"][2]["data"], json!(["de", "bg"]));
    let wanted = json!([{"name": "language"}]);
    let only = infer(json!({"inputs": [input], "outputs": wanted}));
    assert_eq!(only["outputs"], json!([response["outputs"][2]]));

    // As binary data, with a length before each string, in the request and the response.
    let text = "добър ден, приятели".as_bytes();
    let tensor = [&u32::try_from(text.len()).unwrap().to_le_bytes(), text].concat();
    let json = json!({
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES",
                    "parameters": {"binary_data_size": tensor.len()}}],
        "outputs": [{"name": "language", "parameters": {"binary_data": true}}],
    });
    let json = json.to_string();
    let header = ("inference-header-content-length", json.len().to_string());
    let header = [(header.0, header.1.as_str())];
    let body = [json.as_bytes(), &tensor].concat();
    let response = spinfer.send("POST", &format!("{MODEL}/infer"), &header, &body);
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.body.ends_with(b"\x02\0\0\0bg"), "{:?}", response.body);
}

#[test]
fn invalid_text_is_400_with_the_expected_form() {
    let spinfer = identifier("");
    let infer = |shape: &str, datatype: &str, data: &str| {
        format!(
            r#"{{"inputs":[{{"name":"text","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#
        )
    };
    let many = json!({"texts": vec!["a"; 1025]}).to_string();
    for (operation, body, status, part) in [
        ("predict", "{}".to_owned(), 400, r#"expected either "text", a string, or "texts""#),
        ("predict", r#"{"features": [1, 2]}"#.into(), 400, r#"expected either "text", a string"#),
        ("predict", r#"{"text": 5}"#.into(), 400, "text: expected an array of strings, got 5"),
        ("predict", r#"{"text": ""}"#.into(), 400, "text 0: expected letters"),
        ("predict", r#"{"texts": ["a", "12 + 3"]}"#.into(), 400, "text 1: expected letters"),
        ("predict", r#"{"texts": ["a", null]}"#.into(), 400, "texts[1]"),
        ("predict", r#"{"text": "\ud800"}"#.into(), 400, "a Unicode string"),
        ("predict", many, 413, "at most 1024 texts"),
        ("infer", infer("[1]", "FP32", "[1]"), 400, "expected datatype BYTES, got \"FP32\""),
        ("infer", infer("[2]", "BYTES", r#"["a"]"#), 400, "expected 2 elements"),
        ("infer", infer("[1,1]", "BYTES", r#"["a"]"#), 400, "expected shape [-1]"),
        ("infer", infer("[1]", "BYTES", "[1]"), 400, "expected a string, got 1"),
        ("infer", infer("[1]", "BYTES", r#"["…"]"#), 400, "text 0: expected letters"),
        ("invocations", r#"{"inputs": {"texts": ["a"]}}"#.into(), 400, r#""text" is missing"#),
    ] {
        let response = spinfer.post(&format!("{MODEL}/{operation}"), &body);
        assert_eq!(response.status, status, "{operation}: {}", response.text());
        assert!(response.error().contains(part), "{part:?} is not in {:?}", response.error());
    }
    let invalid_utf8 = spinfer.post(&format!("{MODEL}/predict"), b"{\"text\": \"\xff\"}");
    assert_eq!(invalid_utf8.status, 400);
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// As one word, and without letters.
#[test]
fn text_of_the_maximum_body_size_is_read() {
    let spinfer = identifier("");
    let predict = format!("{MODEL}/predict");
    let text = |letter: &str| format!(r#"{{"text": "{}"}}"#, letter.repeat((16 << 20) - 100));
    let word = spinfer.post(&predict, text("a"));
    assert_eq!(word.status, 200, "{}", word.text());
    let none = spinfer.post(&predict, text("\u{7f}"));
    assert_eq!(none.status, 400, "{}", none.text());
    assert!(none.error().contains("expected letters, got"), "{}", none.error());
}
