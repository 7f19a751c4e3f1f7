//! The models of the application with their versions and routes: `GET /v2/models`, and `GET /` unless a
//! route takes it. JSON, or a page for browsers.

use std::collections::{BTreeMap, BTreeSet};

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Response};
use serde::Serialize;
use serde_json::{Value, json};
use spinfer_model_toml::{ModelToml, TensorEntry};

use super::{JSON, page, response};
use crate::host::Host;
use crate::http::body::Body;
use crate::http::percent;
use crate::http::reserved::MODELS;
use crate::inference::model_states::VersionState;

/// Maximum number of elements of an example request.
const MAX_ELEMENTS: usize = 1024;

/// The models of an application.
#[derive(Debug, Serialize)]
pub(super) struct Listing<'a> {
    /// Their names, as KServe lists them.
    models: BTreeSet<&'a str>,
    pub(super) versions: Vec<ListedVersion<'a>>,
}

/// A version of a model.
#[derive(Debug, Serialize)]
pub(super) struct ListedVersion<'a> {
    pub(super) name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<&'a str>,
    pub(super) ready: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    /// The public routes of the components that serve it.
    pub(super) routes: Vec<&'a str>,
    #[serde(skip)]
    pub(super) example: Option<Example>,
}

/// A request that a client can try.
#[derive(Debug)]
pub(super) struct Example {
    pub(super) path: String,
    pub(super) body: String,
}

/// An input of a request, with its members in this order.
#[derive(Debug, Serialize)]
struct ExampleInput<'a> {
    name: &'a str,
    shape: Vec<u64>,
    datatype: &'a str,
    data: Vec<Value>,
}

/// The response to `GET`, as JSON or as a page.
pub(super) fn respond(host: &Host, headers: &HeaderMap) -> Response<Body> {
    let listing = Listing::of(host);
    let mut listed = if accepts_html(headers) {
        let mut listed = response(page::HTML, page::render(host.name(), &listing));
        let headers = listed.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, page::POLICY.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        listed
    } else {
        response(JSON, serde_json::to_string(&listing).unwrap_or_default())
    };
    let headers = listed.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    // A snapshot.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    listed
}

/// Whether the client is a browser: it names HTML, and does not prefer JSON.
fn accepts_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let types = values.flat_map(|value| value.split(','));
    let types = types.map(|of| of.split(';').next().unwrap_or_default().trim());
    let mut known = types.filter(|of| {
        of.eq_ignore_ascii_case("text/html") || of.eq_ignore_ascii_case("application/json")
    });
    known.next().is_some_and(|first| first.eq_ignore_ascii_case("text/html"))
}

