use super::*;
use crate::graph::stub::graph;
use crate::rows::Rows;
use crate::signature::tests::{IRIS, iris};
use crate::tensor::Tensor;

/// A number per row with a decimal place per feature.
fn places(_: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
    let place =
        |row: Rows<'_>| row.features.iter().fold(0.0, |number, feature| number * 10.0 + feature);
    let numbers: Vec<f32> = rows.each().map(place).collect();
    Ok(Prediction::Numbers(Tensor::f32("places", &[rows.count], &numbers)))
}

fn invoked(signature: Signature, body: &[u8]) -> Result<String, (u16, String)> {
    let graph = graph(signature, |_| Ok(Vec::new()));
    invoke(&graph, &Request::post("/invocations", body), places)
        .map(|response| String::from_utf8(response.body).unwrap())
        .map_err(|error| (error.status(), error.to_string()))
}

const EXPECTED: &str = r#"{"predictions":[1234.0,5678.0]}"#;

#[test]
fn tables_are_read_by_name_or_by_position() {
    for body in [
        r#"{"inputs": [[1, 2, 3, 4], [5, 6, 7, 8]], "params": {"a": null}}"#,
        r#"{"inputs": {"features": [[1, 2, 3, 4], [5, 6, 7, 8]]}}"#,
        r#"{"inputs": {"petal_width": [4, 8], "colour": ["a", null],
                "sepal_width": [2, 6], "sepal_length": [1, 5], "petal_length": [3, 7]}}"#,
        r#"{"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]}"#,
        r#"{"instances": [[1, 2, 3, 4],
                {"petal_width": 8, "sepal_width": 6, "sepal_length": 5, "petal_length": 7}]}"#,
        r#"{"dataframe_records": [
                {"petal_width": 4, "sepal_width": 2, "sepal_length": 1, "petal_length": 3},
                {"sepal_length": 5, "sepal_width": 6, "petal_length": 7, "petal_width": 8, "colour": []}]}"#,
        r#"{"dataframe_split": {"index": [7, "a"],
                "columns": ["petal_width", "colour", "sepal_width", "sepal_length", "petal_length"],
                "data": [[4, "a", 2, 1, 3], [8, null, 6, 5, 7]]}}"#,
        r#"{"dataframe_split": {"data": [[1, 2, 3, 4], [5, 6, 7, 8]]}}"#,
        "petal_width,sepal_width,sepal_length,petal_length\n4,2,1,3\n8,6,5,7\n",
        "\u{feff},\"sepal_length\",sepal_width, petal_length,petal_width,colour\r\n\
             0,1,+2,3.0,\"4\",\"a, \"\"b\"\"\"\r\n\r\n1, 5,6e0,7.,8,",
    ] {
        assert_eq!(invoked(iris(), body.as_bytes()).as_deref(), Ok(EXPECTED), "{body}");
    }
}

