//! HTTP/1.1 on the data plane: routes, health, bodies, connections.

use std::io::{Read, Write};

use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, root, wait_until};

/// Sends `body` in chunks, without content-length: the bytes of the response.
pub(crate) fn chunked(spinfer: &Spinfer, path: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = spinfer.connect();
    let mut writing = stream.try_clone().unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let body = body.to_vec();
    // The host may respond before it has read everything: the rest of the body cannot be written.
    let writer = std::thread::spawn(move || {
        writing.write_all(head.as_bytes())?;
        for chunk in body.chunks(10_000) {
            write!(writing, "{:x}\r\n", chunk.len())?;
            writing.write_all(chunk)?;
            writing.write_all(b"\r\n")?;
        }
        writing.write_all(b"0\r\n\r\n")
    });
    let mut response = Vec::new();
    let read = stream.read_to_end(&mut response);
    let written = writer.join().unwrap();
    assert!(!response.is_empty(), "no response: {read:?}, {written:?}");
    response
}

/// Whether the body of a response is `body`. It is chunked if the guest streams it.
pub(crate) fn ends_with(response: &[u8], body: &[u8]) -> bool {
    let head = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (head, rest) = response.split_at(head);
    if !String::from_utf8_lossy(head).to_lowercase().contains("transfer-encoding: chunked") {
        return rest == body;
    }
    let (mut rest, mut whole) = (rest, Vec::new());
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole == body;
        }
        whole.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/probe/...", "probe", "probe", settings)).up()
}

#[test]
fn example_application_serves_both_versions_of_its_model() {
    let spinfer = Launch::from_file(root().join("spin.toml")).up();
    let body = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
    for (path, version) in [("", "1"), ("/versions/1", "1"), ("/versions/2", "2")] {
        let response =
            spinfer.post(&format!("/v2/models/iris-classifier{path}/predict"), body).json();
        assert_eq!(response["prediction"], "setosa");
        assert_eq!(response["version"], version);
        assert!(response["probability"].as_f64().unwrap() > 0.9, "{response}");
    }
}

#[test]
fn unmatched_path_is_404() {
    let response = probe("").get("/elsewhere?x=1");
    assert_eq!((response.status, response.error().as_str()), (404, "no route matches /elsewhere"));
}

#[test]
fn target_without_a_path_is_404() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "hello", "hello_p2", "")).up();
    for (target, shown) in
        [("CONNECT a:80", "a:80"), ("GET a:80", "a:80"), ("OPTIONS *", "*"), ("GET *", "*")]
    {
        let request = format!("{target} HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n");
        let response = raw(&spinfer, &request, false);
        assert!(response.starts_with("HTTP/1.1 404"), "{target}: {response}");
        assert!(response.contains(&format!("no route matches {shown}\"")), "{target}: {response}");
    }
}

/// Such a request may be read in two ways (RFC 9112, 6.1).
#[test]
fn connection_is_closed_after_a_body_with_two_lengths() {
    let spinfer = probe("");
    let request = "POST /probe/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\
                   transfer-encoding: chunked\r\n\r\n0\r\n\r\n\
                   GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let response = raw(&spinfer, request, false);
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
    assert!(response.contains("connection: close\r\n"), "{response}");
}

#[test]
fn health_endpoints_are_served_by_the_host() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    while spinfer.get("/v2/health/ready").status != 200 {}
    for (path, key) in [("/v2/health/live", "live"), ("/v2/health/ready", "ready")] {
        let response = spinfer.get(path);
        assert_eq!((response.status, response.json()[key].as_bool()), (200, Some(true)));
        assert_eq!(spinfer.send("HEAD", path, &[], b"").status, 200);
        let post = spinfer.post(path, "");
        assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    }
}

