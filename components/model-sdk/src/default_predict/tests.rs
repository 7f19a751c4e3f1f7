use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::graph::stub::graph;
use crate::hooks::ModelHooks;
use crate::predict::predict;
use crate::request::Request;
use crate::signature::tests::signature;
use crate::{File, Model};

/// Uses the default `predict`.
struct DefaultModel;

impl Model for DefaultModel {
    const NAME: &'static str = "m";
}

const LABELS: &str = "labels = ['a', 'b']\n";

/// The response to `body` of a model whose graph returns `outputs`, and the inputs of the graph.
fn response_to<M: Model>(
    model: &str,
    outputs: Vec<Tensor>,
    body: &str,
) -> (Result<String, (u16, String)>, Vec<Tensor>) {
    let inputs = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&inputs);
    let graph = graph(signature(model), move |tensors| {
        *seen.borrow_mut() = tensors;
        Ok(outputs.clone())
    });
    let start = r#"{"model":"m","version":"1","#;
    let request = Request::post("/predict", body.as_bytes());
    let response = predict(&graph, &request, &ModelHooks::of::<M>())
        .map(|response| String::from_utf8(response.body).unwrap().replacen(start, "{", 1))
        .map_err(|error| (error.status(), error.to_string()));
    let inputs = inputs.borrow().clone();
    (response, inputs)
}

