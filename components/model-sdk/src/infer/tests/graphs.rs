//! Graphs with every datatype and shape, without a mapping.

use super::*;
use crate::signature::tests::signature;

/// The response to a request for a graph that returns its inputs under the names of its outputs.
fn echoed(
    model: &str,
    json: &str,
    binary: Option<&[u8]>,
) -> Result<(String, Vec<u8>), (u16, String)> {
    let graph = graph(signature(model), |inputs| {
        let renamed = |mut tensor: Tensor| {
            tensor.name = tensor.name.replace('x', "y");
            tensor
        };
        Ok(inputs.into_iter().map(renamed).collect())
    });
    infer(&graph, &post(json, binary), None)
        .map(|response| {
            let (json, behind) = split(&response);
            let start = r#"{"model_name":"m","model_version":"1","outputs":["#;
            (json.strip_prefix(start).unwrap_or(json).to_owned(), behind.to_owned())
        })
        .map_err(|error| (error.status(), error.to_string()))
}

fn input(datatype: &str, shape: &str, data: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#
    )
}

fn output(datatype: &str, shape: &str, data: &str) -> String {
    format!(r#"{{"name":"y","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#)
}

#[test]
fn graph_may_have_any_datatype() {
    for (datatype, data) in [
        ("BOOL", "[true,false]"),
        ("INT8", "[-128,127]"),
        ("INT16", "[-32768,32767]"),
        ("INT32", "[-2147483648,1]"),
        ("INT64", "[-9223372036854775808,1]"),
        ("UINT8", "[0,255]"),
        ("UINT16", "[0,65535]"),
        ("UINT32", "[0,4294967295]"),
        ("UINT64", "[0,18446744073709551615]"),
        ("FP16", "[1.5,-2.0]"),
        ("BF16", "[1.5,-2.0]"),
        ("FP32", "[0.1,-2.0]"),
        ("FP64", "[0.1,1e+300]"),
        ("BYTES", r#"["Rome",""]"#),
    ] {
        let model = format!("in x {datatype} [-1]\nout y {datatype} [-1]");
        let (json, _) = echoed(&model, &input(datatype, "[2]", data), None).unwrap();
        assert_eq!(json, output(datatype, "[2]", data));
    }
    let model = "in x BYTES [-1]\nout y BYTES [-1]";
    let behind = b"\x04\0\0\0Rome\0\0\0\0";
    let request = r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":12}}],"parameters":{"binary_data_output":true}}"#;
    let (_, binary) = echoed(model, request, Some(behind)).unwrap();
    assert_eq!(binary, behind);
}

#[test]
fn missing_value_is_nan_for_floats_and_refused_otherwise() {
    let nan = [f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat();
    let binary = |datatype: &str, data: &str| {
        let model = format!("in x {datatype} [-1]\nout y {datatype} [-1]");
        let request = input(datatype, "[2]", data);
        let request = request.replacen('{', r#"{"parameters":{"binary_data_output":true},"#, 1);
        echoed(&model, &request, None).map(|(_, binary)| binary)
    };
    assert_eq!(binary("FP32", "[null,1e+99999]"), Ok(nan));
    for datatype in ["FP16", "BF16", "FP64"] {
        assert!(binary(datatype, "[null,-1e+99999]").is_ok(), "{datatype}");
    }
    for (datatype, data, write) in [
        ("INT32", "[1,null]", "write an integer"),
        ("UINT64", "[1,null]", "write an integer"),
        ("BOOL", "[true,null]", "write true or false"),
        ("BYTES", r#"["a",null]"#, "write a string"),
    ] {
        let message = format!(
            r#"input "x": data[1]: null is a missing value; only floating-point inputs can have one: {write}"#
        );
        assert_eq!(binary(datatype, data), Err((400, message)));
    }
}

#[test]
fn axes_of_size_0_are_accepted_and_returned() {
    let model = "in x FP32 [-1, 4]\nout y FP32 [-1, 4]";
    for data in ["[]", "[ ]"] {
        let (json, _) = echoed(model, &input("FP32", "[0,4]", data), None).unwrap();
        assert_eq!(json, output("FP32", "[0,4]", "[]"));
    }
    let model = "in x BYTES [2, -1]\nout y BYTES [2, -1]";
    for data in ["[]", "[[],[]]"] {
        let (json, _) = echoed(model, &input("BYTES", "[2,0]", data), None).unwrap();
        assert_eq!(json, output("BYTES", "[2,0]", "[]"));
    }
    // Declared in model.toml.
    let model = "in x INT64 [0, 3]\nout y INT64 [0, 3]";
    let (json, _) = echoed(model, &input("INT64", "[0,3]", "[]"), None).unwrap();
    assert_eq!(json, output("INT64", "[0,3]", "[]"));
    // Outputs whose shape depends on the data.
    let graph = graph(signature("in x FP32 [-1, 4]\nout y INT64 [-1, 3]"), |_| {
        Ok(vec![Tensor::i64("y", &[0, 3], &[])])
    });
    let response = infer(&graph, &post(&input("FP32", "[1,4]", "[1,2,3,4]"), None), None).unwrap();
    assert!(split(&response).0.ends_with(r#""shape":[0,3],"data":[]}]}"#));
}

#[test]
fn scalars_and_many_axes() {
    let model = "in x INT8 []\nout y INT8 []";
    let (json, _) = echoed(model, &input("INT8", "[]", "[5]"), None).unwrap();
    assert_eq!(json, output("INT8", "[]", "[5]"));
    let shape = format!("[{}]", ["1"; 16].join(","));
    let data = format!("{}5{}", "[".repeat(16), "]".repeat(16));
    let model = format!("in x INT8 {shape}\nout y INT8 {shape}");
    let (json, _) = echoed(&model, &input("INT8", &shape, &data), None).unwrap();
    assert_eq!(json, output("INT8", &shape, "[5]"));
}

#[test]
fn batch_axis_does_not_change_tensors() {
    let model = "in x FP32 [2, -1]\nbatch_axis = 1\nout y FP32 [2, -1]\nbatch_axis = 1";
    let (json, _) = echoed(model, &input("FP32", "[2,3]", "[1,2,3,4,5,6]"), None).unwrap();
    assert_eq!(json, output("FP32", "[2,3]", "[1.0,2.0,3.0,4.0,5.0,6.0]"));
}

#[test]
fn fixed_first_axis_fits_the_buffer() {
    let model = "in x FP32 [10000]\nout y FP32 [10000]";
    let data = format!("[{}]", ["1.0"; 10_000].join(","));
    let (json, _) = echoed(model, &input("FP32", "[10000]", &data), None).unwrap();
    assert_eq!(json, output("FP32", "[10000]", &data));
}