#[test]
fn readiness_requires_every_model_to_be_loaded() {
    let spinfer = Launch::new(&Manifest::default().with_iris("iris", 1, "/...", "")).up();
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    spinfer.wait_for_log("graph loaded");

    let dir = tempfile::tempdir().unwrap();
    let graph = root().join("tests/models/unsupported-op.onnx");
    std::fs::copy(graph, dir.path().join("model.onnx")).unwrap();
    let files = format!(
        "files = [{{ source = \"{}\", destination = \"/models/odd\" }}]",
        dir.path().display()
    );
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", &files)).up();
    let error = loop {
        let ready = spinfer.get("/v2/health/ready");
        assert_eq!(ready.status, 503);
        if !ready.error().contains("being loaded") {
            break ready.error();
        }
    };
    assert!(error.contains("component `probe`: model `odd`") && error.contains("Det"), "{error}");
    assert_eq!(spinfer.get("/v2/health/live").status, 200);
}

/// Sends the bytes of `request`, closes the sending side if `close`, and reads the response.
fn raw(spinfer: &Spinfer, request: &str, close: bool) -> String {
    let mut stream = spinfer.connect();
    stream.write_all(request.as_bytes()).unwrap();
    if close {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn malformed_request_is_400() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "hello", "hello_p2", "")).up();
    for request in [
        "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: \u{e9}\r\nconnection: close\r\n\r\n",
        "NOT HTTP\r\n\r\n",
    ] {
        let response = raw(&spinfer, request, false);
        assert!(response.starts_with("HTTP/1.1 400"), "{request:?}: {response}");
    }
    assert_eq!(spinfer.get("/").status, 200);
    assert!(!spinfer.log().contains("WARN"), "{}", spinfer.log());
}

/// Query strings hold keys. Those of libraries are logged at `trace` only.
#[test]
fn query_strings_are_not_logged() {
    for filter in ["debug", "spinfer=trace"] {
        let settings = format!("{STANDARD_DOOR}allowed_outbound_hosts = [\"http://self\"]\n");
        let manifest = Manifest::default()
            .with("/...", "probe", "probe", &settings)
            .with("/fast/...", "fast", "probe", "")
            .with("/older/...", "older", "hello_p2", &settings);
        let spinfer = Launch::new(&manifest).admin().env("SPINFER_LOG", filter).up();
        for (path, status) in [
            ("/echo?key=hush", 200),
            ("/fast/echo?key=hush", 404),
            ("/cache/a?max-age=60,key=hush", 200),
            ("/fast/v2/models/x?key=hush", 404),
            ("/older/x?key=hush", 200),
            ("/trap?key=hush", 500),
            ("/status?999&key=hush", 200),
            ("/fetch?/echo?key=hush", 200),
            ("/fetch?http://denied.example/?key=hush", 502),
            ("/older/fetch?,,http://denied.example/?key=hush", 200),
            ("/v2/health/live?key=hush", 200),
            ("/v2/health/other?key=hush", 404),
        ] {
            assert_eq!(spinfer.get(path).status, status, "{path}");
        }
        let _ = spinfer.admin().send("GET", "/metrics?key=hush", &[], b"");
        let invalid = "GET /?key=hush HTTP/1.1\r\nhost: a/b\r\nconnection: close\r\n\r\n";
        let refused = raw(&spinfer, invalid, false);
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        spinfer.wait_for_log("path=\"/echo\"");
        let log = spinfer.log();
        let found: Vec<_> = log.lines().filter(|line| line.contains("hush")).collect();
        assert!(found.is_empty(), "{filter}: {found:#?}");
    }
}

/// Heads that other servers on the way may read differently.
#[test]
fn ambiguous_head_is_400() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "hello", "hello_p2", "")).up();
    for lines in [
        "x-a: 1\r\n continued: 2\r\n",
        "x-a : 1\r\n",
        "x-a: a\0b\r\n",
        "x-a: a\u{1}b\r\n",
        "x-a: a\u{7f}b\r\n",
        "x a: 1\r\n",
        ": 1\r\n",
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: +1\r\n",
        "content-length: 1, 2\r\n",
        "content-length: -1\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: xchunked\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n");
        let response = raw(&spinfer, &request, false);
        assert!(response.starts_with("HTTP/1.1 400"), "{lines:?}: {response}");
    }
    for target in ["/ x", "/\u{1}", "http://", "http:///x", "//"] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let response = raw(&spinfer, &request, false);
        let valid = target == "//";
        assert_eq!(response.starts_with("HTTP/1.1 400"), !valid, "{target:?}: {response}");
    }
    let old = "POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let response = raw(&spinfer, old, false);
    assert!(
        response.starts_with("HTTP/1.0 400") || response.starts_with("HTTP/1.1 400"),
        "{response}"
    );
}

