use super::append::captured;
use super::*;
use crate::graph::stub::graph;
use crate::hooks::ModelHooks;
use crate::infer::infer;
use crate::invocations::invoke;
use crate::predict::predict;
use crate::request::Request;
use crate::rows::Rows;
use crate::signature::tests::{iris, signature};
use crate::{File, Graph, Mapping, Model};

struct LoggedModel;

impl Model for LoggedModel {
    const NAME: &'static str = "m";
}

/// The calls of a request to a model whose graph returns `outputs`, as text.
fn sent<M: Model>(
    signature: Signature,
    outputs: Vec<Tensor>,
    operation: &str,
    body: &str,
) -> Vec<String> {
    let graph = graph(signature, move |_| Ok(outputs.clone()));
    let hooks = ModelHooks::of::<M>();
    let request = Request::post("/", body.as_bytes());
    captured::SENT.take();
    match operation {
        "predict" => predict(&graph, &request, &hooks),
        "invocations" => invoke(&graph, &request, hooks.predict),
        _ => infer(&graph, &request, hooks.mapping),
    }
    .unwrap();
    captured::SENT.take()
}

fn lines<M: Model>(
    signature: Signature,
    outputs: Vec<Tensor>,
    operation: &str,
    body: &str,
) -> String {
    let [lines] = <[String; 1]>::try_from(sent::<M>(signature, outputs, operation, body)).unwrap();
    lines
}

fn of_iris(rows: u32) -> Vec<Tensor> {
    let many = |values: &[f32]| values.repeat(rows as usize);
    vec![
        Tensor::i64("label", &[rows], &vec![2; rows as usize]),
        Tensor::f32("probabilities", &[rows, 3], &many(&[0.25, 0.0, 0.75])),
    ]
}

const IN: &str = "in sepal_length,sepal_width,petal_length,petal_width fp32";

#[test]
fn protocols_append_the_same_predictions() {
    let row = |rows: usize| {
        let repeat = |text: &str| vec![text; rows].join(", ");
        format!(
            "iris-classifier 1 {rows}\n{IN} [{}]\nout prediction text [{}]\n\
             out probability fp32 [{}]\nout label int64 [{}]\n\
             out probabilities[0],probabilities[1],probabilities[2] fp32 [{}]",
            repeat("1.0, 2.0, 3.0, 4.0"),
            repeat("\"virginica\""),
            repeat("0.75"),
            repeat("2"),
            repeat("0.25, 0.0, 0.75"),
        )
    };
    let tensor = |rows: usize| {
        let data = vec!["1,2,3,4"; rows].join(",");
        format!(
            r#"{{"id":"a","inputs":[{{"name":"features","shape":[{rows},4],"datatype":"FP32","data":[{data}]}}]}}"#
        )
    };
    let table =
        |key: &str, rows: usize| format!(r#"{{"{key}":[{}]}}"#, vec!["[1,2,3,4]"; rows].join(","));
    for (operation, rows, body, more) in [
        ("predict", 1, r#"{"features":[1,2,3,4]}"#.to_owned(), ""),
        ("predict", 1, r#"{"id":"a","features":[1,2,3,4]}"#.to_owned(), "\nid=a"),
        ("predict", 3, table("instances", 3), ""),
        ("infer", 1, tensor(1), "\nid=a"),
        ("infer", 2, tensor(2), "\nid=a"),
        ("invocations", 2, table("inputs", 2), ""),
    ] {
        let rows_u32 = u32::try_from(rows).unwrap();
        let lines = lines::<LoggedModel>(iris(), of_iris(rows_u32), operation, &body);
        assert_eq!(lines, format!("{}\noperation={operation}{more}", row(rows)), "{body}");
    }
}

#[test]
fn only_requested_outputs_are_logged() {
    let body = r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"label"}]}"#;
    let lines = lines::<LoggedModel>(iris(), of_iris(1), "infer", body);
    assert_eq!(
        lines,
        format!(
            "iris-classifier 1 1\n{IN} [1.0, 2.0, 3.0, 4.0]\nout label int64 [2]\noperation=infer"
        )
    );
}