fn response(model: &str, outputs: Vec<Tensor>) -> Result<String, (u16, String)> {
    response_to::<DefaultModel>(model, outputs, r#"{"instances": [[1, 2], [3, 4]]}"#).0
}

const X: &str = "in x FP32 [-1, 2]\n";

#[test]
fn class_and_scores_may_have_any_order_and_datatype() {
    let class = || Tensor::i64("c", &[2], &[1, 0]);
    let scores = || Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
    let expected = r#"{"predictions":[{"prediction":"b","probability":0.75,"probabilities":{"a":0.25,"b":0.75}},{"prediction":"a","probability":1.0,"probabilities":{"a":1.0,"b":0.0}}]}"#;
    for outputs in ["out c INT64 [-1]\nout p FP32 [-1, 2]", "out p FP32 [-1, 2]\nout c INT64 [-1]"]
    {
        let model = format!("{LABELS}{X}{outputs}");
        assert_eq!(response(&model, vec![class(), scores()]).as_deref(), Ok(expected));
    }
    // Other datatypes and shapes.
    let narrow = Tensor { datatype: Datatype::U8, data: vec![1, 0], ..class() };
    let wide = [0.25, 0.75, 1.0, 0.0_f64].iter().flat_map(|p| p.to_le_bytes()).collect();
    let wide = Tensor { datatype: Datatype::F64, data: wide, ..scores() };
    let model = format!("{LABELS}{X}out c UINT8 [-1, 1]\nout p FP64 [-1, 2]");
    assert_eq!(response(&model, vec![narrow, wide]).as_deref(), Ok(expected));
    // Scores only: the greatest, the first of several.
    let model = format!("{LABELS}{X}out p FP32 [-1, 2]");
    assert_eq!(response(&model, vec![scores()]).as_deref(), Ok(expected));
    let margins = Tensor::f32("p", &[2, 2], &[-3.0, -3.0, -5.0, 7.0]);
    let expected = r#"{"predictions":[{"prediction":"a"},{"prediction":"b"}]}"#;
    assert_eq!(response(&model, vec![margins]).as_deref(), Ok(expected));
}

#[test]
fn fp64_numbers_keep_their_precision() {
    let numbers = [123_456_789.123_f64, 1e300];
    let data = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let tensor = Tensor { datatype: Datatype::F64, data, ..Tensor::f32("y", &[2], &[]) };
    let model = format!("{X}out y FP64 [-1]");
    let expected = r#"{"predictions":[{"prediction":123456789.123},{"prediction":1e300}]}"#;
    let actual = response(&model, vec![tensor]).unwrap();
    assert_eq!(actual.replace("e+300", "e300"), expected);
}

/// The response has a `null` for each, and omits nothing.
#[test]
fn nan_and_infinities_are_null() {
    let nan = f32::NAN;
    let class = || Tensor::i64("c", &[2], &[1, 0]);
    let model = format!("{LABELS}{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
    for (scores, expected) in [
        (
            [0.25, 0.75, nan, nan],
            r#"[{"prediction":"b","probability":0.75,"probabilities":{"a":0.25,"b":0.75}},{"prediction":"a","probability":null,"probabilities":{"a":null,"b":null}}]"#,
        ),
        (
            [f32::INFINITY, 0.0, nan, 0.5],
            r#"[{"prediction":"b","probability":0.0,"probabilities":{"a":null,"b":0.0}},{"prediction":"a","probability":null,"probabilities":{"a":null,"b":0.5}}]"#,
        ),
        // Margins, not probabilities.
        ([-3.0, 5.0, nan, 0.5], r#"[{"prediction":"b"},{"prediction":"a"}]"#),
    ] {
        let scores = Tensor::f32("p", &[2, 2], &scores);
        let expected = format!(r#"{{"predictions":{expected}}}"#);
        assert_eq!(response(&model, vec![class(), scores]), Ok(expected));
    }
    // There is no greatest of NaN; infinity may be the greatest.
    let model = format!("{LABELS}{X}out p FP32 [-1, 2]");
    let scores = Tensor::f32("p", &[2, 2], &[nan, 1.0, -1.0, f32::INFINITY]);
    let expected = r#"{"predictions":[{"prediction":null,"probability":null,"probabilities":{"a":null,"b":1.0}},{"prediction":"b","probability":null,"probabilities":{"a":-1.0,"b":null}}]}"#;
    assert_eq!(response(&model, vec![scores]).as_deref(), Ok(expected));
    let model = format!("{X}out y FP32 [-1, 2]");
    let numbers = Tensor::f32("y", &[2, 2], &[nan, 1.5, f32::NEG_INFINITY, 2.0]);
    let expected = r#"{"predictions":[{"prediction":[null,1.5]},{"prediction":[null,2.0]}]}"#;
    assert_eq!(response(&model, vec![numbers]).as_deref(), Ok(expected));
}

#[test]
fn classes_may_be_strings_or_booleans() {
    let scores = || Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
    let expected = r#"{"predictions":[{"prediction":"b","probability":0.75,"probabilities":{"a":0.25,"b":0.75}},{"prediction":"a","probability":1.0,"probabilities":{"a":1.0,"b":0.0}}]}"#;
    let words = |words: [&str; 2]| Tensor::bytes("c", &[2, 1], &words);
    let model = format!("{LABELS}{X}out c BYTES [-1, 1]\nout p FP32 [-1, 2]");
    assert_eq!(response(&model, vec![words(["b", "a"]), scores()]).as_deref(), Ok(expected));
    let message = "the graph returned class é, which is not a label of model.toml";
    let unknown = response(&model, vec![words(["b", "é"]), scores()]);
    assert_eq!(unknown, Err((500, message.to_owned())));
    // Without labels, probabilities cannot be assigned to classes.
    let model = format!("{X}out c BYTES [-1]\nout p FP32 [-1, 2]");
    let expected = r#"{"predictions":[{"prediction":"é"},{"prediction":""}]}"#;
    assert_eq!(response(&model, vec![words(["é", ""]), scores()]).as_deref(), Ok(expected));
    let flags = || Tensor::bool("c", &[2], &[true, false]);
    let expected = r#"{"predictions":[{"prediction":true},{"prediction":false}]}"#;
    assert_eq!(response(&format!("{X}out c BOOL [-1]"), vec![flags()]).as_deref(), Ok(expected));
    let expected = r#"{"predictions":[{"prediction":"b"},{"prediction":"a"}]}"#;
    let model = format!("{LABELS}{X}out c BOOL [-1]");
    assert_eq!(response(&model, vec![flags()]).as_deref(), Ok(expected));
    let wide = |number: u64| Tensor {
        datatype: Datatype::U64,
        data: [number.to_le_bytes(), 3_u64.to_le_bytes()].concat(),
        ..class_of_two()
    };
    let model = format!("{X}out c UINT64 [-1]");
    let expected = r#"{"predictions":[{"prediction":7},{"prediction":3}]}"#;
    assert_eq!(response(&model, vec![wide(7)]).as_deref(), Ok(expected));
    assert_eq!(response(&model, vec![wide(u64::MAX)]).unwrap_err().0, 400);
}

fn class_of_two() -> Tensor {
    Tensor::i64("c", &[2], &[0, 0])
}

#[test]
fn rows_are_joined_and_split_along_the_batch_axis() {
    let model = "in x FP32 [2, -1, 3]\nbatch_axis = 1\nin n INT64 [1, -1]\nbatch_axis = 1\nout y FP32 [2, -1]\nbatch_axis = 1";
    let output = Tensor::f32("y", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let body = r#"{"instances": [[1,2,3,4,5,6,0], [11,12,13,14,15,16,1], [21,22,23,24,25,26,2]]}"#;
    let (response, inputs) = response_to::<DefaultModel>(model, vec![output], body);
    let expected = r#"{"predictions":[{"prediction":[1.0,4.0]},{"prediction":[2.0,5.0]},{"prediction":[3.0,6.0]}]}"#;
    assert_eq!(response.as_deref(), Ok(expected));
    let x = [1, 2, 3, 11, 12, 13, 21, 22, 23, 4, 5, 6, 14, 15, 16, 24, 25, 26].map(|n| n as f32);
    assert_eq!(inputs[0], Tensor::f32("x", &[2, 3, 3], &x));
    assert_eq!(inputs[1], Tensor::i64("n", &[1, 3], &[0, 1, 2]));
    // Classes and their scores.
    let model = format!(
        "{LABELS}in x FP32 [1, -1, 2]\nbatch_axis = 1\nout c INT64 [1, -1]\nbatch_axis = 1\nout p FP32 [2, -1]\nbatch_axis = 1"
    );
    let class = Tensor::i64("c", &[1, 2], &[1, 0]);
    let scores = Tensor::f32("p", &[2, 2], &[0.25, 1.0, 0.75, 0.0]);
    let expected = r#"{"predictions":[{"prediction":"b","probability":0.75,"probabilities":{"a":0.25,"b":0.75}},{"prediction":"a","probability":1.0,"probabilities":{"a":1.0,"b":0.0}}]}"#;
    let (response, _) = response_to::<DefaultModel>(
        &model,
        vec![class, scores],
        r#"{"instances": [[1, 2], [3, 4]]}"#,
    );
    assert_eq!(response.as_deref(), Ok(expected));
}

/// The free axis of the output counts something else.
#[test]
fn output_with_another_number_of_rows_is_refused() {
    let infer = "use POST /v2/models/m/infer, which returns it whole";
    for (model, outputs) in [
        ("out y FP32 [-1]", vec![Tensor::f32("y", &[3], &[1.0, 2.0, 3.0])]),
        ("out y FP32 [-1, 2]", vec![Tensor::f32("y", &[1, 2], &[1.0, 2.0])]),
        ("out y FP32 [-1]", vec![Tensor::f32("y", &[0], &[])]),
        ("out c INT64 [-1]", vec![Tensor::i64("c", &[3], &[1, 2, 3])]),
    ] {
        let (status, message) = response(&format!("{X}{model}"), outputs).unwrap_err();
        assert_eq!(status, 400);
        assert!(message.contains(infer) && message.contains("for 2 rows"), "{message}");
    }
    let of_one = |model: &str, outputs| {
        response_to::<DefaultModel>(&format!("{X}{model}"), outputs, r#"{"features": [1, 2]}"#).0
    };
    // The whole output belongs to the only row.
    let three = Tensor::f32("y", &[3], &[1.0, 2.0, 3.0]);
    let response = of_one("out y FP32 [-1]", vec![three]);
    assert_eq!(response.as_deref(), Ok(r#"{"prediction":[1.0,2.0,3.0]}"#));
    let none = Tensor::f32("y", &[0, 4], &[]);
    let response = of_one("out y FP32 [-1, 4]", vec![none]);
    assert_eq!(response.as_deref(), Ok(r#"{"prediction":[]}"#));
    let classes = of_one("out c INT64 [-1]", vec![Tensor::i64("c", &[2], &[1, 2])]);
    assert_eq!(classes.unwrap_err().0, 400);
}

#[test]
fn scores_that_are_not_probabilities_are_omitted() {
    let class = || Tensor::i64("c", &[2], &[1, 0]);
    let expected = r#"{"predictions":[{"prediction":"b"},{"prediction":"a"}]}"#;
    let model = format!("{LABELS}{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
    for scores in [[0.5, 0.6, 0.5, 0.5], [-0.5, 1.5, 0.5, 0.5]] {
        let scores = Tensor::f32("p", &[2, 2], &scores);
        assert_eq!(response(&model, vec![class(), scores]).as_deref(), Ok(expected));
    }
    let model = format!("{LABELS}{X}out c INT64 [-1]\nout p FP32 [-1, 1]");
    let one = Tensor::f32("p", &[2, 1], &[1.0, 1.0]);
    assert_eq!(response(&model, vec![class(), one]).as_deref(), Ok(expected));
}

#[test]
fn numeric_labels_are_returned_as_numbers() {
    let class = || Tensor::i64("c", &[2], &[7, -1]);
    let scores = Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
    let model = format!("labels = [-1, 7]\n{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
    assert_eq!(
        response(&model, vec![class(), scores.clone()]).as_deref(),
        Ok(
            r#"{"predictions":[{"prediction":7,"probability":0.75,"probabilities":{"-1":0.25,"7":0.75}},{"prediction":-1,"probability":1.0,"probabilities":{"-1":1.0,"7":0.0}}]}"#
        )
    );
    let model = format!("{X}out c INT64 [-1]");
    let expected = r#"{"predictions":[{"prediction":7},{"prediction":-1}]}"#;
    assert_eq!(response(&model, vec![class()]).as_deref(), Ok(expected));
    let model = format!("labels = [0, 7]\n{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
    let unknown = response(&model, vec![class(), scores]).unwrap_err();
    let message = "the graph returned class -1, which is not a label of model.toml";
    assert_eq!(unknown, (500, message.to_owned()));
}

#[test]
fn numbers_may_be_several_per_row() {
    for (shape, expected) in [
        ("[-1, 1]", r#"{"predictions":[{"prediction":1.5},{"prediction":-2.0}]}"#),
        ("[-1]", r#"{"predictions":[{"prediction":1.5},{"prediction":-2.0}]}"#),
    ] {
        let numbers = Tensor::f32("y", &[2], &[1.5, -2.0]);
        let model = format!("{X}out y FP32 {shape}");
        assert_eq!(response(&model, vec![numbers]).as_deref(), Ok(expected));
    }
    let numbers = Tensor::f32("y", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let expected = r#"{"predictions":[{"prediction":[1.0,2.0]},{"prediction":[3.0,4.0]}]}"#;
    let model = format!("{X}out y FP32 [-1, 2]");
    assert_eq!(response(&model, vec![numbers]).as_deref(), Ok(expected));
}

#[test]
fn other_outputs_have_no_short_form() {
    for outputs in [
        "out a FP32 [-1, 2]\nout b FP32 [-1, 1]",
        "out a INT64 [-1, 2]",
        "out a INT64 [-1]\nout b INT64 [-1]",
        "out a INT64 [-1]\nout b FP32 [-1]\nout c FP32 [-1]",
        "out a BYTES [-1, 2]",
        "out a INT64 [-1]\nout b BYTES [-1]",
    ] {
        let (status, message) = response(&format!("{X}{outputs}"), Vec::new()).unwrap_err();
        assert_eq!(status, 400, "{outputs}");
        assert!(message.contains("use POST /v2/models/m/infer"), "{message}");
    }
}

#[test]
fn features_become_inputs_in_order_and_datatype() {
    let model = "in a FP32 [-1, 2]\nin b INT64 [-1]\nin c FP64 [-1, 1]\nout y FP32 [-1]";
    let outputs = || vec![Tensor::f32("y", &[2], &[0.0, 0.0])];
    let body = r#"{"instances": [[1, 2, 3, 0.1], [4, 5, -9007199254740991, 1e-30]]}"#;
    let (response, inputs) = response_to::<DefaultModel>(model, outputs(), body);
    assert!(response.is_ok(), "{response:?}");
    assert_eq!(inputs[0], Tensor::f32("a", &[2, 2], &[1.0, 2.0, 4.0, 5.0]));
    assert_eq!(inputs[1], Tensor::i64("b", &[2], &[3, -9_007_199_254_740_991]));
    let doubles: Vec<u8> = [0.1, 1e-30_f64].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(inputs[2].data, doubles, "as FP64, not as FP32");
    for (feature, ok) in [("0.5", false), ("9007199254740993", true), ("-3e0", true)] {
        let body = format!(r#"{{"features": [1, 2, {feature}, 4]}}"#);
        let response =
            response_to::<DefaultModel>(model, vec![Tensor::f32("y", &[1], &[0.0])], &body).0;
        assert_eq!(response.is_ok(), ok, "{feature}: {response:?}");
    }
}

#[test]
fn undetermined_shape_is_refused() {
    let y = || vec![Tensor::f32("y", &[1], &[0.0])];
    let body = r#"{"features": [1, 2, 3, 4]}"#;
    for (model, expected) in [
        ("in x FP32 [-1, -1]", Some(vec![1, 4])),
        ("in x FP32 [-1, 2, -1]", Some(vec![1, 2, 2])),
        ("in x FP32 [2, 2]", Some(vec![2, 2])),
        ("in x FP32 [-1, -1, -1]", None),
        ("in x FP32 [-1, 2]\nin z FP32 [-1, -1]", None),
        ("in n INT64 [-1]\nin x FP32 [-1, -1]", None),
        ("in n BOOL [-1]\nin x INT64 [-1, -1]", None),
    ] {
        let (response, inputs) =
            response_to::<DefaultModel>(&format!("{model}\nout y FP32 [-1]"), y(), body);
        match expected {
            Some(dimensions) => {
                assert_eq!(inputs[0].dimensions, dimensions, "{model}: {response:?}");
            }
            None => {
                let (status, message) = response.unwrap_err();
                assert_eq!(status, 400);
                assert!(
                    message.contains("use POST /v2/models/m/infer, which takes the shape"),
                    "{message}"
                );
            }
        }
    }
}

/// Maps flags to integers for the graph.
struct FlagMapping;

impl Model for FlagMapping {
    const NAME: &'static str = "m";
    const MAPPING: Option<Mapping> = Some(|graph, inputs| {
        let flags = inputs[0].bools()?.into_iter().map(i64::from).collect::<Vec<_>>();
        let flags = Tensor::i64("flag", &inputs[0].dimensions, &flags);
        let [scores] = graph.compute([flags], ["p"])?;
        Ok(vec![scores, Tensor::i64("c", &[2], &[1, 0])])
    });
}

/// Predicts the lengths of two words, in a decimal place each.
struct WordLengths;

impl Model for WordLengths {
    const NAME: &'static str = "m";
    const MAPPING: Option<Mapping> = Some(|_, inputs| {
        let words = inputs[0].byte_strings()?.into_iter().zip(inputs[1].byte_strings()?);
        let lengths: Vec<_> = words.map(|(a, b)| (10 * a.len() + b.len()) as i64).collect();
        Ok(vec![Tensor::i64("length", &inputs[0].dimensions, &lengths)])
    });
}

#[test]
fn mapping_is_called_instead_of_the_graph() {
    let scores = || vec![Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0])];
    let model = format!("{LABELS}in flag BOOL [-1]\nout c INT64 [-1]\nout p FP32 [-1, 2]");
    let body = r#"{"instances": [[1], [0]]}"#;
    let (response, inputs) = response_to::<FlagMapping>(&model, scores(), body);
    assert!(response.unwrap().contains(r#"[{"prediction":"b","probability":0.75,"#));
    assert_eq!(inputs, [Tensor::i64("flag", &[2], &[1, 0])]);
    let (response, _) =
        response_to::<FlagMapping>(&model, scores(), r#"{"instances": [[1], [2]]}"#);
    let message = "instances[1][0]: 2 is not true or false (BOOL)";
    assert_eq!(response, Err((400, message.to_owned())));
    // The outputs of a mapping are checked as those of a graph.
    let (response, _) = response_to::<FlagMapping>(&model, scores(), r#"{"features": [1]}"#);
    assert_eq!(response.unwrap_err().0, 500);

    let model = "in a BYTES [-1]\nin b BYTES [-1, 1]\nout length INT64 [-1]";
    let body = r#"{"instances": [["abc", "\u00e9"], {"b": "", "a": "x"}]}"#;
    assert_eq!(
        response_to::<WordLengths>(model, Vec::new(), body).0.as_deref(),
        Ok(r#"{"predictions":[{"prediction":32},{"prediction":10}]}"#)
    );
}

#[test]
fn file_needs_a_predict_of_the_component() {
    struct Files;

    impl Model for Files {
        const NAME: &'static str = "m";
        const FILE: Option<File> = Some(File::new("picture", "image/x"));
    }

    let model = format!("{X}out y FP32 [-1]");
    let (response, _) = response_to::<Files>(&model, Vec::new(), r#"{"picture": "AAAA"}"#);
    let (status, message) = response.unwrap_err();
    assert_eq!(status, 500);
    assert!(message.contains("`fn predict`"), "{message}");
}

/// The labels are not those of the classes: any class could be the wrong one.
#[test]
fn scores_of_more_classes_than_labels_are_500() {
    let model = format!("{LABELS}{X}out label INT64 [-1]\nout scores FP32 [-1, -1]");
    // For each of two rows.
    let respond = |width: u32, row: &[f32]| {
        let label = Tensor::i64("label", &[2], &[0, 0]);
        response(&model, vec![label, Tensor::f32("scores", &[2, width], &row.repeat(2))])
    };
    for (width, row) in
        [(3, &[0.7, 0.2, 0.1][..]), (3, &[5.0, -1.0, 2.0]), (4, &[0.25; 4]), (0, &[])]
    {
        let (status, message) = respond(width, row).unwrap_err();
        assert_eq!(status, 500, "{message}");
        let part = format!(
            "model.toml: `labels` has 2 of them, but the output \"scores\" has {width} scores"
        );
        assert!(message.contains(&part), "{message}");
    }
    // Probabilities; margins, or the score of the best class.
    for (width, row) in [(2, &[0.7, 0.3][..]), (2, &[5.0, -1.0]), (1, &[0.3]), (1, &[f32::NAN])] {
        assert!(respond(width, row).is_ok(), "{width}");
    }
}

proptest! {
    /// Whatever the graph returns and the signature declares.
    #[test]
    fn no_output_panics(
        labels in prop::sample::select(vec!["", LABELS, "labels = [3, 7]\n"]),
        one in "(FP32|FP64|INT64|UINT8|FP16) \\[(-1|2|-1, 2|-1, -1)?\\]",
        other in prop::option::of("(FP32|INT32) \\[(-1|-1, 2)?\\]"),
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let other = other.map(|other| format!("\nout b {other}")).unwrap_or_default();
        let model = format!("{labels}{X}out a {one}{other}");
        let tensor = |name: &str, datatype: &str| Tensor {
            name: name.to_owned(),
            datatype: Datatype::named(datatype.split(' ').next().unwrap()).unwrap(),
            dimensions: vec![2],
            data: data.clone(),
        };
        let mut outputs = vec![tensor("a", &one)];
        if let Some(other) = other.strip_prefix("\nout b ") {
            outputs.push(tensor("b", other));
        }
        let _ = response(&model, outputs);
    }
}