#[test]
fn oversized_head_is_431() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    let long = "x".repeat(1_000_000);
    let mut stream = spinfer.connect();
    // The host may respond before it has read everything.
    let _ = write!(stream, "GET /echo HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n");
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 431");
}

#[test]
fn incomplete_body_is_408_at_the_deadline() {
    let settings = "tool.spinfer.limits.deadline = \"200ms\"";
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up();
    let request = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    let response = raw(&spinfer, request, false);
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
}

/// A client that gets a response before it has sent its body must not reuse the connection.
#[test]
fn failure_before_the_end_of_the_body_closes_the_connection() {
    let settings = format!("{STANDARD_DOOR}tool.spinfer.limits.deadline = \"300ms\"\n");
    let spinfer = probe(&settings);
    for (path, status) in [("/probe/echo", 408), ("/elsewhere", 404)] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nbegun");
        let response = raw(&spinfer, &head, false);
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{response}");
        assert!(response.contains("connection: close\r\n"), "{response}");
    }
}

/// Long before the deadline.
#[test]
fn disconnected_client_frees_its_instance() {
    for settings in ["", STANDARD_DOOR] {
        let limits = "tool.spinfer.limits = { instances = 1, deadline = \"1h\" }\n";
        let settings = format!("{settings}{limits}");
        let spinfer =
            Launch::new(&Manifest::default().with("/...", "probe", "probe", &settings)).up();
        for _ in 0..3 {
            let mut stream = spinfer.connect();
            stream.write_all(b"GET /loop HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            drop(stream);
        }
        wait_until("the instance serves others", || spinfer.post("/echo", "served").status == 200);
    }
}

#[test]
fn only_needed_headers_reach_the_guest() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    let headers = [("x-probe", "one"), ("x-other", "no"), ("X-Probe", "two")];
    assert_eq!(spinfer.send("GET", "/header", &headers, b"").text(), "one, two");
    assert_eq!(spinfer.get("/header").text(), "");
}

#[test]
fn invalid_response_of_a_guest_is_500() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    for (path, part) in [
        ("/status?101", "101 is not a final status"),
        ("/status?999", "999 is not a final status"),
        ("/bad-header", "`x probe` is not a header name"),
    ] {
        let response = spinfer.get(path);
        assert_eq!(response.status, 500);
        assert!(response.error().contains(part), "{}", response.error());
    }
    // Headers of the connection are set by the host.
    let response = spinfer.get("/status?200");
    assert_eq!((response.status, response.header("transfer-encoding")), (200, None));
    assert_eq!(response.header("x-probe"), Some("seen"));
}

/// For a client that accepts trailers, and a response that announces them (RFC 9110, 6.5).
#[test]
fn trailers_are_forwarded_both_ways() {
    let settings = "tool.spinfer.limits.buffered_body = \"1\"\n";
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up();
    let request = "POST /stream HTTP/1.1\r\nhost: x\r\nte: trailers\r\ntrailer: x-sum\r\n\
                   transfer-encoding: chunked\r\nconnection: close, te\r\n\r\n\
                   5\r\npiece\r\n0\r\nx-sum: 21\r\nx-other: 1\r\n\r\n";
    let response = raw(&spinfer, request, false);
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("trailer: x-sum\r\n"), "{response}");
    assert!(response.ends_with("5\r\npiece\r\n0\r\nx-sum: 21\r\n\r\n"), "{response}");
}

#[test]
fn pipelined_requests_are_served_in_order() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    let mut stream = spinfer.connect();
    let one = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none";
    let two = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\ntwo";
    stream.write_all(format!("{one}{two}").as_bytes()).unwrap();
    let mut responses = String::new();
    stream.read_to_string(&mut responses).unwrap();
    let (one, two) =
        (responses.find("\r\n\r\none").unwrap(), responses.find("\r\n\r\ntwo").unwrap());
    assert!(one < two, "{responses}");
}

