//! Models fetched from a test server that works, or misbehaves in various ways.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Url;
use serde_json::{Value, json};

use super::client::MlflowClient;
use super::settings::{MlflowCredentials, MlflowSettings};
use super::{FetchedGraph, Locator};
use crate::cli::add::external::tests::{model, tensor};

/// Timeout of the client.
const TIMEOUT: Duration = Duration::from_millis(300);

/// The reply of the server to a request.
enum Reply {
    Json(u16, Value),
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A whole response, with its head.
    Raw(Vec<u8>),
    /// The start of a response, then nothing until the client disconnects.
    Stall(Vec<u8>),
    /// The start of a response, then single bytes at intervals.
    Drip(Vec<u8>),
    /// An endless file.
    Endless,
}

/// A server with one connection per request.
struct Server {
    address: SocketAddr,
    /// Heads of the requests received.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(reply: impl Fn(&str) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let head = head(&stream);
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                seen.lock().unwrap().push(head);
                // Some tests make the client disconnect early.
                let _ = send(&mut stream, reply(&path));
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn locator(&self, credentials: MlflowCredentials) -> Locator {
        locator(&format!("http://{}", self.address), credentials)
    }
}

fn locator(base: &str, credentials: MlflowCredentials) -> Locator {
    let settings =
        MlflowSettings { base: Url::parse(base).unwrap(), credentials, timeout: TIMEOUT };
    Locator { client: Some(MlflowClient::new(settings).unwrap()) }
}

fn head(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

fn send(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    let response = |status: u16, kind: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    match reply {
        Reply::Json(status, body) => {
            stream.write_all(&response(status, "application/json", body.to_string().as_bytes()))
        }
        Reply::Bytes(body) => stream.write_all(&response(200, "application/octet-stream", &body)),
        Reply::Raw(bytes) => stream.write_all(&bytes),
        Reply::Stall(bytes) => {
            stream.write_all(&bytes)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        }
        Reply::Drip(bytes) => {
            stream.write_all(&bytes)?;
            loop {
                stream.write_all(b"x")?;
                // Until the client disconnects.
                thread::sleep(TIMEOUT / 10);
            }
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 x\r\ncontent-type: text/plain\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 1 << 16])?;
            }
        }
    }
}

fn status(status: u16, kind: &str, body: &str) -> Reply {
    let head =
        format!("HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}");
    Reply::Raw(head.into_bytes())
}

const MISSING: &str = "RESOURCE_DOES_NOT_EXIST";

fn missing(message: &str) -> Reply {
    Reply::Json(404, json!({ "error_code": MISSING, "message": message }))
}

/// Replies of an MLflow server with version 3 of `iris`, the alias `champion`, the run `r1` and the
/// logged model `m-1`; its graph has weights in `w.bin`.
fn mlflow(path: &str) -> Reply {
    const MLMODEL: &str = "flavors:\n  onnx:\n    data: model.onnx\n    onnx_version: 1.23.2\n\
                           mlflow_version: 3.17.2\nrun_id: r1\nsignature:\n  inputs: '[{\"type\": \"float\", \
                           \"name\": \"x\"}]'\n";
    let version = json!({ "name": "iris", "version": "3", "run_id": "r1", "source": "models:/m-1",
        "status": "READY", "aliases": ["champion"], "tags": [{ "key": "stage", "value": "gold" }] });
    let run = json!({ "run": {
        "info": { "run_id": "r1", "artifact_uri": "s3://bucket/1/r1/artifacts" },
        "data": { "metrics": [{ "key": "accuracy", "value": 0.5 }, { "key": "bad", "value": "NaN" }] },
        "outputs": { "model_outputs": [{ "model_id": "m-1", "step": 0 }] } } });
    let logged = json!({ "model": { "info": { "model_id": "m-1", "name": "net",
        "artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts", "source_run_id": "r1" } } });
    let api = path.strip_prefix("/api/2.0/mlflow/").unwrap_or_default();
    let (endpoint, query) = api.split_once('?').unwrap_or((api, ""));
    match endpoint {
        "model-versions/get" if query == "name=iris&version=3" => {
            return Reply::Json(200, json!({ "model_version": version }));
        }
        "model-versions/get" => return missing("Model Version not found"),
        "registered-models/alias" if query == "name=iris&alias=champion" => {
            return Reply::Json(200, json!({ "model_version": version }));
        }
        "registered-models/alias" => {
            return Reply::Json(
                400,
                json!({ "error_code": "INVALID_PARAMETER_VALUE", "message": "alias not found." }),
            );
        }
        "registered-models/get" => {
            let aliases = json!([{ "alias": "champion", "version": "3" }]);
            return Reply::Json(
                200,
                json!({ "registered_model": { "name": "iris", "aliases": aliases } }),
            );
        }
        "registered-models/search" => {
            return Reply::Json(200, json!({ "registered_models": [{ "name": "iris" }] }));
        }
        "model-versions/search" if query.contains("iris") => {
            return Reply::Json(200, json!({ "model_versions": [version] }));
        }
        "model-versions/search" => return Reply::Json(200, json!({})),
        "model-versions/get-download-uri" => {
            return Reply::Json(
                200,
                json!({ "artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts" }),
            );
        }
        "runs/get" if query == "run_id=r1" => return Reply::Json(200, run),
        "runs/get" => return missing("Run not found"),
        "logged-models/m-1" => return Reply::Json(200, logged),
        "artifacts/list" => {
            return Reply::Json(200, json!({ "files": [{ "path": "notes", "is_dir": true }] }));
        }
        _ => {}
    }
    let file = path
        .strip_prefix("/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts/")
        .or_else(|| path.strip_prefix("/get-artifact?run_id=r1&path=classic%2F"));
    match file {
        Some("MLmodel") => Reply::Bytes(MLMODEL.into()),
        Some("model.onnx") => Reply::Bytes(graph("w.bin")),
        Some("w.bin") => Reply::Bytes(vec![1; 8]),
        _ => missing("No such artifact"),
    }
}

