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

/// Says nothing itself.
struct DefaultModel;

impl Model for DefaultModel {
    const NAME: &'static str = "m";
}

const LABELS: &str = "labels = ['a', 'b']\n";

/// The answer of a model to `body`, and what its graph was given; it gives `outputs`.
fn asked<M: Model>(
    model: &str,
    outputs: Vec<Tensor>,
    body: &str,
) -> (Result<String, (u16, String)>, Vec<Tensor>) {
    let given = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&given);
    let graph = graph(signature(model), move |inputs| {
        *seen.borrow_mut() = inputs;
        Ok(outputs.clone())
    });
    let start = r#"{"model":"m","version":"1","#;
    let request = Request::post("/predict", body.as_bytes());
    let answer = predict(&graph, &request, &ModelHooks::of::<M>())
        .map(|response| String::from_utf8(response.body).unwrap().replacen(start, "{", 1))
        .map_err(|error| (error.status(), error.to_string()));
    let given = given.borrow().clone();
    (answer, given)
}

fn answer(model: &str, outputs: Vec<Tensor>) -> Result<String, (u16, String)> {
    asked::<DefaultModel>(model, outputs, r#"{"instances": [[1, 2], [3, 4]]}"#).0
}

const X: &str = "in x FP32 [-1, 2]\n";

#[test]
fn classes_come_from_whichever_outputs_they_stand_in() {
    let class = || Tensor::i64("c", &[2], &[1, 0]);
    let scores = || Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
    let expected = r#"{"predictions":[{"prediction":"b","probability":0.75,"probabilities":{"a":0.25,"b":0.75}},{"prediction":"a","probability":1.0,"probabilities":{"a":1.0,"b":0.0}}]}"#;
    for outputs in ["out c INT64 [-1]\nout p FP32 [-1, 2]", "out p FP32 [-1, 2]\nout c INT64 [-1]"]
    {
        let model = format!("{LABELS}{X}{outputs}");
        assert_eq!(answer(&model, vec![class(), scores()]).as_deref(), Ok(expected));
    }
    // Of other datatypes and shapes.
    let narrow = Tensor { datatype: Datatype::U8, data: vec![1, 0], ..class() };
    let wide = [0.25, 0.75, 1.0, 0.0_f64].iter().flat_map(|p| p.to_le_bytes()).collect();
    let wide = Tensor { datatype: Datatype::F64, data: wide, ..scores() };
    let model = format!("{LABELS}{X}out c UINT8 [-1, 1]\nout p FP64 [-1, 2]");
    assert_eq!(answer(&model, vec![narrow, wide]).as_deref(), Ok(expected));
    // The greatest of the only output, the first of two that are.
    let model = format!("{LABELS}{X}out p FP32 [-1, 2]");
    assert_eq!(answer(&model, vec![scores()]).as_deref(), Ok(expected));
    let margins = Tensor::f32("p", &[2, 2], &[-3.0, -3.0, -5.0, 7.0]);
    let expected = r#"{"predictions":[{"prediction":"a"},{"prediction":"b"}]}"#;
    assert_eq!(answer(&model, vec![margins]).as_deref(), Ok(expected));
}

/// FP64 has more digits than FP32, and a wider range.
#[test]
fn doubles_of_a_regression_are_whole() {
    let numbers = [123_456_789.123_f64, 1e300];
    let data = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let tensor = Tensor { datatype: Datatype::F64, data, ..Tensor::f32("y", &[2], &[]) };
    let model = format!("{X}out y FP64 [-1]");
    let expected = r#"{"predictions":[{"prediction":123456789.123},{"prediction":1e300}]}"#;
    let said = answer(&model, vec![tensor]).unwrap();
    assert_eq!(said.replace("e+300", "e300"), expected);
}

/// What a graph could not compute is `null`, and nothing else of the response is left out for it.
#[test]
fn what_is_no_number_is_null() {
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
        // These are margins, and stay what they are.
        ([-3.0, 5.0, nan, 0.5], r#"[{"prediction":"b"},{"prediction":"a"}]"#),
    ] {
        let scores = Tensor::f32("p", &[2, 2], &scores);
        let expected = format!(r#"{{"predictions":{expected}}}"#);
        assert_eq!(answer(&model, vec![class(), scores]), Ok(expected));
    }
    // Of NaN none is the greatest; of infinities one may be.
    let model = format!("{LABELS}{X}out p FP32 [-1, 2]");
    let scores = Tensor::f32("p", &[2, 2], &[nan, 1.0, -1.0, f32::INFINITY]);
    let expected = r#"{"predictions":[{"prediction":null,"probability":null,"probabilities":{"a":null,"b":1.0}},{"prediction":"b","probability":null,"probabilities":{"a":-1.0,"b":null}}]}"#;
    assert_eq!(answer(&model, vec![scores]).as_deref(), Ok(expected));
    let model = format!("{X}out y FP32 [-1, 2]");
    let numbers = Tensor::f32("y", &[2, 2], &[nan, 1.5, f32::NEG_INFINITY, 2.0]);
    let expected = r#"{"predictions":[{"prediction":[null,1.5]},{"prediction":[null,2.0]}]}"#;
    assert_eq!(answer(&model, vec![numbers]).as_deref(), Ok(expected));
}

#[test]
fn classes_may_be_strings_or_truth_values() {
    let scores = || Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
    let expected = r#"{"predictions":[{"prediction":"b","probability":0.75,"probabilities":{"a":0.25,"b":0.75}},{"prediction":"a","probability":1.0,"probabilities":{"a":1.0,"b":0.0}}]}"#;
    let words = |words: [&str; 2]| Tensor::bytes("c", &[2, 1], &words);
    let model = format!("{LABELS}{X}out c BYTES [-1, 1]\nout p FP32 [-1, 2]");
    assert_eq!(answer(&model, vec![words(["b", "a"]), scores()]).as_deref(), Ok(expected));
    let message = "the graph gave class é, which is not among the labels of model.toml";
    let unknown = answer(&model, vec![words(["b", "é"]), scores()]);
    assert_eq!(unknown, Err((500, message.to_owned())));
    // Without labels there is no telling which probability is of which class.
    let model = format!("{X}out c BYTES [-1]\nout p FP32 [-1, 2]");
    let expected = r#"{"predictions":[{"prediction":"é"},{"prediction":""}]}"#;
    assert_eq!(answer(&model, vec![words(["é", ""]), scores()]).as_deref(), Ok(expected));
    let flags = || Tensor::bool("c", &[2], &[true, false]);
    let expected = r#"{"predictions":[{"prediction":true},{"prediction":false}]}"#;
    assert_eq!(answer(&format!("{X}out c BOOL [-1]"), vec![flags()]).as_deref(), Ok(expected));
    let expected = r#"{"predictions":[{"prediction":"b"},{"prediction":"a"}]}"#;
    let model = format!("{LABELS}{X}out c BOOL [-1]");
    assert_eq!(answer(&model, vec![flags()]).as_deref(), Ok(expected));
    let wide = |number: u64| Tensor {
        datatype: Datatype::U64,
        data: [number.to_le_bytes(), 3_u64.to_le_bytes()].concat(),
        ..class_of_two()
    };
    let model = format!("{X}out c UINT64 [-1]");
    let expected = r#"{"predictions":[{"prediction":7},{"prediction":3}]}"#;
    assert_eq!(answer(&model, vec![wide(7)]).as_deref(), Ok(expected));
    assert_eq!(answer(&model, vec![wide(u64::MAX)]).unwrap_err().0, 400);
}

fn class_of_two() -> Tensor {
    Tensor::i64("c", &[2], &[0, 0])
}

/// Rows are put together along one axis of each input, and taken apart along one of each output.
#[test]
fn rows_may_be_along_any_axis() {
    let model = "in x FP32 [2, -1, 3]\nbatch_axis = 1\nin n INT64 [1, -1]\nbatch_axis = 1\nout y FP32 [2, -1]\nbatch_axis = 1";
    let output = Tensor::f32("y", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let body = r#"{"instances": [[1,2,3,4,5,6,0], [11,12,13,14,15,16,1], [21,22,23,24,25,26,2]]}"#;
    let (answer, inputs) = asked::<DefaultModel>(model, vec![output], body);
    let expected = r#"{"predictions":[{"prediction":[1.0,4.0]},{"prediction":[2.0,5.0]},{"prediction":[3.0,6.0]}]}"#;
    assert_eq!(answer.as_deref(), Ok(expected));
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
    let (answer, _) =
        asked::<DefaultModel>(&model, vec![class, scores], r#"{"instances": [[1, 2], [3, 4]]}"#);
    assert_eq!(answer.as_deref(), Ok(expected));
}

/// What a free axis of an output counts need not be rows.
#[test]
fn an_output_of_another_number_of_rows_is_given_by_infer_alone() {
    let infer = "POST /v2/models/m/infer gives it as it is";
    for (model, outputs) in [
        ("out y FP32 [-1]", vec![Tensor::f32("y", &[3], &[1.0, 2.0, 3.0])]),
        ("out y FP32 [-1, 2]", vec![Tensor::f32("y", &[1, 2], &[1.0, 2.0])]),
        ("out y FP32 [-1]", vec![Tensor::f32("y", &[0], &[])]),
        ("out c INT64 [-1]", vec![Tensor::i64("c", &[3], &[1, 2, 3])]),
    ] {
        let (status, message) = answer(&format!("{X}{model}"), outputs).unwrap_err();
        assert_eq!(status, 400);
        assert!(message.contains(infer) && message.contains("for 2 rows"), "{message}");
    }
    let of_one = |model: &str, outputs| {
        asked::<DefaultModel>(&format!("{X}{model}"), outputs, r#"{"features": [1, 2]}"#).0
    };
    // All of it is of the only row.
    let three = Tensor::f32("y", &[3], &[1.0, 2.0, 3.0]);
    let answer = of_one("out y FP32 [-1]", vec![three]);
    assert_eq!(answer.as_deref(), Ok(r#"{"prediction":[1.0,2.0,3.0]}"#));
    let none = Tensor::f32("y", &[0, 4], &[]);
    let answer = of_one("out y FP32 [-1, 4]", vec![none]);
    assert_eq!(answer.as_deref(), Ok(r#"{"prediction":[]}"#));
    let classes = of_one("out c INT64 [-1]", vec![Tensor::i64("c", &[2], &[1, 2])]);
    assert_eq!(classes.unwrap_err().0, 400);
}

#[test]
fn scores_that_are_no_probabilities_are_left_out() {
    let class = || Tensor::i64("c", &[2], &[1, 0]);
    let expected = r#"{"predictions":[{"prediction":"b"},{"prediction":"a"}]}"#;
    let model = format!("{LABELS}{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
    for scores in [[0.5, 0.6, 0.5, 0.5], [-0.5, 1.5, 0.5, 0.5]] {
        let scores = Tensor::f32("p", &[2, 2], &scores);
        assert_eq!(answer(&model, vec![class(), scores]).as_deref(), Ok(expected));
    }
    let model = format!("{LABELS}{X}out c INT64 [-1]\nout p FP32 [-1, 1]");
    let one = Tensor::f32("p", &[2, 1], &[1.0, 1.0]);
    assert_eq!(answer(&model, vec![class(), one]).as_deref(), Ok(expected));
}

#[test]
fn classes_that_are_numbers_are_answered_as_numbers() {
    let class = || Tensor::i64("c", &[2], &[7, -1]);
    let scores = Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
    let model = format!("labels = [-1, 7]\n{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
    assert_eq!(
        answer(&model, vec![class(), scores.clone()]).as_deref(),
        Ok(
            r#"{"predictions":[{"prediction":7,"probability":0.75,"probabilities":{"-1":0.25,"7":0.75}},{"prediction":-1,"probability":1.0,"probabilities":{"-1":1.0,"7":0.0}}]}"#
        )
    );
    let model = format!("{X}out c INT64 [-1]");
    let expected = r#"{"predictions":[{"prediction":7},{"prediction":-1}]}"#;
    assert_eq!(answer(&model, vec![class()]).as_deref(), Ok(expected));
    let model = format!("labels = [0, 7]\n{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
    let unknown = answer(&model, vec![class(), scores]).unwrap_err();
    let message = "the graph gave class -1, which is not among the labels of model.toml";
    assert_eq!(unknown, (500, message.to_owned()));
}

#[test]
fn numbers_are_one_or_several_for_each_row() {
    for (shape, expected) in [
        ("[-1, 1]", r#"{"predictions":[{"prediction":1.5},{"prediction":-2.0}]}"#),
        ("[-1]", r#"{"predictions":[{"prediction":1.5},{"prediction":-2.0}]}"#),
    ] {
        let numbers = Tensor::f32("y", &[2], &[1.5, -2.0]);
        let model = format!("{X}out y FP32 {shape}");
        assert_eq!(answer(&model, vec![numbers]).as_deref(), Ok(expected));
    }
    let numbers = Tensor::f32("y", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let expected = r#"{"predictions":[{"prediction":[1.0,2.0]},{"prediction":[3.0,4.0]}]}"#;
    let model = format!("{X}out y FP32 [-1, 2]");
    assert_eq!(answer(&model, vec![numbers]).as_deref(), Ok(expected));
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
        let (status, message) = answer(&format!("{X}{outputs}"), Vec::new()).unwrap_err();
        assert_eq!(status, 400, "{outputs}");
        assert!(message.contains("POST /v2/models/m/infer gives them all"), "{message}");
    }
}

#[test]
fn features_are_the_inputs_in_their_order_and_datatypes() {
    let model = "in a FP32 [-1, 2]\nin b INT64 [-1]\nin c FP64 [-1, 1]\nout y FP32 [-1]";
    let outputs = || vec![Tensor::f32("y", &[2], &[0.0, 0.0])];
    let body = r#"{"instances": [[1, 2, 3, 0.1], [4, 5, -9007199254740991, 1e-30]]}"#;
    let (answer, inputs) = asked::<DefaultModel>(model, outputs(), body);
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(inputs[0], Tensor::f32("a", &[2, 2], &[1.0, 2.0, 4.0, 5.0]));
    assert_eq!(inputs[1], Tensor::i64("b", &[2], &[3, -9_007_199_254_740_991]));
    let doubles: Vec<u8> = [0.1, 1e-30_f64].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(inputs[2].data, doubles, "as FP64, not as FP32");
    for (feature, ok) in [("0.5", false), ("9007199254740993", true), ("-3e0", true)] {
        let body = format!(r#"{{"features": [1, 2, {feature}, 4]}}"#);
        let answer = asked::<DefaultModel>(model, vec![Tensor::f32("y", &[1], &[0.0])], &body).0;
        assert_eq!(answer.is_ok(), ok, "{feature}: {answer:?}");
    }
}

#[test]
fn a_shape_that_features_do_not_settle_is_refused() {
    let y = || vec![Tensor::f32("y", &[1], &[0.0])];
    let body = r#"{"features": [1, 2, 3, 4]}"#;
    for (inputs, settled) in [
        ("in x FP32 [-1, -1]", Some(vec![1, 4])),
        ("in x FP32 [-1, 2, -1]", Some(vec![1, 2, 2])),
        ("in x FP32 [2, 2]", Some(vec![2, 2])),
        ("in x FP32 [-1, -1, -1]", None),
        ("in x FP32 [-1, 2]\nin z FP32 [-1, -1]", None),
        ("in n INT64 [-1]\nin x FP32 [-1, -1]", None),
        ("in n BOOL [-1]\nin x INT64 [-1, -1]", None),
    ] {
        let (answer, given) =
            asked::<DefaultModel>(&format!("{inputs}\nout y FP32 [-1]"), y(), body);
        match settled {
            Some(dimensions) => {
                assert_eq!(given[0].dimensions, dimensions, "{inputs}: {answer:?}");
            }
            None => {
                let (status, message) = answer.unwrap_err();
                assert_eq!(status, 400);
                assert!(message.contains("POST /v2/models/m/infer takes the shape"), "{message}");
            }
        }
    }
}

/// The graph takes the flags as integers.
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

/// The lengths of two words, in a decimal place each.
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
fn the_mapping_of_a_component_is_asked_in_place_of_the_graph() {
    let scores = || vec![Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0])];
    let model = format!("{LABELS}in flag BOOL [-1]\nout c INT64 [-1]\nout p FP32 [-1, 2]");
    let body = r#"{"instances": [[1], [0]]}"#;
    let (answer, given) = asked::<FlagMapping>(&model, scores(), body);
    assert!(answer.unwrap().contains(r#"[{"prediction":"b","probability":0.75,"#));
    assert_eq!(given, [Tensor::i64("flag", &[2], &[1, 0])]);
    let (answer, _) = asked::<FlagMapping>(&model, scores(), r#"{"instances": [[1], [2]]}"#);
    let message = "instances[1][0]: 2 is not true or false (BOOL)";
    assert_eq!(answer, Err((400, message.to_owned())));
    // What the mapping gives is checked as what a graph gives.
    let (answer, _) = asked::<FlagMapping>(&model, scores(), r#"{"features": [1]}"#);
    assert_eq!(answer.unwrap_err().0, 500);

    let model = "in a BYTES [-1]\nin b BYTES [-1, 1]\nout length INT64 [-1]";
    let body = r#"{"instances": [["abc", "\u00e9"], {"b": "", "a": "x"}]}"#;
    assert_eq!(
        asked::<WordLengths>(model, Vec::new(), body).0.as_deref(),
        Ok(r#"{"predictions":[{"prediction":32},{"prediction":10}]}"#)
    );
}

#[test]
fn what_a_file_means_only_the_component_can_say() {
    struct Files;

    impl Model for Files {
        const NAME: &'static str = "m";
        const FILE: Option<File> = Some(File::new("picture", "image/x"));
    }

    let model = format!("{X}out y FP32 [-1]");
    let (answer, _) = asked::<Files>(&model, Vec::new(), r#"{"picture": "AAAA"}"#);
    let (status, message) = answer.unwrap_err();
    assert_eq!(status, 500);
    assert!(message.contains("`fn predict`"), "{message}");
}

proptest! {
    /// Whatever a graph gives, and whatever its signature says.
    #[test]
    fn no_output_panics(
        labels in prop::sample::select(vec!["", LABELS, "labels = [3, 7]\n"]),
        one in "(FP32|FP64|INT64|UINT8|FP16) \\[(-1|2|-1, 2|-1, 3|-1, -1)?\\]",
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
        let _ = answer(&model, outputs);
    }
}