/// Takes as long as the host waits for such a client, 30 seconds.
#[test]
fn client_that_stops_reading_is_disconnected() {
    // More than the socket buffers of both sides hold.
    const LENGTH: usize = 16 << 20;
    let settings = "tool.spinfer.limits.buffered_body = \"16MiB\"";
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up();
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", spinfer.id())).unwrap();
        let links = open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    let before = sockets();
    let mut stream = spinfer.connect();
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'a'; LENGTH]).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    assert!(sockets() > before);
    wait_until("the host closes the connection", || sockets() == before);
    let mut rest = Vec::new();
    // The end, or a reset.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < LENGTH, "{}", rest.len());
}

#[test]
fn percent_encoded_path_matches_its_route() {
    let spinfer = Launch::new(&Manifest::default().with_iris(
        "iris",
        1,
        "/v2/models/iris-classifier/...",
        "",
    ))
    .up();
    let body = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
    for path in [
        "/v2/models/iris-classifier/predict",
        "/v2/models/iris%2Dclassifier/predict",
        "/v2/models/iris%2dclassifier/versions/1/predict",
        "/v2/models/%69ris-classifier/predict",
    ] {
        let response = spinfer.post(path, body);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        assert_eq!(response.json()["prediction"], "setosa");
    }
    for path in ["/v2/models%2Firis-classifier/predict", "/v2/models/iris-classifier%2Fpredict"] {
        assert_eq!(spinfer.post(path, body).status, 404, "{path}");
    }
}

#[test]
fn model_index_lists_versions_and_their_states() {
    let spinfer = Launch::from_file(root().join("spin.toml")).up();
    while spinfer.get("/v2/health/ready").status != 200 {}
    let names = spinfer.get("/v2/models").json()["models"].as_array().unwrap().clone();
    assert!(names.contains(&"iris-classifier".into()), "{names:?}");
    assert!(names.is_sorted_by_key(|name| name.as_str().unwrap().to_owned()), "{names:?}");
    let index = spinfer.post("/v2/repository/index", "{}").json();
    let versions: Vec<_> = index
        .as_array()
        .unwrap()
        .iter()
        .filter(|model| model["name"] == "iris-classifier")
        .map(|model| (model["version"].as_str().unwrap(), model["state"].as_str().unwrap()))
        .collect();
    assert_eq!(versions, [("1", "READY"), ("2", "READY")]);
    assert_eq!(spinfer.post("/v2/repository/index", "").json(), index);
    assert_eq!(spinfer.post("/v2/repository/index", r#"{"ready": true}"#).json(), index);
    assert_eq!(spinfer.post("/v2/repository/index", "[]").status, 400);
    assert_eq!(spinfer.get("/v2/repository/index").status, 405);
    assert_eq!(spinfer.post("/v2/models", "{}").status, 405);
    // Paths below it go to the component.
    assert_eq!(spinfer.get("/v2/models/iris-classifier").json()["name"], "iris-classifier");
}

#[test]
fn unloadable_model_is_listed_as_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("tests/models/truncated.onnx"), dir.path().join("model.onnx"))
        .unwrap();
    let files = format!(
        "files = [{{ source = \"{}\", destination = \"/models/broken\" }}]",
        dir.path().display()
    );
    let manifest = Manifest::default().with("/...", "broken", "probe", &files);
    let spinfer = Launch::new(&manifest.with_iris("iris", 1, "/iris/...", "")).up();
    let index = || spinfer.post("/v2/repository/index", "{}").json();
    wait_until("both models are loaded or refused", || !index().to_string().contains("LOADING"));
    let index = index();
    assert_eq!((&index[0]["name"], &index[0]["state"]), (&"broken".into(), &"UNAVAILABLE".into()));
    assert!(!index[0]["reason"].as_str().unwrap().is_empty(), "{index}");
    assert_eq!(
        (&index[1]["name"], &index[1]["state"]),
        (&"iris-classifier".into(), &"READY".into())
    );
    let ready = spinfer.post("/v2/repository/index", r#"{"ready": true}"#).json();
    assert_eq!(ready.as_array().unwrap().len(), 1, "{ready}");
}