fn graph(location: &str) -> Vec<u8> {
    model(&[tensor("w", &[2], &[("location", location)])], b"")
}

/// Fetches `source`, and checks that no file is left behind.
fn fetch_with(locator: &Locator, source: &str) -> Result<FetchedGraph, String> {
    let scratch = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fetching = async {
        let located = locator.locate(&source.parse()?).await?;
        located.fetch(scratch.path()).await
    };
    let fetched = runtime.block_on(fetching).map_err(|error: anyhow::Error| format!("{error:#}"));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "no file is left");
    fetched
}

fn fetch(server: &Server, source: &str) -> Result<FetchedGraph, String> {
    fetch_with(&server.locator(MlflowCredentials::None), source)
}

/// The error with `reply` to every request whose path contains `part`.
fn error_with(part: &'static str, reply: impl Fn() -> Reply + Send + 'static) -> String {
    let server =
        Server::start(move |path| if path.contains(part) { reply() } else { mlflow(path) });
    let error = fetch(&server, "models:/iris/3").unwrap_err();
    let address = server.address.to_string();
    assert!(error.contains(&address), "the URL is named: {error}");
    error
}

#[test]
fn model_is_fetched_with_weights_and_provenance() {
    let server = Server::start(mlflow);
    for source in [
        "models:/iris/3",
        "models:/iris@champion",
        "models:/iris/latest",
        "models:/m-1",
        "runs:/r1/net",
        "runs:/r1/classic",
        "mlflow-artifacts:/1/models/m-1/artifacts",
    ] {
        let fetched = fetch(&server, source).unwrap();
        assert!(fetched.inlined.is_some(), "{source}");
        assert_eq!(fetched.columns, ["x"], "{source}");
        assert_eq!(fetched.file, "model.onnx", "{source}");
        let text = toml_edit::DocumentMut::from(fetched.provenance).to_string();
        let provenance: Value = toml::from_str(&text).unwrap();
        assert_eq!(provenance["metrics"], json!({ "accuracy": 0.5 }), "{source}");
        let mlflow = &provenance["mlflow"];
        let of = (&mlflow["source"], &mlflow["run_id"], &mlflow["mlflow_version"]);
        assert_eq!(of, (&json!(source), &json!("r1"), &json!("3.17.2")));
        assert_eq!(mlflow["tracking_uri"], format!("http://{}/", server.address));
        let is_registered = source.contains("iris");
        assert_eq!(mlflow["registered_version"] == "3", is_registered, "{source}");
        assert_eq!(provenance["tags"]["stage"] == "gold", is_registered, "{source}");
        assert_eq!(mlflow["alias"] == "champion", source.contains('@'), "{source}");
    }
}

#[test]
fn folder_source_needs_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let locator = Locator { client: None };
    let path = folder.path().to_str().unwrap();
    assert!(fetch_with(&locator, path).unwrap_err().contains("no MLmodel file in it"));
    assert!(fetch_with(&locator, &format!("{path}/x")).unwrap_err().contains("no such folder"));
    write("MLmodel", b"flavors: {onnx: {data: model.onnx}}");
    assert!(fetch_with(&locator, path).unwrap_err().contains("model.onnx"));
    write("model.onnx", &graph("w.bin"));
    assert!(fetch_with(&locator, path).unwrap_err().contains("w.bin"));
    write("w.bin", &[1; 8]);
    assert!(fetch_with(&locator, path).unwrap().inlined.is_some());
    assert!(fetch_with(&locator, &format!("{path}/MLmodel")).unwrap().inlined.is_some());
    assert!(fetch_with(&locator, "models:/iris/3").unwrap_err().contains("no tracking server"));
}