#[test]
fn inputs_keep_their_datatypes() {
    let model =
        "in a FP32 [-1, 2]\nin b INT64 [-1]\nin c FP64 [-1, 1]\nin d BOOL [-1]\nout y FP32 [-1]";
    struct Mapped;
    impl Model for Mapped {
        const NAME: &'static str = "m";
        const MAPPING: Option<Mapping> = Some(|_, inputs| {
            let rows = inputs[1].dimensions[0];
            Ok(vec![Tensor::f32("y", &[rows], &vec![1.5; rows as usize])])
        });
    }
    let body = r#"{"instances":[[1,2,3,4.5,0],[5,6,7,8,1]]}"#;
    let expected = "m 1 2\nin a[0],a[1] fp32 [1.0, 2.0, 5.0, 6.0]\nin b int64 [3, 7]\n\
                    in c fp64 [4.5, 8.0]\nin d boolean [false, true]\n\
                    out prediction fp32 [1.5, 1.5]\nout y fp32 [1.5, 1.5]";
    let by_rows = lines::<Mapped>(signature(model), vec![], "predict", body);
    assert_eq!(by_rows, format!("{expected}\noperation=predict"));
    let input = |name: &str, shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}"#)
    };
    let inputs = [
        input("a", "[2,2]", "FP32", "[1,2,5,6]"),
        input("b", "[2]", "INT64", "[3,7]"),
        input("c", "[2,1]", "FP64", "[4.5,8]"),
        input("d", "[2]", "BOOL", "[false,true]"),
    ];
    let body = format!(r#"{{"inputs":[{}]}}"#, inputs.join(","));
    let by_tensors = lines::<Mapped>(signature(model), vec![], "infer", &body);
    assert_eq!(by_tensors, format!("{expected}\noperation=infer"));
}