#[test]
fn columns_are_read_in_order_if_features_have_no_names() {
    let (start, rest) = IRIS.split_at(IRIS.find("fields").unwrap());
    let text = format!("{start}{}", &rest[rest.find('\n').unwrap()..]);
    let signature = || Signature::parse(&text, "iris-classifier").unwrap();
    for body in [
        r#"{"dataframe_split": {"columns": [0, 1, 2, 3], "data": [[1, 2, 3, 4], [5, 6, 7, 8]]}}"#,
        "a,b,c,d\n1,2,3,4\n5,6,7,8",
    ] {
        assert_eq!(invoked(signature(), body.as_bytes()).as_deref(), Ok(EXPECTED));
    }
    assert_eq!(
        invoked(signature(), b"a,b,c\n1,2,3"),
        Err((400, "CSV row 1: expected 4 columns, got 3".to_owned()))
    );
    // Keys of an object have no order.
    for (body, what) in [
        (r#"{"instances": [{"a": 1, "b": 2, "c": 3, "d": 4}]}"#, "instances[0]"),
        (r#"{"inputs": {"a": [1], "b": [2], "c": [3], "d": [4]}}"#, "inputs"),
    ] {
        let problem = "expected an array: model.toml has no feature names (`fields`)";
        let refused = Err((400, format!("{what}: {problem}")));
        assert_eq!(invoked(signature(), body.as_bytes()), refused);
    }
}

#[test]
fn tables_of_strings() {
    let text = "name = 'm'\nversion = '1'\n\
        inputs = [{ name = 'text', datatype = 'BYTES', shape = [-1] }]\n\
        outputs = [{ name = 'y', datatype = 'FP32', shape = [-1] }]";
    let firsts: Predict = |_, rows| {
        let firsts: Vec<_> = rows.bytes.iter().map(|text| text[0].into()).collect();
        Ok(Prediction::Numbers(Tensor::f32("y", &[rows.count], &firsts)))
    };
    for body in [
        r#"{"inputs": ["a", "\"b"]}"#,
        r#"{"inputs": {"text": ["a", "\"b"]}}"#,
        r#"{"dataframe_records": [{"text": "a"}, {"x": 1, "text": "\"b"}]}"#,
        r#"{"dataframe_split": {"columns": ["x", "text"], "data": [[1, "a"], [2, "\"b"]]}}"#,
        "x,text\n1,a\n2,\"\"\"b\"\n",
    ] {
        let graph = graph(Signature::parse(text, "m").unwrap(), |_| Ok(Vec::new()));
        let response = invoke(&graph, &Request::post("/invocations", body.as_bytes()), firsts);
        assert_eq!(response.unwrap().body, br#"{"predictions":[97.0,34.0]}"#, "{body}");
    }
}

#[test]
fn nan_and_infinities_are_null() {
    for body in [
        r#"{"inputs": [[1, 2, 3, 4], [5, null, 7, 8], [3e38, 3e38, 0, 0]]}"#,
        "sepal_length,sepal_width,petal_length,petal_width\n1,2,3,4\n5,,7,8\n3e38,3e38,0,0\n",
    ] {
        let expected = r#"{"predictions":[1234.0,null,null]}"#;
        assert_eq!(invoked(iris(), body.as_bytes()).as_deref(), Ok(expected), "{body}");
    }
}

#[test]
fn messages_name_the_place_and_what_was_expected() {
    const NAMES: &str = "sepal_length, sepal_width, petal_length, petal_width";
    for (body, message) in [
        ("{}",
            r#"the body: expected exactly one of "dataframe_split", "dataframe_records", "instances" and "inputs""#.to_owned(),
        ),
        (r#"{"inputs": [[1, 2, 3, 4]], "instances": [[1, 2, 3, 4]]}"#,
            r#"the body: expected exactly one of "dataframe_split", "dataframe_records", "instances" and "inputs""#.to_owned(),
        ),
        ("[[1, 2, 3, 4]]",
            "the body: invalid type: sequence, expected an object at line 1 column 0".to_owned(),
        ),
        (r#"{"inputs": []}"#, "inputs: expected at least one row, got none".to_owned()),
        (r#"{"inputs": 5}"#,
            "inputs: invalid type: integer `5`, expected a sequence at line 1 column 1".to_owned(),
        ),
        (r#"{"inputs": [[1, 2, 3]]}"#,
            format!("inputs[0]: expected 4 numbers ({NAMES}), got 3"),
        ),
        (r#"{"inputs": {"sepal_length": [1, 5], "sepal_width": [2], "petal_length": [3], "petal_width": [4]}}"#,
            r#"inputs: "sepal_length" has 2 values, but "sepal_width" has 1"#.to_owned(),
        ),
        (r#"{"inputs": {"sepal_length": [1]}}"#,
            format!(r#"inputs: "sepal_width" is missing, as are "petal_length", "petal_width"; expected {NAMES}"#),
        ),
        (r#"{"dataframe_records": [{"sepal_length": 1, "sepal_width": 2, "petal_length": "3", "petal_width": 4}]}"#,
            r#"dataframe_records[0][2] (petal_length): got "3", which is not a number (FP32)"#.to_owned(),
        ),
        (r#"{"dataframe_records": [{"sepal_length": 1, "sepal_length": 2}]}"#,
            format!(r#"dataframe_records[0]: duplicate column "sepal_length"; expected {NAMES}"#),
        ),
        (r#"{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}"#,
            format!(r#"dataframe_split: columns: "sepal_length" is missing, as are "sepal_width", "petal_length", "petal_width"; "a", "b" are not columns of this model; expected {NAMES}"#),
        ),
        (r#"{"dataframe_split": {"columns": ["sepal_length", "sepal_width", "petal_length", "petal_width"], "data": [[1, 2, 3, 4], [1, 2, 3]]}}"#,
            "dataframe_split: data[1]: expected 4 values, one per column, got 3".to_owned(),
        ),
        (r#"{"dataframe_split": {"columns": []}}"#,
            "dataframe_split: expected \"data\", rows".to_owned(),
        ),
        ("", "the body: EOF while parsing a value at line 1 column 0".to_owned()),
        ("\u{feff}", "the body as CSV: expected a line of column names, got none".to_owned()),
        ("5.1,3.5,1.4,0.2\n",
            format!(r#"the body as CSV: the first line: "sepal_length" is missing, as are "sepal_width", "petal_length", "petal_width"; "5.1", "3.5", "1.4", "0.2" are not columns of this model; expected {NAMES}"#),
        ),
        ("sepal_length,sepal_width,petal_length,petal_width\n",
            "CSV: expected at least one row, got none".to_owned(),
        ),
        ("sepal_length,sepal_width,petal_length,petal_width\n1,2,3,4\n1,2,3,1e39\n",
            "CSV row 2[3] (petal_width): got 1e39, which is out of range for FP32".to_owned(),
        ),
        ("sepal_length,sepal_width,petal_length,petal_width\n1,2,3,x\n",
            "CSV row 1[3] (petal_width): got x, which is not a number (FP32)".to_owned(),
        ),
        ("sepal_length,sepal_width,petal_length,petal_width\n1,2,3,4,5\n",
            "CSV row 1: expected 4 values, one per column, got 5".to_owned(),
        ),
    ] {
        assert_eq!(invoked(iris(), body.as_bytes()), Err((400, message)), "{body}");
    }
    assert_eq!(invoked(iris(), b"\xff"), Err((400, "the body as CSV: expected UTF-8".to_owned())));
}

proptest::proptest! {
    #[test]
    fn no_body_panics(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
        csv in r#"("|,|\n|\r|[-0-9.e]{1,4}|sepal_length|petal_width|é){0,24}"#,
        json in r#"(\[|\]|,|1|-2e5|"x"|null|\{|\}|"sepal_length":|"features":| ){0,24}"#,
        table in "dataframe_split|dataframe_records|instances|inputs",
    ) {
        let _ = invoked(iris(), &bytes);
        let _ = invoked(iris(), csv.as_bytes());
        let header = "sepal_length,sepal_width,petal_length,petal_width\n";
        let _ = invoked(iris(), format!("{header}{csv}").as_bytes());
        let _ = invoked(iris(), format!(r#"{{"{table}":{json}}}"#).as_bytes());
        let split = format!(r#"{{"dataframe_split":{{"columns":["sepal_length"{json},"data":{json}}}}}"#);
        let _ = invoked(iris(), split.as_bytes());
    }

    #[test]
    fn all_formats_have_the_same_rows(rows in proptest::collection::vec(proptest::prelude::any::<[f32; 4]>(), 1..5)) {
        proptest::prop_assume!(rows.iter().flatten().all(|feature| feature.is_finite()));
        let fields = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
        // In the order of these columns.
        let order = [2, 0, 3, 1];
        let names = order.map(|column| fields[column]);
        let records: Vec<_> = rows.iter().map(|row| {
            let entries = order.map(|column| format!(r#""{}":{:e}"#, fields[column], row[column]));
            format!("{{{}}}", entries.join(","))
        }).collect();
        let lines: Vec<_> = rows.iter().map(|row| order.map(|c| format!("{:e}", row[c])).join(",")).collect();
        let split = format!(r#"{{"columns":{names:?},"data":[[{}]]}}"#, lines.join("],["));
        let flat: Vec<_> = rows.iter().map(|row| row.map(|f| format!("{f:e}")).join(",")).collect();
        let signature = iris();
        let expected: Vec<f32> = rows.iter().flatten().copied().collect();
        for (is_csv, body) in [
            (false, format!(r#"{{"dataframe_records":[{}]}}"#, records.join(","))),
            (false, format!(r#"{{"dataframe_split":{split}}}"#)),
            (false, format!(r#"{{"inputs":[[{}]]}}"#, flat.join("],["))),
            (true, format!("{}\n{}", names.join(","), lines.join("\n"))),
        ] {
            let mut reader = RowReader::new(&signature, 0).unwrap();
            if is_csv {
                csv::read(&mut reader, body.as_bytes()).unwrap();
            } else {
                read_json(&mut reader, &graph(iris(), |_| Ok(Vec::new())), body.as_bytes()).unwrap();
            }
            let read = reader.rows("").unwrap();
            proptest::prop_assert_eq!(read.count as usize, rows.len());
            proptest::prop_assert_eq!(read.features, &expected);
        }
    }
}