#[test]
fn credentials_are_sent_to_the_tracking_server_only() {
    let other = Server::start(mlflow);
    let address = other.address;
    let server = Server::start(move |path| {
        if path.contains("model.onnx") {
            let to = format!(
                "HTTP/1.1 302 x\r\nlocation: http://{address}{path}\r\ncontent-length: 0\r\n\r\n"
            );
            return Reply::Raw(to.into_bytes());
        }
        mlflow(path)
    });
    let basic = MlflowCredentials::Basic { username: "u".into(), password: "p".into() };
    for (credentials, header) in
        [(basic, "Basic dTpw"), (MlflowCredentials::Bearer("secret".into()), "Bearer secret")]
    {
        fetch_with(&server.locator(credentials), "models:/iris/3").unwrap();
        let last = server.heads().pop().unwrap();
        assert!(last.contains(&format!("authorization: {header}")), "{last}");
    }
    let heads = other.heads();
    assert_eq!(heads.len(), 2, "{heads:?}");
    assert!(heads.iter().all(|head| !head.contains("authorization")), "{heads:?}");
}

#[test]
fn unauthorized_error_names_the_variables_for_credentials() {
    let refusing = || Server::start(|_| status(401, "text/html", "<html>sign in</html>"));
    let error = fetch(&refusing(), "models:/iris/3").unwrap_err();
    assert!(error.contains("status 401: the server requires credentials"), "{error}");
    assert!(error.contains("MLFLOW_TRACKING_TOKEN"), "{error}");
    let credentials = MlflowCredentials::Bearer("x".into());
    let error = fetch_with(&refusing().locator(credentials), "models:/iris/3").unwrap_err();
    assert!(error.contains("the credentials were rejected"), "{error}");
    let forbidden = json!({ "error_code": "PERMISSION_DENIED", "message": "not yours" });
    let error = error_with("get-download-uri", move || Reply::Json(403, forbidden.clone()));
    assert!(error.contains("status 403 (not yours)"), "{error}");
}

#[test]
fn error_for_a_missing_model_lists_the_alternatives() {
    let server = Server::start(mlflow);
    for (source, problem) in [
        ("models:/iris/9", "existing versions: 3"),
        ("models:/rose/1", "registered models: iris"),
        ("models:/rose/latest", "registered models: iris"),
        ("models:/iris@best", "alias not found; existing aliases: champion (version 3)"),
        ("models:/m-2", "No such artifact"),
        ("runs:/r2/net", "Run not found"),
        ("runs:/r1", "write runs:/r1/<name>; in the run are: net, notes"),
        ("runs:/r1/rose", "no such model in the run; in the run are: net, notes"),
    ] {
        let error = fetch(&server, source).unwrap_err();
        assert!(error.contains(problem), "{source}: {error}");
    }
}

#[test]
fn invalid_responses_are_reported() {
    let html = || status(200, "text/html", "<!doctype html><title>Sign in</title>");
    for (part, reply, problem) in [
        ("model-versions/get?", html as fn() -> Reply, "text/html, not MLflow's JSON"),
        ("model-versions/get?", || Reply::Json(200, json!([])), "not MLflow's JSON"),
        ("model-versions/get?", || Reply::Bytes(Vec::new()), "an empty body"),
        (
            "model-versions/get?",
            || status(404, "text/html", ""),
            "may not be an MLflow tracking server",
        ),
        ("model-versions/get?", || Reply::Raw(b"SSH-2.0-x\r\n".to_vec()), "cannot be reached"),
        ("model-versions/get?", || Reply::Raw(Vec::new()), "cannot be reached"),
        (
            "model-versions/get?",
            || status(500, "text/plain", "out\n of\x1b order"),
            "500 (out of order)",
        ),
        ("MLmodel", html, "perhaps a login page"),
        ("MLmodel", || Reply::Bytes(vec![0xff; 9]), "not UTF-8 text"),
        ("MLmodel", || Reply::Bytes(b"<xml/>".to_vec()), "not an MLmodel file"),
        ("model.onnx", || Reply::Bytes(vec![0x3a, 0xff, 0xff]), "not an ONNX model"),
        ("w.bin", || Reply::Bytes(vec![1; 7]), "which is 8 bytes, but 7 bytes"),
    ] {
        let error = error_with(part, reply);
        assert!(error.contains(problem), "{part}: {error}");
    }
}

