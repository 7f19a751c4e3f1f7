//! The parser of `model-sdk` accepts every notation of a body, or none: a cached response must not depend
//! on which notation the first client sent.

use model_sdk::fuzzing::echo;

use super::*;

const DATATYPES: [&str; 14] = [
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16",
    "FP32", "FP64", "BF16", "BYTES",
];

/// A model whose output is its input `x`.
fn model(datatype: &str, shape: &str) -> String {
    let tensor = format!("[{{ name = 'x', datatype = '{datatype}', shape = {shape} }}]");
    format!("name = 'iris-classifier'\nversion = '1'\ninputs = {tensor}\noutputs = {tensor}")
}

/// Elements around the bounds of the datatypes.
fn elements() -> impl Strategy<Value = Value> {
    const BOUNDS: [i64; 16] = [
        0,
        1,
        127,
        128,
        255,
        256,
        32_768,
        65_535,
        65_504,
        65_520,
        16_777_217,
        2_147_483_648,
        4_294_967_295,
        9_007_199_254_740_993,
        1_000_000_000_000_000_000,
        i64::MAX,
    ];
    prop_oneof![
        8 => (prop::sample::select(&BOUNDS[..]), any::<bool>())
            .prop_map(|(bound, negative)| number(if negative { -bound } else { bound }, 0)),
        4 => (-300..300_i64, -3..3_i32).prop_map(|(digits, exponent)| number(digits, exponent)),
        2 => (1..20_i64, 17..20_i32).prop_map(|(digits, exponent)| number(digits, exponent)),
        1 => (any::<i64>(), -400..400_i32).prop_map(|(digits, exponent)| number(digits, exponent)),
        1 => prop::sample::select(&[1, -1][..]).prop_map(|sign| number(sign, 99_999)),
        1 => prop::sample::select(&["true", "false", "null"][..]).prop_map(Value::Word),
        2 => "[ab\"\\\\/\n\u{e9}]{0,3}".prop_map(Value::String),
    ]
}

/// Mostly elements that the datatype accepts.
fn tensor(datatype: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let own = match datatype {
        "BOOL" => prop::sample::select(&["true", "false"][..]).prop_map(Value::Word).boxed(),
        "BYTES" => "[ab\"\\\\/\n\u{e9}]{0,3}".prop_map(Value::String).boxed(),
        _ => (0..128_i64, 0..1_i32).prop_map(|(digits, exponent)| number(digits, exponent)).boxed(),
    };
    prop::collection::vec(prop_oneof![2 => own, 1 => elements()], 1..5)
}

fn object(members: Vec<(&str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn inference(datatype: &str, shape: Vec<Value>, data: Vec<Value>) -> Value {
    let input = object(vec![
        ("name", Value::String("x".to_owned())),
        ("datatype", Value::String(datatype.to_owned())),
        ("shape", Value::Array(shape)),
        ("data", Value::Array(data)),
    ]);
    object(vec![("id", Value::String("/1".to_owned())), ("inputs", Value::Array(vec![input]))])
}

/// Sends both notations of a body. Returns the status of both.
fn same_response(model: &str, operation: &str, notations: [&str; 2], by: BodyKey) -> u16 {
    let forms = notations.map(|body| form(body.as_bytes(), by));
    assert!(forms[0].is_some() && forms[0] == forms[1], "{notations:?}");
    let path = format!("/v2/models/iris-classifier/{operation}");
    let [(one, body), (other, other_body)] = notations.map(|body| echo(model, &path, body));
    let shown = [&body, &other_body].map(|body| String::from_utf8_lossy(body));
    assert_eq!(one, other, "{notations:?}: {shown:?}");
    // The text of an error may quote the request.
    assert!(one == 400 || one == 200 && body == other_body, "{one} {notations:?}: {shown:?}");
    one
}

proptest! {
    #[test]
    fn every_notation_of_a_tensor_has_the_same_response(
        (datatype, data) in prop::sample::select(&DATATYPES[..])
            .prop_flat_map(|datatype| (Just(datatype), tensor(datatype))),
        wrong in prop::option::weighted(0.1, (-2..1000_i64, -1..2_i32)),
        nested: [bool; 2],
        a in choices(),
        b in choices(),
    ) {
        let length = i64::try_from(data.len()).unwrap();
        let size = wrong.map_or(number(length, 0), |(digits, exponent)| number(digits, exponent));
        let rows: Vec<_> = data.iter().map(|element| Value::Array(vec![element.clone()])).collect();
        let bodies = nested.map(|nested| {
            let data = if nested && wrong.is_none() { rows.clone() } else { data.clone() };
            inference(datatype, vec![size.clone(), number(1, 0)], data)
        });
        let [a, b] = [Pen::write(&bodies[0], &a), Pen::write(&bodies[1], &b)];
        same_response(&model(datatype, "[-1, 1]"), "infer", [&a, &b], BodyKey::Tensors);
    }

    #[test]
    fn every_notation_of_rows_has_the_same_response(
        (datatype, data) in prop::sample::select(&DATATYPES[..])
            .prop_flat_map(|datatype| (Just(datatype), tensor(datatype))),
        column in prop::sample::select(&["x", "1"][..]),
        kind in 0..5_usize,
        a in choices(),
        b in choices(),
    ) {
        let rows = Value::Array(data.iter().map(|item| Value::Array(vec![item.clone()])).collect());
        // A data frame without names of columns has numbers.
        let names = Value::Array(vec![match column {
            "1" => number(1, 0),
            name => Value::String(name.to_owned()),
        }]);
        let (operation, body) = match kind {
            0 => ("predict", object(vec![("features", Value::Array(data[..1].to_vec()))])),
            1 => ("predict", object(vec![("instances", rows)])),
            2 => ("predict", object(vec![("features", object(vec![(column, data[0].clone())]))])),
            3 => ("invocations", object(vec![("inputs", object(vec![(column, Value::Array(data))]))])),
            _ => {
                let split = object(vec![("columns", names), ("data", rows)]);
                ("invocations", object(vec![("dataframe_split", split)]))
            }
        };
        let model = model(datatype, "[-1]").replace("'x'", &format!("'{column}'"));
        let [a, b] = [Pen::write(&body, &a), Pen::write(&body, &b)];
        same_response(&model, operation, [&a, &b], BodyKey::Json);
    }
}

#[test]
fn notations_that_were_refused_are_accepted() {
    let [integers, numbers] = ["INT64", "FP32"].map(|datatype| model(datatype, "[-1, 1]"));
    let tensor = |datatype: &str, shape: &str, data: &str| {
        format!(
            "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"{datatype}\",\"shape\":{shape},\"data\":{data}}}]}}"
        )
    };
    for (model, status, notations) in [
        (
            &numbers,
            200,
            [
                tensor("FP32", "[4, 1]", "[1,2,3,4]"),
                tensor("FP32", "[4.0, 1e0]", "[[1],[2],[3],[4]]"),
            ],
        ),
        (
            &integers,
            200,
            [
                tensor("INT64", "[1, 1]", "[1000000000000000000]"),
                tensor("INT64", "[1, 1]", "[1e18]"),
            ],
        ),
        (
            &integers,
            200,
            [tensor("INT64", "[1, 1]", "[1e18]"), tensor("INT64", "[1, 1]", "[[100.0e16]]")],
        ),
        (&integers, 400, [tensor("INT64", "[1, 1]", "[0.5]"), tensor("INT64", "[1, 1]", "[5e-1]")]),
    ] {
        let both = [&*notations[0], &*notations[1]];
        assert_eq!(same_response(model, "infer", both, BodyKey::Tensors), status, "{notations:?}");
    }
}
