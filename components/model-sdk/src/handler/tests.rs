use super::*;
use crate::graph::stub::graph;
use crate::hooks::Mapping;
use crate::prediction::Prediction;
use crate::request::{JSON_LENGTH, Method, RequestHeaders};
use crate::rows::Rows;
use crate::signature::Signature;
use crate::signature::tests::iris;
use crate::tensor::Tensor;

struct FirstFeature;

impl Model for FirstFeature {
    const NAME: &'static str = "iris-classifier";

    fn predict(_: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let first: Vec<f32> = rows.each().map(|row| row.features[0]).collect();
        Ok(Prediction::Numbers(Tensor::f32("first", &[rows.count], &first)))
    }
}

fn respond_to(
    method: Method,
    path: &str,
    body: &str,
    load: impl FnOnce() -> Result<Rc<Graph>, Error>,
) -> (u16, String) {
    let request = Request {
        method,
        path_with_query: path.to_owned(),
        headers: RequestHeaders::none(),
        body: body.into(),
    };
    let response =
        respond::<FirstFeature>(&request, FirstFeature::NAME, load).unwrap_or_else(Response::from);
    assert_eq!(response.headers[0], ("content-type", "application/json".into()));
    (response.status, String::from_utf8(response.body).unwrap())
}

fn loaded(method: Method, path: &str, body: &str) -> (u16, String) {
    respond_to(method, path, body, || {
        Ok(graph(iris(), |_| {
            Ok(vec![
                Tensor::i64("label", &[1], &[0]),
                Tensor::f32("probabilities", &[1, 3], &[1.0, 0.0, 0.0]),
            ])
        }))
    })
}

const PREDICT: &str = r#"{"features":[1,2,3,4]}"#;
const INFER: &str =
    r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;

#[test]
fn each_operation_responds() {
    for (method, path, body, start) in [
        (
            Method::Get,
            "/v2/models/iris-classifier?x=1",
            "",
            r#"{"name":"iris-classifier","versions":["1"],"platform":"onnx_onnxv1","inputs":[{"name":"features","datatype":"FP32","shape":[-1,4]}],"outputs":[{"#,
        ),
        (
            Method::Head,
            "/v2/models/iris-classifier/versions/1",
            "",
            r#"{"name":"iris-classifier","versions":["1"]"#,
        ),
        (
            Method::Get,
            "/v2/models/iris%2Dclassifier/ready",
            "",
            r#"{"name":"iris-classifier","ready":true}"#,
        ),
        (
            Method::Post,
            "/v2/models/%69ris%2dclassifier/versions/%31/infer",
            INFER,
            r#"{"model_name":"iris-classifier","model_version":"1","outputs":[{"#,
        ),
        (
            Method::Post,
            "/v2/models/iris-classifier/infer",
            INFER,
            r#"{"model_name":"iris-classifier","model_version":"1","outputs":[{"#,
        ),
        (
            Method::Post,
            "/v2/models/iris-classifier/versions/1/predict",
            PREDICT,
            r#"{"model":"iris-classifier","version":"1","prediction":1.0}"#,
        ),
        (
            Method::Post,
            "/any/predict?x=/v2",
            PREDICT,
            r#"{"model":"iris-classifier","version":"1","prediction":1.0}"#,
        ),
        (
            Method::Post,
            "/v1/models/iris-classifier:predict",
            r#"{"instances":[[1,2,3,4],[5,6,7,8]]}"#,
            r#"{"model":"iris-classifier","version":"1","predictions":[{"prediction":1.0},{"prediction":5.0}]}"#,
        ),
        (
            Method::Get,
            "/v1/models/iris-classifier",
            "",
            r#"{"name":"iris-classifier","ready":true}"#,
        ),
        (
            Method::Post,
            "/invocations",
            r#"{"inputs":[[1,2,3,4],[5,6,7,8]]}"#,
            r#"{"predictions":[1.0,5.0]}"#,
        ),
        (Method::Get, "/ping", "", "\n"),
        (Method::Get, "/v2/models/iris-classifier/health", "", "\n"),
    ] {
        let (status, body) = loaded(method, path, body);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.starts_with(start), "{path}: {body}");
    }
}

