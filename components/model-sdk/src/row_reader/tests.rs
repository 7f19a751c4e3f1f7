use crate::graph::stub::graph;
use crate::hooks::ModelHooks;
use crate::invocations::invoke;
use crate::predict::predict;
use crate::request::Request;
use crate::signature::tests::signature;
use crate::tensor::Tensor;
use crate::{Error as Problem, Model};

/// Uses the default `predict`.
struct RowModel;

impl Model for RowModel {
    const NAME: &'static str = "m";
}

/// One input per column, as skl2onnx exports a ColumnTransformer.
const MIXED: &str = "in age FP32 [-1, 1]\nin city_in BYTES [-1, 1]\nfields = ['city']\nin children INT64 [-1]\n\
    in owner BOOL [-1, 1]\nout y FP32 [-1]";

/// The inputs that the graph receives for a request to `operation`, or the error.
fn inputs_for(model: &str, operation: &str, body: &str) -> Result<Vec<Tensor>, (u16, String)> {
    let captured = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = std::rc::Rc::clone(&captured);
    let graph = graph(signature(model), move |inputs| {
        let rows = inputs[0].dimensions[0];
        *seen.borrow_mut() = inputs;
        Ok(vec![Tensor::f32("y", &[rows], &vec![0.0; rows as usize])])
    });
    let request = Request::post("/", body.as_bytes());
    let hooks = ModelHooks::of::<RowModel>();
    let result = match operation {
        "predict" => predict(&graph, &request, &hooks),
        _ => invoke(&graph, &request, hooks.predict),
    };
    result.map_err(|error: Problem| (error.status(), error.to_string()))?;
    Ok(captured.take())
}

