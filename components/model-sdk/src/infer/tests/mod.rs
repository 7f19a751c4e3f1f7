mod graphs;

use proptest::prelude::*;

use super::*;
use crate::datatype::Datatype;
use crate::graph::stub::graph;
use crate::request::JSON_LENGTH;
use crate::signature::Signature;
use crate::signature::tests::iris;

/// The signature of a graph that returns its inputs.
fn echo(datatype: Datatype) -> Signature {
    let tensor = |name| {
        format!(r#"{{ name = "{name}", datatype = "{}", shape = [-1, 2] }}"#, datatype.name())
    };
    let tensors = format!("[{}, {}]", tensor("x"), tensor("y"));
    let text = format!("name = 'echo'\nversion = '1'\ninputs = {tensors}\noutputs = {tensors}");
    Signature::parse(&text, "echo").unwrap()
}

fn post(json: &str, binary: Option<&[u8]>) -> Request {
    let mut request = Request::post("/v2/models/m/infer", json.as_bytes());
    let Some(binary) = binary else {
        return request;
    };
    request.body.extend_from_slice(binary);
    request.with_header(JSON_LENGTH, &json.len().to_string())
}

/// The JSON of a response, and the binary data after it.
fn split(response: &Response) -> (&str, &[u8]) {
    let header = response.headers.iter().find(|(name, _)| *name == JSON_LENGTH);
    let json = header.map_or(response.body.len(), |(_, length)| length.parse().unwrap());
    let (json, binary) = response.body.split_at(json);
    (std::str::from_utf8(json).unwrap(), binary)
}

#[test]
fn response_has_the_requested_outputs() {
    let graph = graph(iris(), |inputs| {
        assert_eq!(inputs, [Tensor::f32("features", &[1, 4], &[1.0, 2.0, 3.0, 4.0])]);
        Ok(vec![
            Tensor::i64("label", &[1], &[2]),
            Tensor::f32("probabilities", &[1, 3], &[0.1, 1.5e-9, 1.0]),
        ])
    });
    let infer = |more: &str| {
        let body = format!(
            r#"{{"inputs":[{{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}}]{more}}}"#
        );
        let response = infer(&graph, &post(&body, None), None).unwrap();
        let (json, binary) = split(&response);
        let content_type =
            if binary.is_empty() { "application/json" } else { "application/octet-stream" };
        assert_eq!(response.headers[0], ("content-type", content_type.into()));
        (json.to_owned(), binary.to_owned())
    };
    let start = r#"{"model_name":"iris-classifier","model_version":"1","#;
    let label = r#"{"name":"label","datatype":"INT64","shape":[1],"data":[2]}"#;
    let probabilities =
        r#"{"name":"probabilities","datatype":"FP32","shape":[1,3],"data":[0.1,1.5e-9,1.0]}"#;
    let label_behind =
        r#"{"name":"label","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}"#;
    let probabilities_behind = r#"{"name":"probabilities","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}"#;
    let two = 2_i64.to_le_bytes();
    let floats = Tensor::f32("", &[3], &[0.1, 1.5e-9, 1.0]).data;
    for (more, outputs, binary) in [
        (r#","outputs":[{"name":"label"}]"#, label.to_owned(), vec![]),
        (
            r#","outputs":[{"name":"probabilities"},{"name":"label"}]"#,
            format!("{probabilities},{label}"),
            vec![],
        ),
        (
            r#","parameters":{"binary_data_output":true}"#,
            format!("{label_behind},{probabilities_behind}"),
            [&two[..], &floats].concat(),
        ),
        (
            r#","outputs":[{"name":"probabilities","parameters":{"binary_data":true}},{"name":"label"}]"#,
            format!("{probabilities_behind},{label}"),
            floats.clone(),
        ),
        (
            r#","outputs":[{"name":"label"},{"name":"probabilities","parameters":{"binary_data":true}}]"#,
            format!("{label},{probabilities_behind}"),
            floats.clone(),
        ),
        (
            r#","outputs":[{"name":"label"},{"name":"probabilities","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true}"#,
            format!("{label_behind},{probabilities}"),
            two.to_vec(),
        ),
    ] {
        assert_eq!(infer(more), (format!(r#"{start}"outputs":[{outputs}]}}"#), binary), "{more}");
    }
    let id = r#","id":"a\"b""#;
    let with_id = format!(r#"{start}"id":"a\"b","outputs":[{label},{probabilities}]}}"#);
    assert_eq!(infer(id).0, with_id);
}

#[test]
fn elements_not_in_json_are_returned_as_binary_data_only() {
    let graph =
        graph(echo(Datatype::F32), |_| Ok(vec![Tensor::f32("x", &[1, 2], &[0.0, f32::NAN])]));
    let input =
        |name| format!(r#"{{"name":"{name}","shape":[1,2],"datatype":"FP32","data":[1,2]}}"#);
    let body =
        format!(r#"{{"inputs":[{},{}],"outputs":[{{"name":"x"}}]}}"#, input("x"), input("y"));
    let error = infer(&graph, &post(&body, None), None).unwrap_err();
    assert_eq!(error.status(), 400);
    assert_eq!(
        error.to_string(),
        r#"output "x": element 1 is NaN or infinite, which JSON cannot represent; request the output as binary data: "parameters": {"binary_data": true}"#
    );
    // Binary data has no such limits.
    let body = body.replace("}]}", r#","parameters":{"binary_data":true}}]}"#);
    let response = infer(&graph, &post(&body, None), None).unwrap();
    assert_eq!(split(&response).1, Tensor::f32("", &[2], &[0.0, f32::NAN]).data);
}

/// Flags and words in, words and a flag out.
const MAPPED: &str = r#"
    name = "mapped"
    version = "1"
    [[inputs]]
    name = "flags"
    datatype = "BOOL"
    shape = [-1, 2]
    [[inputs]]
    name = "words"
    datatype = "BYTES"
    shape = [-1]
    [[outputs]]
    name = "any"
    datatype = "BOOL"
    shape = [-1]
    [[outputs]]
    name = "upper"
    datatype = "BYTES"
    shape = [-1]
    "#;

/// Whether any of a row's flags is set; its word in upper case.
fn map(_: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let [flags, words] = inputs else { return Err(Error::internal("not two")) };
    assert_eq!((&*flags.name, &*words.name), ("flags", "words"));
    let any: Vec<_> = flags.bools()?.chunks(2).map(|row| row[0] || row[1]).collect();
    let words = words.byte_strings()?;
    let upper: Vec<_> = words.iter().map(|word| word.to_ascii_uppercase()).collect();
    let rows = [u32::try_from(any.len()).unwrap()];
    Ok(vec![Tensor::bytes("upper", &rows, &upper), Tensor::bool("any", &rows, &any)])
}

fn mapped(mapping: Mapping, request: &Request) -> Result<(String, Vec<u8>), (u16, String)> {
    let signature = Signature::parse(MAPPED, "mapped").unwrap();
    let graph = graph(signature, |_| unreachable!("the mapping computes"));
    infer(&graph, request, Some(mapping))
        .map(|response| {
            let (json, behind) = split(&response);
            (json.to_owned(), behind.to_owned())
        })
        .map_err(|error| (error.status(), error.to_string()))
}

fn body(words: &str, flags: &str, more: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"words","shape":[2],"datatype":"BYTES",{words}}},{{"name":"flags","shape":[2,2],"datatype":"BOOL",{flags}}}]{more}}}"#
    )
}

const WORDS: &str = r#""data":["a\u00e9, [\"]",""]"#;
const FLAGS: &str = r#""data":[[false,false],[false,true]]"#;
const BEHIND_WORDS: &str = r#""parameters":{"binary_data_size":13}"#;
const BEHIND_FLAGS: &str = r#""parameters":{"binary_data_size":4}"#;

#[test]
fn mapping_computes_the_outputs() {
    let words = [&[5, 0, 0, 0][..], "a\u{e9}-z".as_bytes(), &[0; 4]].concat();
    let start = r#"{"model_name":"mapped","model_version":"1","outputs":["#;
    let any = r#"{"name":"any","datatype":"BOOL","shape":[2],"data":[false,true]}"#;
    let upper =
        |word| format!(r#"{{"name":"upper","datatype":"BYTES","shape":[2],"data":["{word}",""]}}"#);
    let (json, _) = mapped(map, &post(&body(WORDS, FLAGS, ""), None)).unwrap();
    assert_eq!(json, format!(r#"{start}{any},{}]}}"#, upper(r#"Aé, [\"]"#)));

    let behind = [&words[..], &[0, 0, 1, 0]].concat();
    let request = body(BEHIND_WORDS, BEHIND_FLAGS, r#","outputs":[{"name":"upper"}]"#);
    let (json, _) = mapped(map, &post(&request, Some(&behind))).unwrap();
    assert_eq!(json, format!("{start}{}]}}", upper("Aé-Z")));

    let request = body(BEHIND_WORDS, FLAGS, r#","parameters":{"binary_data_output":true}"#);
    let (json, behind) = mapped(map, &post(&request, Some(&words))).unwrap();
    assert!(json.contains(r#""shape":[2],"parameters":{"binary_data_size":13}"#), "{json}");
    let upper = [&[5, 0, 0, 0][..], "A\u{e9}-Z".as_bytes(), &[0; 4]].concat();
    assert_eq!(behind, [&[0, 1], &upper[..]].concat());
}

#[test]
fn mapping_receives_inputs_in_the_order_of_the_model() {
    let inputs = ["a", "b", "c"]
        .map(|name| format!("[[inputs]]\nname = '{name}'\ndatatype = 'FP32'\nshape = [1]\n"));
    let output = "[[outputs]]\nname = 'y'\ndatatype = 'FP32'\nshape = [1]\n";
    let text = format!("name = 'm'\nversion = '1'\n{}{output}", inputs.concat());
    let signature = Signature::parse(&text, "m").unwrap();
    for sent in ["abc", "acb", "bac", "bca", "cab", "cba"] {
        let named = |name: char| Tensor::f32(&name.to_string(), &[1], &[0.0]);
        let mut inputs: Vec<Tensor> = sent.chars().map(named).collect();
        order(&mut inputs, &signature.inputs);
        let names: String = inputs.iter().map(|input| &*input.name).collect();
        assert_eq!(names, "abc", "{sent}");
    }
}

#[test]
fn invalid_bool_and_bytes_are_refused() {
    for (words, flags, message) in [
        (r#""data":["a",1]"#, FLAGS, r#"input "words": data[1]: expected a string, got 1"#),
        (
            r#""data":["a"]"#,
            FLAGS,
            r#"input "words": data: expected 2 elements for the shape [2], got 1"#,
        ),
        (
            r#""data":["a","\ud800"]"#,
            FLAGS,
            r#"input "words": data[1]: "\ud800" is not a Unicode string (BYTES)"#,
        ),
        (r#""data":"a""#, FLAGS, r#"input "words": data: expected an array of strings, got "a""#),
        (
            r#""x":0"#,
            FLAGS,
            r#"input "words": expected either "data", an array of strings, or the parameter "binary_data_size", got neither"#,
        ),
        (WORDS, r#""data":[0,1,0,1]"#, r#"input "flags": data[0]: expected true or false, got 0"#),
        (
            WORDS,
            r#""data":[true,false,true,null]"#,
            r#"input "flags": data[3]: null is a missing value; only floating-point inputs can have one: write true or false"#,
        ),
    ] {
        let refused = Err((400, message.to_owned()));
        assert_eq!(mapped(map, &post(&body(words, flags, ""), None)), refused);
    }
    for (words, flags, behind, message) in [
        (
            BEHIND_WORDS,
            FLAGS,
            &[0; 13][..],
            r#"input "words": element 3 of the BYTES is longer than the rest of the data"#,
        ),
        (
            BEHIND_WORDS,
            FLAGS,
            &[9, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            r#"input "words": its shape requires 2 elements, but there are 1"#,
        ),
        (
            BEHIND_WORDS,
            FLAGS,
            &[255; 13],
            r#"input "words": element 0 of the BYTES is longer than the rest of the data"#,
        ),
        (
            WORDS,
            BEHIND_FLAGS,
            &[0, 1, 2, 0],
            r#"input "flags": expected BOOL, bytes of 0 or 1, got 2"#,
        ),
        (
            WORDS,
            BEHIND_FLAGS,
            &[0, 1, 1],
            r#"input "flags": binary_data_size is 4, but only 3 bytes are left after the JSON"#,
        ),
    ] {
        let refused = Err((400, message.to_owned()));
        assert_eq!(mapped(map, &post(&body(words, flags, ""), Some(behind))), refused);
    }
}

#[test]
fn bytes_that_are_not_utf8_are_returned_as_binary_data_only() {
    let latin_1 = b"\x04\0\0\0caf\xe9\x01\0\0\0x";
    let result = |more| mapped(map, &post(&body(BEHIND_WORDS, FLAGS, more), Some(latin_1)));
    let message = r#"output "upper": element 0 is not UTF-8, which JSON cannot represent; request the output as binary data: "parameters": {"binary_data": true}"#;
    assert_eq!(result(""), Err((400, message.to_owned())));
    assert!(result(r#","outputs":[{"name":"any"}]"#).is_ok());
    let binary = r#","outputs":[{"name":"upper","parameters":{"binary_data":true}}]"#;
    let (_, behind) = result(binary).unwrap();
    assert_eq!(behind, b"\x04\0\0\0CAF\xe9\x01\0\0\0X");
}

#[test]
fn errors_of_a_mapping_are_500() {
    let wrong: [(Mapping, &str); 2] = [
        (|_, _| Ok(vec![]), r#"the component's mapping returned no output "any""#),
        (
            |_, _| Ok(vec![Tensor::f32("any", &[1], &[1.0])]),
            r#"model.toml declares the output "any" as BOOL of shape [-1], but the component's mapping returned FP32 of shape [1]"#,
        ),
    ];
    for (mapping, message) in wrong {
        let refused = Err((500, message.to_owned()));
        assert_eq!(mapped(mapping, &post(&body(WORDS, FLAGS, ""), None)), refused);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        json in r#"(\[|\]|,|true|false|1|"x"|"\\"|null| ){0,12}"#,
        behind in prop::collection::vec(any::<u8>(), 0..24),
        shape in 0_u32..4,
    ) {
        let flags = format!(r#""data":[{json}]"#);
        let behind_words = format!(r#""parameters":{{"binary_data_size":{}}}"#, behind.len());
        for words in [&flags, &behind_words] {
            let body = body(words, &flags, "").replace("[2]", &format!("[{shape}]"));
            let _ = mapped(map, &post(&body, Some(&behind)));
        }
    }

    /// Bit for bit, as JSON, as binary data, and as one of each.
    #[test]
    fn elements_survive_encoding_and_decoding(
        datatype in prop::sample::select(Datatype::ALL.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..128),
        binary in any::<[bool; 2]>(),
    ) {
        let rows = bytes.len() / (2 * datatype.size());
        let elements = &bytes[..rows * 2 * datatype.size()];
        let dimensions = [u32::try_from(rows).unwrap(), 2];
        let tensor = |name: &str| match datatype {
            Datatype::Bool => {
                let elements: Vec<_> = elements.iter().map(|byte| byte % 2 == 1).collect();
                Tensor::bool(name, &dimensions, &elements)
            }
            Datatype::Bytes => {
                let elements: Vec<_> = elements.chunks(datatype.size()).collect();
                Tensor::bytes(name, &dimensions, &elements)
            }
            _ => Tensor {
                name: name.to_owned(),
                datatype,
                dimensions: dimensions.to_vec(),
                data: elements.to_vec(),
            },
        };
        let tensors = [tensor("x"), tensor("y")];
        let signature = echo(datatype);
        // JSON cannot represent NaN, infinities and bytes that are not UTF-8.
        match response::encode(Vec::new(), &signature, None, &tensors, &binary) {
            Ok(response) => {
                let (json, behind) = split(&response);
                let json = json.replace(r#""outputs""#, r#""inputs""#);
                let request = post(&json, Some(behind));
                let (json, behind) = binary::split(&request).unwrap();
                let decoded = request::decode(&signature, json, behind).unwrap();
                prop_assert_eq!(decoded.inputs, tensors);
            }
            Err(_) => prop_assert!(binary != [true; 2]),
        }
    }
}