#[test]
fn invalid_target_is_refused_before_the_model_is_loaded() {
    for (method, path, status) in [
        (Method::Get, "/", 404),
        (Method::Get, "/v2/models/iris-classifier/explain", 404),
        (Method::Get, "/v2/models/wine/ready", 404),
        (Method::Get, "/predict", 405),
        (Method::Get, "/invocations", 405),
        (Method::Post, "/ping", 405),
        (Method::Head, "/v2/models/iris-classifier/infer", 405),
        (Method::Post, "/v2/models/iris-classifier", 405),
        (Method::Other, "/v2/models/iris-classifier/ready", 405),
    ] {
        let (actual, body) = respond_to(method, path, "", || unreachable!("{path}"));
        assert_eq!(actual, status, "{path}");
        assert!(body.starts_with(r#"{"error":""#), "{body}");
    }
    assert_eq!(loaded(Method::Get, "/v2/models/iris-classifier/versions/2/ready", "").0, 404);
    assert_eq!(loaded(Method::Post, "/predict", "").0, 400);
}

/// Maps its input to the name of the mounted model in upper case.
struct Upper;

impl Model for Upper {
    const NAME: &'static str = model_name::MOUNTED;
    const MAPPING: Option<Mapping> = Some(|graph, inputs| {
        let name = graph.signature().name.to_ascii_uppercase();
        Ok(vec![Tensor::bytes("upper", &inputs[0].dimensions, &[name])])
    });
}

#[test]
fn mounted_model_can_have_a_mapping() {
    let text = "name = 'wine'\nversion = '2'\n\
            inputs = [{ name = 'x', datatype = 'BOOL', shape = [1] }]\n\
            outputs = [{ name = 'upper', datatype = 'BYTES', shape = [1] }]";
    let respond = |path: &str| {
        let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BOOL","data":[true]}]}"#;
        let load = || Ok(graph(Signature::parse(text, "wine").unwrap(), |_| Ok(Vec::new())));
        let request = Request::post(path, body.as_bytes());
        respond::<Upper>(&request, "wine", load)
            .map(|response| String::from_utf8(response.body).unwrap())
            .map_err(|error| error.status())
    };
    let expected = r#"{"model_name":"wine","model_version":"2","outputs":[{"name":"upper","datatype":"BYTES","shape":[1],"data":["WINE"]}]}"#;
    assert_eq!(respond("/v2/models/wine/infer").as_deref(), Ok(expected));
    assert_eq!(respond("/v2/models/upper/infer"), Err(404));
}

#[test]
fn python_nan_is_a_missing_value_in_every_protocol() {
    let missing = || {
        Ok(graph(iris(), |inputs| {
            assert!(inputs[0].f32s()?[1].is_nan());
            assert_eq!(inputs[0].f32s()?[2..], [f32::NEG_INFINITY, f32::INFINITY]);
            Ok(vec![
                Tensor::i64("label", &[1], &[0]),
                Tensor::f32("probabilities", &[1, 3], &[1.0, 0.0, 0.0]),
            ])
        }))
    };
    let infer = INFER.replace("[1,2,3,4]", "[1,NaN,-Infinity,Infinity]");
    struct DefaultIris;
    impl Model for DefaultIris {
        const NAME: &'static str = "iris-classifier";
    }
    for (path, body) in [
        ("/predict", r#"{"features":[1,NaN,-Infinity,Infinity]}"#),
        ("/invocations", r#"{"inputs":[[1,NaN,-Infinity,Infinity]]}"#),
        ("/v2/models/iris-classifier/infer", &infer),
    ] {
        let request = Request::post(path, body.as_bytes());
        let response = respond::<DefaultIris>(&request, DefaultIris::NAME, missing).unwrap();
        assert_eq!(response.status, 200);
        // With the length of the JSON in a header, which changes.
        let body = body.replacen('{', r#"{"id":"NaN","#, 1);
        let request = Request::post(path, body.as_bytes());
        let request = request.with_header(JSON_LENGTH, &body.len().to_string());
        let response = respond::<DefaultIris>(&request, DefaultIris::NAME, missing).unwrap();
        assert_eq!(response.status, 200);
    }
    let (status, body) = loaded(Method::Post, "/predict", r#"{"features":[NaN,2,3]}"#);
    assert_eq!(status, 400);
    assert!(body.contains("features: expected 4 numbers"), "{body}");
    let (_, body) = loaded(Method::Post, "/predict", r#"{"features":[1,2"#);
    assert!(!body.contains("NaN"), "{body}");
}

#[test]
fn unloadable_model_is_unavailable() {
    let fail = || Err(Error::unavailable("no model.toml"));
    let ready = respond_to(Method::Get, "/v2/models/iris-classifier/ready", "", fail);
    assert_eq!(
        ready,
        (503, r#"{"name":"iris-classifier","ready":false,"error":"no model.toml"}"#.to_owned())
    );
    let predict = respond_to(Method::Post, "/predict", PREDICT, fail);
    assert_eq!(predict, (503, r#"{"error":"no model.toml"}"#.to_owned()));
}