#[test]
fn rows_of_strings_and_numbers_in_every_format() {
    let expected = |rows: &[usize]| {
        let many = |values: [f32; 2]| rows.iter().map(|&row| values[row]).collect::<Vec<_>>();
        let count = u32::try_from(rows.len()).unwrap();
        let (ages, cities) = (many([3.5, 4.0]), rows.iter().map(|&row| ["Rome", "Oslo"][row]));
        let children: Vec<_> = rows.iter().map(|&row| [2, -9_007_199_254_740_993][row]).collect();
        let owners: Vec<_> = rows.iter().map(|&row| row == 0).collect();
        vec![
            Tensor::f32("age", &[count, 1], &ages),
            Tensor::bytes("city_in", &[count, 1], &cities.collect::<Vec<_>>()),
            Tensor::i64("children", &[count], &children),
            Tensor::bool("owner", &[count, 1], &owners),
        ]
    };
    let object = r#"{"city":"Rome","age":3.5,"owner":true,"children":2}"#;
    let array = r#"[3.5,"Rome",2,true]"#;
    let other = r#"[4,"Oslo",-9007199254740993,0]"#;
    let records = r#"[{"city_in":"Rome","age":3.5,"owner":1,"children":2},
        {"age":4,"city":"Oslo","children":-9007199254740993,"owner":false}]"#;
    for (operation, body, rows) in [
        ("predict", format!(r#"{{"features":{object}}}"#), &[0][..]),
        ("predict", format!(r#"{{"features":{array}}}"#), &[0]),
        ("predict", format!(r#"{{"instances":[{array},{other}]}}"#), &[0, 1]),
        ("predict", format!(r#"{{"instances":[{object},{other},{object}]}}"#), &[0, 1, 0]),
        ("predict", format!(r#"{{"instances":{records}}}"#), &[0, 1]),
        ("invocations", format!(r#"{{"dataframe_records":{records}}}"#), &[0, 1]),
        ("invocations", format!(r#"{{"inputs":[{array},{other}]}}"#), &[0, 1]),
        (
            "invocations",
            format!(
                r#"{{"dataframe_split":{{"columns":["age","city","children","owner"],"data":[{array},{other}]}}}}"#
            ),
            &[0, 1],
        ),
        (
            "invocations",
            r#"{"inputs":{"age":[3.5,4],"city_in":[["Rome"],["Oslo"]],"owner":[true,false],"children":[2,-9007199254740993]}}"#
                .to_owned(),
            &[0, 1],
        ),
        (
            "invocations",
            "city,children,,age,owner\nRome,2,x,3.5,True\nOslo,-9007199254740993,,4.0,false\n".to_owned(),
            &[0, 1],
        ),
    ] {
        assert_eq!(inputs_for(MIXED, operation, &body), Ok(expected(rows)), "{body}");
    }
}

#[test]
fn missing_value_is_nan_or_refused_with_its_column() {
    let header = "age,city,children,owner\n";
    for (operation, body) in [
        ("predict", r#"{"features":[null,"Rome",2,true]}"#.to_owned()),
        ("predict", r#"{"features":{"age":null,"city":"","children":2.0,"owner":0}}"#.to_owned()),
        ("invocations", format!("{header},Rome,2,1\n")),
        ("invocations", format!("{header} nan ,NA,2,1\n")),
        ("invocations", format!("{header}NA,null,2,TRUE\n")),
    ] {
        let inputs = inputs_for(MIXED, operation, &body).unwrap();
        assert!(inputs[0].f32s().unwrap()[0].is_nan(), "{body}");
    }
    let infinite = inputs_for(MIXED, "invocations", &format!("{header}-inf,Rome,2,1\n")).unwrap();
    assert_eq!(infinite[0].f32s().unwrap(), [f32::NEG_INFINITY]);
    let only = "is a missing value; only floating-point inputs can have one";
    for (operation, body, message) in [
        (
            "predict",
            r#"{"features":[1,"Rome",null,true]}"#.to_owned(),
            format!("features[2] (children): null {only}: write an integer"),
        ),
        (
            "predict",
            r#"{"instances":[{"age":1,"city":null,"children":2,"owner":true}]}"#.to_owned(),
            format!("instances[0][1] (city): got null, which {only}: write a string"),
        ),
        (
            "predict",
            r#"{"features":{"owner":null,"age":1,"city":"a","children":2}}"#.to_owned(),
            format!("features[0] (owner): got null, which {only}: write true or false"),
        ),
        (
            "invocations",
            format!("{header}1,,2,1\n"),
            format!("CSV row 1[1] (city): got an empty cell, which {only}: write a string"),
        ),
        (
            "invocations",
            format!("{header}1,Rome,2,1\n1,Rome,nan,1\n"),
            format!("CSV row 2[2] (children): got nan, which {only}: write an integer"),
        ),
        (
            "invocations",
            format!("{header}1,Rome,2,\n"),
            format!("CSV row 1[3] (owner): got an empty cell, which {only}: write true or false"),
        ),
    ] {
        assert_eq!(inputs_for(MIXED, operation, &body), Err((400, message)), "{body}");
    }
}

#[test]
fn value_that_does_not_fit_its_column_is_refused() {
    for (row, problem) in [
        (r#"[1,2,3,true]"#, "features[1] (city): 2 is not a string (BYTES)"),
        (r#"["a","b",3,true]"#, r#"features[0] (age): "a" is not a number (FP32)"#),
        (r#"[1,"b",3.5,true]"#, "features[2] (children): 3.5 is not a 64-bit integer (INT64)"),
        (r#"[1,"b",3,2]"#, "features[3] (owner): 2 is not true or false (BOOL)"),
        (r#"[1,"b",3,"true"]"#, r#"features[3] (owner): "true" is not true or false (BOOL)"#),
        (
            r#"[1,"b",1e+99999,true]"#,
            "features[2] (children): Infinity is not a 64-bit integer (INT64)",
        ),
        (r#"[1,"b",3]"#, "features: expected 4 values (age, city, children, owner), got 3"),
        (r#"[1,"b",3,true,5]"#, "features: expected 4 values (age, city, children, owner), got 5"),
        (
            r#"[1,["b"],3,true]"#,
            "features[1]: expected a number, a string, true or false, got an array",
        ),
        (
            r#"{"age":1,"city":"b","city_in":"c","children":3,"owner":true}"#,
            r#"features: duplicate column "city_in"; expected age, city, children, owner"#,
        ),
        (
            r#"{"age":1,"owner":true,"x":[],"y":{}}"#,
            r#"features: "city" is missing, as are "children"; "x", "y" are not columns of this model; expected age, city, children, owner"#,
        ),
        (
            r#"{"age":1,"city":"b","children":3,"owner":true,"x":0}"#,
            r#"features: "x" is not a column of this model; expected age, city, children, owner"#,
        ),
    ] {
        let refused = inputs_for(MIXED, "predict", &format!(r#"{{"features":{row}}}"#));
        assert_eq!(refused, Err((400, problem.to_owned())), "{row}");
    }
    let expected = r#"the body: expected either "features", one row, or "instances", an array of rows; a row is an array, or an object with a value for each column"#;
    assert_eq!(inputs_for(MIXED, "predict", "{}"), Err((400, expected.to_owned())));
    let open = "in words BYTES [-1, -1]\nin x FP32 [-1]\nout y FP32 [-1]";
    let (status, message) = inputs_for(open, "predict", r#"{"features":["a",1]}"#).unwrap_err();
    assert_eq!(status, 400);
    assert!(message.contains("use POST /v2/models/m/infer"), "{message}");
}

/// A model without a mapping accepts its strings as `features`.
#[test]
fn strings_are_features_too() {
    let words = Tensor::bytes("text", &[2], &["a", "é"]);
    let model = "in text BYTES [-1]\nout y FP32 [-1]";
    for (operation, body) in [
        ("predict", r#"{"texts":["a","\u00e9"]}"#),
        ("predict", r#"{"instances":["a",["é"]]}"#),
        ("predict", r#"{"instances":[{"text":"a"},["é"]]}"#),
        ("invocations", r#"{"inputs":["a","é"]}"#),
        ("invocations", r#"{"dataframe_split":{"columns":["x","text"],"data":[[1,"a"],[2,"é"]]}}"#),
        ("invocations", "text\na\né\n"),
    ] {
        assert_eq!(inputs_for(model, operation, body), Ok(vec![words.clone()]), "{body}");
    }
    for body in [
        r#"{"features":["a"]}"#,
        r#"{"features":"a"}"#,
        r#"{"features":{"text":"a"}}"#,
        r#"{"text":"a"}"#,
        r#"{"text":["a"]}"#,
    ] {
        let one = Tensor::bytes("text", &[1], &["a"]);
        assert_eq!(inputs_for(model, "predict", body), Ok(vec![one]), "{body}");
    }
    // Several strings per row.
    let model = "in words BYTES [-1, 2]\nout y FP32 [-1]";
    let words = Tensor::bytes("words", &[2, 2], &["a", "b", "c", ""]);
    let body = r#"{"instances":[["a","b"],["c",""]]}"#;
    assert_eq!(inputs_for(model, "predict", body), Ok(vec![words]));
}

/// Numbers keep all of their bits.
#[test]
fn rows_of_every_datatype() {
    for (datatype, row, data) in [
        ("INT8", "[-128, 127]", vec![0x80, 0x7f]),
        ("INT16", "[-2, 3.0]", vec![0xfe, 0xff, 3, 0]),
        ("UINT8", "[0, 255]", vec![0, 255]),
        ("UINT16", "[65535, 1]", vec![255, 255, 1, 0]),
        ("UINT32", "[4294967295, 1]", vec![255, 255, 255, 255, 1, 0, 0, 0]),
        (
            "UINT64",
            "[18446744073709551615, 9007199254740993]",
            [u64::MAX.to_le_bytes(), 9_007_199_254_740_993_u64.to_le_bytes()].concat(),
        ),
        ("BOOL", "[true, 0]", vec![1, 0]),
        ("FP64", "[1e300, 0.1]", [1e300_f64.to_le_bytes(), 0.1_f64.to_le_bytes()].concat()),
        ("FP16", "[1, -2]", vec![0, 0x3c, 0, 0xc0]),
    ] {
        let model = format!("in x {datatype} [-1, 2]\nfields = ['a', 'b']\nout y FP32 [-1]");
        let csv = row.trim_matches(['[', ']']);
        for (operation, body) in [
            ("predict", format!(r#"{{"features":{row}}}"#)),
            (
                "invocations",
                format!(r#"{{"dataframe_split":{{"columns":["a","b"],"data":[{row}]}}}}"#),
            ),
            ("invocations", format!("a,b\n{csv}\n")),
        ] {
            let inputs = inputs_for(&model, operation, &body).unwrap();
            assert_eq!(inputs[0].data, data, "{datatype}: {body}");
            assert_eq!(inputs[0].dimensions, [1, 2]);
        }
    }
    for (datatype, value) in
        [("INT8", "128"), ("UINT64", "-1"), ("FP16", "70000"), ("FP32", "1e39")]
    {
        let model = format!("in x {datatype} [-1, 2]\nfields = ['a', 'b']\nout y FP32 [-1]");
        for (operation, body) in [
            ("predict", format!(r#"{{"features":[1,{value}]}}"#)),
            ("invocations", format!("a,b\n1,{value}\n")),
        ] {
            let (status, message) = inputs_for(&model, operation, &body).unwrap_err();
            assert_eq!(status, 400, "{message}");
            assert!(message.contains(datatype), "{message}");
        }
    }
}

#[test]
fn fixed_first_axis_is_one_row() {
    let features = ["1"; 10_000].join(",");
    let model = "in x FP32 [10000]\nout y FP32 [10000]";
    let inputs = inputs_for(model, "predict", &format!(r#"{{"features":[{features}]}}"#)).unwrap();
    assert_eq!(inputs[0].dimensions, [10_000]);
}

proptest::proptest! {
    #[test]
    fn no_row_panics(
        json in r#"(\[|\]|,|1|-2e5|"x"|null|true|\{|\}|"age":|"city":|"children":|"owner":| ){0,24}"#,
        csv in r#"("|,|\n|[-0-9.e]{1,4}|age|city|children|owner|nan|True){0,24}"#,
    ) {
        for body in [format!(r#"{{"features":{json}}}"#), format!(r#"{{"instances":[{json}]}}"#)] {
            let _ = inputs_for(MIXED, "predict", &body);
        }
        let _ = inputs_for(MIXED, "invocations", &format!("age,city,children,owner\n{csv}"));
        let _ = inputs_for(MIXED, "invocations", &csv);
    }
}