#[test]
fn truncated_responses_are_reported() {
    const CUT: &[u8] = b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nflavors: {}";
    const CUT_CHUNKS: &[u8] = b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for part in ["model-versions/get?", "MLmodel", "model.onnx", "w.bin"] {
        let error = error_with(part, || Reply::Raw(CUT.to_vec()));
        assert!(error.contains("truncated: received 11 bytes of 100"), "{part}: {error}");
        let error = error_with(part, || Reply::Raw(CUT_CHUNKS.to_vec()));
        assert!(error.contains("truncated: received 3 bytes"), "{part}: {error}");
    }
}

#[test]
fn silent_and_slow_servers_time_out() {
    const HEAD: &[u8] = b"HTTP/1.1 200 x\r\ncontent-length: 100000\r\n\r\n";
    for part in ["model-versions/get?", "model.onnx"] {
        for reply in [
            (|| Reply::Stall(Vec::new())) as fn() -> Reply,
            || Reply::Stall(HEAD.to_vec()),
            || Reply::Drip(HEAD.to_vec()),
        ] {
            let start = Instant::now();
            let error = error_with(part, reply);
            assert!(error.contains("MLFLOW_HTTP_REQUEST_TIMEOUT"), "{part}: {error}");
            assert!(start.elapsed() < 50 * TIMEOUT, "{part}: {:?}", start.elapsed());
        }
    }
}

#[test]
fn responses_over_the_limit_are_refused() {
    const HUGE: &[u8] = b"HTTP/1.1 200 x\r\ncontent-length: 99999999999\r\n\r\n";
    for part in ["model-versions/get?", "MLmodel", "model.onnx", "w.bin"] {
        let error = error_with(part, || Reply::Stall(HUGE.to_vec()));
        assert!(error.contains("larger than"), "{part}: {error}");
    }
    for part in ["model-versions/get?", "MLmodel"] {
        let error = error_with(part, || Reply::Endless);
        assert!(error.contains("larger than"), "{part}: {error}");
    }
}

#[test]
fn paths_out_of_the_models_folder_are_refused() {
    let of_graph = || Reply::Bytes(b"flavors: {onnx: {data: ../../../etc/passwd}}".to_vec());
    assert!(error_with("MLmodel", of_graph).contains("leads out of the model's folder"));
    for location in ["../../x", "/etc/passwd", "a/../../x"] {
        let error = error_with("model.onnx", move || Reply::Bytes(graph(location)));
        assert!(error.contains("location of external weights"), "{error}");
    }
    let elsewhere = json!({ "artifact_uri": "mlflow-artifacts://elsewhere/1" });
    let error = error_with("get-download-uri", move || Reply::Json(200, elsewhere.clone()));
    assert!(error.contains("another server"), "{error}");
    let above = json!({ "artifact_uri": "mlflow-artifacts:/1/../../x" });
    let server = Server::start(move |path| {
        if path.contains("uri") { Reply::Json(200, above.clone()) } else { mlflow(path) }
    });
    let error = fetch(&server, "models:/iris/3").unwrap_err();
    assert!(error.contains("leads out"), "{error}");
}

#[test]
fn redirects_are_limited() {
    let error = error_with("model-versions/get?", || {
        let to = "HTTP/1.1 302 x\r\nlocation: /model-versions/get?\r\ncontent-length: 0\r\n\r\n";
        Reply::Raw(to.as_bytes().to_vec())
    });
    assert!(error.contains("more than 5 redirects"), "{error}");
}

#[test]
fn unreachable_server_is_reported() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fetch_with(
        &locator(&format!("http://{address}"), MlflowCredentials::None),
        "models:/iris/3",
    );
    let error = error.unwrap_err();
    assert!(error.contains(&format!("http://{address}/api/2.0/mlflow")), "{error}");
    assert!(error.contains("cannot be reached") && error.contains("--tracking-uri"), "{error}");
}

#[test]
fn version_that_is_not_ready_is_refused() {
    let pending = json!({ "model_version": { "name": "iris", "version": "3", "status": "PENDING_REGISTRATION" } });
    let server = Server::start(move |_| Reply::Json(200, pending.clone()));
    let error = fetch(&server, "models:/iris/3").unwrap_err();
    assert!(error.contains("is PENDING_REGISTRATION, not READY"), "{error}");
}

#[test]
fn unwritable_scratch_folder_is_reported() {
    let server = Server::start(mlflow);
    let locator = server.locator(MlflowCredentials::None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fetching = async {
        let located = locator.locate(&"models:/iris/3".parse()?).await?;
        located.fetch(Path::new("/nowhere")).await
    };
    let error: anyhow::Error = runtime.block_on(fetching).unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere: cannot be written"), "{error:#}");
}