impl<'a> Listing<'a> {
    fn of(host: &'a Host) -> Self {
        let mut versions: BTreeMap<_, (ListedVersion<'a>, VersionState)> = BTreeMap::new();
        for (id, component) in host.components() {
            for model in &component.spec().models {
                let (state, reason) = component.model_state(&model.name);
                let (name, version) = (&*model.name, model.version.as_deref());
                let listed = ListedVersion {
                    name,
                    version,
                    ready: state == VersionState::Ready,
                    reason,
                    routes: Vec::new(),
                    example: None,
                };
                let (known, known_state) =
                    versions.entry((name, version)).or_insert_with(|| (listed, state));
                if state < *known_state {
                    // A component that can serve it does.
                    (known.ready, known.reason) = (state == VersionState::Ready, String::new());
                    *known_state = state;
                }
                for route in host.routes_to(id) {
                    // Components behind the same router share its routes.
                    if !known.routes.contains(&route) {
                        known.routes.push(route);
                    }
                }
                if known.example.is_none() {
                    known.example = model.declared.as_ref().and_then(|it| example(host, id, it));
                }
            }
        }
        let versions: Vec<_> = versions.into_values().map(|(listed, _)| listed).collect();
        Self { models: versions.iter().map(|version| version.name).collect(), versions }
    }
}

/// An inference by the component `id`, if a route of the protocol leads to it.
fn example(host: &Host, id: &str, model: &ModelToml) -> Option<Example> {
    let [name, version] = [&model.name, &model.version].map(|text| percent::encode_segment(text));
    let paths =
        [format!("{MODELS}/{name}/infer"), format!("{MODELS}/{name}/versions/{version}/infer")];
    let leads_here =
        |path: &String| host.find(path).is_some_and(|(_, target)| target.metrics.component == id);
    let path = paths.into_iter().find(leads_here)?;
    let inputs = model.inputs.iter().map(example_input).collect::<Option<Vec<_>>>()?;
    Some(Example { path, body: example_body(&inputs)? })
}

/// The body with one line for each input.
fn example_body(inputs: &[ExampleInput<'_>]) -> Option<String> {
    let inputs = inputs.iter().map(|input| serde_json::to_string(input).ok());
    let lines = inputs.collect::<Option<Vec<_>>>()?.join(",\n  ");
    Some(format!("{{\"inputs\": [\n  {lines}\n]}}"))
}

/// An input of which each free axis has the size 1; `None` if it is too large to be edited.
fn example_input(input: &TensorEntry) -> Option<ExampleInput<'_>> {
    let shape: Vec<_> = input.shape.iter().map(|&axis| axis.unsigned_abs()).collect();
    let elements = shape
        .iter()
        .try_fold(1_usize, |elements, &axis| elements.checked_mul(usize::try_from(axis).ok()?));
    let elements = elements.filter(|&elements| elements <= MAX_ELEMENTS)?;
    let element = match input.datatype {
        "BYTES" => json!("text"),
        "BOOL" => json!(false),
        _ if input.is_float() => json!(0.5),
        // Not 0, which is no divisor.
        _ => json!(1),
    };
    Some(ExampleInput {
        name: &input.name,
        shape,
        datatype: input.datatype,
        data: vec![element; elements],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_a_page_and_others_json() {
        for (accept, html) in [
            (&["text/html,application/xhtml+xml,*/*;q=0.8"][..], true),
            (&["application/xml", "TEXT/HTML ; q=0.9"], true),
            (&["*/*"], false),
            (&[], false),
            (&["application/json, text/html"], false),
            (&["text/plain"], false),
        ] {
            let headers =
                accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))).collect();
            assert_eq!(accepts_html(&headers), html, "{accept:?}");
        }
    }

    #[test]
    fn example_has_the_datatype_and_shape_of_the_input() {
        let input = |datatype, shape: &[i64]| TensorEntry {
            name: "x".into(),
            datatype,
            shape: shape.to_vec(),
            ..TensorEntry::default()
        };
        for (input, expected) in [
            (input("FP32", &[-1, 2]), Some(json!([0.5, 0.5]))),
            (input("INT64", &[]), Some(json!([1]))),
            (input("BYTES", &[-1]), Some(json!(["text"]))),
            (input("BOOL", &[1]), Some(json!([false]))),
            (input("FP32", &[-1, 3, 224, 224]), None),
            (input("FP32", &[i64::MAX, i64::MAX]), None),
        ] {
            let data = example_input(&input).map(|input| Value::Array(input.data));
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn example_has_one_line_for_each_input() {
        let input = |name: &str, datatype, shape: &[i64]| TensorEntry {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
            ..TensorEntry::default()
        };
        let inputs = [input("pixels", "FP32", &[-1, 3]), input("count", "INT64", &[1])];
        let inputs: Vec<_> = inputs.iter().filter_map(example_input).collect();
        let expected = r#"{"inputs": [
  {"name":"pixels","shape":[1,3],"datatype":"FP32","data":[0.5,0.5,0.5]},
  {"name":"count","shape":[1],"datatype":"INT64","data":[1]}
]}"#;
        assert_eq!(example_body(&inputs).as_deref(), Some(expected));
    }
}