#[test]
fn numeric_labels_are_logged_as_numbers() {
    let model = "labels = [-1, 7]\nin x FP32 [-1, 1]\nout c INT64 [-1]\nout p FP32 [-1, 2]";
    let outputs = || vec![Tensor::i64("c", &[1], &[7]), Tensor::f32("p", &[1, 2], &[0.25, 0.75])];
    let expected = "m 1 1\nin x fp32 [1.0]\nout prediction int64 [7]\nout probability fp32 [0.75]\n\
                    out c int64 [7]\nout p[0],p[1] fp32 [0.25, 0.75]";
    let by_rows =
        lines::<LoggedModel>(signature(model), outputs(), "predict", r#"{"features":[1]}"#);
    assert_eq!(by_rows, format!("{expected}\noperation=predict"));
    let body = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
    let by_tensors = lines::<LoggedModel>(signature(model), outputs(), "infer", body);
    assert_eq!(by_tensors, format!("{expected}\noperation=infer"));
}

#[test]
fn output_named_prediction_is_logged_once() {
    let model = "in x FP32 [-1, 1]\nout prediction FP32 [-1]";
    let output = vec![Tensor::f32("prediction", &[1], &[0.5])];
    let lines = lines::<LoggedModel>(signature(model), output, "predict", r#"{"features":[1]}"#);
    let expected = "m 1 1\nin x fp32 [1.0]\nout prediction fp32 [0.5]\noperation=predict";
    assert_eq!(lines, expected);
}

#[test]
fn several_numbers_per_row_have_the_name_of_their_output() {
    let model = "in x FP32 [-1, 1]\nout y FP32 [-1, 2]";
    let output = vec![Tensor::f32("y", &[1, 2], &[0.5, 1.5])];
    let lines = lines::<LoggedModel>(signature(model), output, "predict", r#"{"features":[1]}"#);
    let expected = "m 1 1\nin x fp32 [1.0]\nout y[0],y[1] fp32 [0.5, 1.5]\noperation=predict";
    assert_eq!(lines, expected);
}

#[test]
fn inferences_per_row_are_logged_together() {
    let model = "labels = ['a', 'b']\nin x FP32 [1, 2]\nout p FP32 [1, 2]";
    let output = vec![Tensor::f32("p", &[1, 2], &[0.25, 0.75])];
    let body = r#"{"instances":[[1,2],[3,4]]}"#;
    let lines = lines::<LoggedModel>(signature(model), output, "predict", body);
    let expected = "m 1 2\nin x[0],x[1] fp32 [1.0, 2.0, 3.0, 4.0]\n\
                    out prediction text [\"b\", \"b\"]\nout probability fp32 [0.75, 0.75]\n\
                    out p[0],p[1] fp32 [0.25, 0.75, 0.25, 0.75]\noperation=predict";
    assert_eq!(lines, expected);
}

#[test]
fn too_wide_tensor_is_omitted_by_name() {
    let model = "in x FP32 [-1, 257]\nout y FP32 [-1, 256]";
    let output = vec![Tensor::f32("y", &[1, 256], &[0.0; 256])];
    let body = format!(r#"{{"features":[{}]}}"#, ["1"; 257].join(","));
    let lines = lines::<LoggedModel>(signature(model), output, "predict", &body);
    assert!(lines.starts_with("m 1 1\nout y[0],y[1],"), "{lines}");
    assert!(lines.ends_with("\nomitted x[257]\noperation=predict"), "{lines}");
}

struct Texts;

impl Model for Texts {
    const NAME: &'static str = "m";
    const MAPPING: Option<Mapping> = Some(|_: &Graph, inputs| {
        let dimensions = &inputs[0].dimensions;
        let words = inputs[0].byte_strings()?;
        Ok(vec![
            Tensor::bytes("again", dimensions, &words),
            Tensor::bytes("raw", dimensions, &vec![[0xff]; words.len()]),
        ])
    });
}

#[test]
fn utf8_is_logged_as_text_and_other_bytes_are_omitted() {
    let model = "in text BYTES [-1]\nout again BYTES [-1]\nout raw BYTES [-1]";
    let body = r#"{"inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":["a","é"]}],"parameters":{"binary_data_output":true}}"#;
    let lines = lines::<Texts>(signature(model), vec![], "infer", body);
    let expected = "m 1 2\nin text text [\"a\", \"é\"]\nout again text [\"a\", \"é\"]\nomitted raw\noperation=infer";
    assert_eq!(lines, expected);
}

struct Picture;

impl Model for Picture {
    const NAME: &'static str = "m";
    const FILE: Option<File> = Some(File::new("image", "image/x"));

    fn predict(_: &Graph, _: Rows<'_>) -> Result<Prediction, crate::Error> {
        Ok(Prediction::Numbers(Tensor::f32("y", &[1], &[1.0])))
    }
}

#[test]
fn file_is_logged_by_type_and_length() {
    let model = "in pixels FP32 [-1, 8, 8]\nout y FP32 [-1]";
    let lines = lines::<Picture>(signature(model), vec![], "predict", r#"{"image":"AP/+"}"#);
    let expected = "m 1 1\nout prediction fp32 [1.0]\nout y fp32 [1.0]\nomitted pixels[64]\n\
                    operation=predict\ncontent_type=image/x\ncontent_length=3";
    assert_eq!(lines, expected);
}

#[test]
fn prediction_id_is_passed() {
    let graph = graph(iris(), |_| Ok(of_iris(1)));
    let request = Request::post("/", br#"{"features":[1,2,3,4]}"#).with_prediction_id("an id");
    captured::SENT.take();
    predict(&graph, &request, &ModelHooks::of::<LoggedModel>()).unwrap();
    assert!(captured::SENT.take()[0].starts_with("iris-classifier 1 1 of an id\n"));
}

#[test]
fn failed_request_appends_nothing() {
    let graph = graph(iris(), |_| Ok(of_iris(1)));
    captured::SENT.take();
    let hooks = ModelHooks::of::<LoggedModel>();
    for body in ["{}", r#"{"features":[1]}"#, r#"{"instances":[[1,2,3,4],[5,6,7,8]]}"#] {
        predict(&graph, &Request::post("/", body.as_bytes()), &hooks).unwrap_err();
    }
    assert!(captured::SENT.take().is_empty());
}

#[test]
fn datatypes_are_converted_to_those_of_the_log() {
    let model = "in i BOOL [-1]\nin n INT8 [-1]\nin s BYTES [-1]\nin u UINT64 [-1]\nin x FP32 [-1]\n\
                 out y FP32 [-1]";
    let y = |rows: u32| vec![Tensor::f32("y", &[rows], &vec![f32::NAN; rows as usize])];
    let expected = "m 1 2\nin i boolean [true, false]\nin n int64 [-1, 2]\nin s text [\"a\", \"é\"]\n\
                    in u int64 [1, 9007199254740993]\nin x fp32 [NaN, 0.5]\n\
                    out prediction fp32 [NaN, NaN]\nout y fp32 [NaN, NaN]";
    let body = r#"{"instances":[[true,-1,"a",1,null],[0,2,"é",9007199254740993,0.5]]}"#;
    let by_rows = lines::<LoggedModel>(signature(model), y(2), "predict", body);
    assert_eq!(by_rows, format!("{expected}\noperation=predict"));
    let input = |name: &str, datatype: &str, data: &str| {
        format!(r#"{{"name":"{name}","shape":[2],"datatype":"{datatype}","data":{data}}}"#)
    };
    let inputs = [
        input("i", "BOOL", "[true,false]"),
        input("n", "INT8", "[-1,2]"),
        input("s", "BYTES", r#"["a","é"]"#),
        input("u", "UINT64", "[1,9007199254740993]"),
        input("x", "FP32", "[null,0.5]"),
    ];
    let body = format!(
        r#"{{"inputs":[{}],"parameters":{{"binary_data_output":true}}}}"#,
        inputs.join(",")
    );
    let by_tensors = lines::<LoggedModel>(signature(model), y(2), "infer", &body);
    assert_eq!(by_tensors, format!("{expected}\noperation=infer"));
    // Above i64::MAX.
    let body = r#"{"features":[true,-1,"a",18446744073709551615,0.5]}"#;
    let lines = lines::<LoggedModel>(signature(model), y(1), "predict", body);
    assert!(!lines.contains("in u") && lines.contains("\nomitted u\n"), "{lines}");
}

#[test]
fn rows_may_be_along_any_axis() {
    let model = "in x FP32 [2, -1]\nbatch_axis = 1\nout y FP32 [2, -1]\nbatch_axis = 1";
    let y = || vec![Tensor::f32("y", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])];
    let expected = "m 1 3\nin x[0],x[1] fp32 [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]\n\
                    out y[0],y[1] fp32 [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]";
    let body = r#"{"instances":[[1,4],[2,5],[3,6]]}"#;
    let by_rows = lines::<LoggedModel>(signature(model), y(), "predict", body);
    assert_eq!(by_rows, format!("{expected}\noperation=predict"));
    let body = r#"{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5,6]}]}"#;
    let by_tensors = lines::<LoggedModel>(signature(model), y(), "infer", body);
    assert_eq!(by_tensors, format!("{expected}\noperation=infer"));
}

#[test]
fn string_classes_are_logged_as_text() {
    let model = "in x FP32 [-1]\nout c BYTES [-1]";
    let output = vec![Tensor::bytes("c", &[1], &["é"])];
    let lines = lines::<LoggedModel>(signature(model), output, "predict", r#"{"features":[1]}"#);
    let expected = "m 1 1\nin x fp32 [1.0]\nout prediction text [\"é\"]\nout c text [\"é\"]\n\
                    operation=predict";
    assert_eq!(lines, expected);
}

#[test]
fn missing_class_is_omitted_by_name() {
    let model = "labels = ['a', 'b']\nin x FP32 [-1]\nout p FP32 [-1, 2]";
    let output = vec![Tensor::f32("p", &[1, 2], &[f32::NAN, 1.0])];
    let lines = lines::<LoggedModel>(signature(model), output, "predict", r#"{"features":[1]}"#);
    let expected = "m 1 1\nin x fp32 [1.0]\nout probability fp32 [NaN]\nout p[0],p[1] fp32 [NaN, 1.0]\n\
                    omitted prediction\noperation=predict";
    assert_eq!(lines, expected);
}

#[test]
fn output_without_elements_has_no_columns() {
    let model = "in x FP32 [-1, 2]\nout y INT64 [2, -1]\nout z INT64 [0]";
    let output = vec![Tensor::i64("y", &[2, 0], &[]), Tensor::i64("z", &[0], &[])];
    let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0,0]}]}"#;
    let lines = lines::<LoggedModel>(signature(model), output, "infer", body);
    assert_eq!(lines, "m 1 1\nin x[0],x[1] fp32 [0.0, 0.0]\noperation=infer");
}

#[test]
fn no_rows_append_nothing() {
    let model = "in x FP32 [-1, 4]\nout y FP32 [-1]";
    let output = vec![Tensor::f32("y", &[0], &[])];
    let body = r#"{"inputs":[{"name":"x","shape":[0,4],"datatype":"FP32","data":[]}]}"#;
    assert!(sent::<LoggedModel>(signature(model), output, "infer", body).is_empty());
}
