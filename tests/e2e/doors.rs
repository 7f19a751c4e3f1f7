//! Both doors of every example component give the same response to the same request.

use std::io::{Read, Write};
use std::net::Shutdown;

use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer};

/// Requests to a model component: valid, invalid and unusual ones.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("POST", "/predict", r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#),
    ("POST", "/predict", r#"{"id": "x", "features": [5.1, 3.5, 1.4, 0.2]}"#),
    ("POST", "/predict", r#"{"features": [5.1, 3.5, 1.4]}"#),
    ("POST", "/predict", r#"{"instances": [[5.1, 3.5, 1.4, 0.2], [6, 3, 5, 2]]}"#),
    ("POST", "/predict", r#"{"instances": [[5.1, 3.5, 1.4, 0.2], [6, 3]]}"#),
    ("POST", "/predict", "not JSON"),
    ("POST", "/predict", ""),
    ("GET", "/predict", ""),
    ("POST", "/predict?x=1", r#"{"features": [6, 3, 5, 2]}"#),
    (
        "POST",
        "/infer",
        r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[5,3,1,0]}]}"#,
    ),
    ("POST", "/infer", r#"{"inputs":[]}"#),
    ("POST", "/invocations", r#"{"inputs": [[5.1, 3.5, 1.4, 0.2], [6, 3, 5, 2]]}"#),
    ("GET", "/ping", ""),
    ("GET", "/version", ""),
    ("GET", "", ""),
    ("HEAD", "", ""),
    ("GET", "/ready", ""),
    ("GET", "/nothing", ""),
    ("DELETE", "", ""),
    ("BREW", "/predict", ""),
];

fn same_at_both_doors(
    manifest: impl Fn(&str) -> Manifest,
    requests: &[(&str, String, &str)],
    headers: &[&str],
) {
    let fast = Launch::new(&manifest("")).up();
    let standard = Launch::new(&manifest(STANDARD_DOOR)).up();
    fast.wait_for_output("(fast door)");
    standard.wait_for_output("(standard door)");
    for (method, path, body) in requests {
        let send =
            |spinfer: &Spinfer| spinfer.send(method, path, &[("x-probe", "1")], body.as_bytes());
        let (a, b) = (send(&fast), send(&standard));
        let what = |response: &Response| {
            let header = |name: &&str| response.header(name).map(str::to_owned);
            (response.status, headers.iter().map(header).collect::<Vec<_>>(), response.text())
        };
        assert_eq!(what(&a), what(&b), "{method} {path} {body}");
    }
}

#[test]
fn iris_classifier_responds_identically_at_both_doors() {
    for version in [1, 2] {
        let manifest =
            |settings: &str| Manifest::default().with_iris("iris", version, "/...", settings);
        let requests: Vec<_> =
            ["/v2/models/iris-classifier", "/v2/models/iris-classifier/versions/1"]
                .iter()
                .flat_map(|model| {
                    REQUESTS
                        .iter()
                        .map(move |(method, path, body)| (*method, format!("{model}{path}"), *body))
                })
                .collect();
        same_at_both_doors(manifest, &requests, &["content-type", "content-length", "allow"]);
    }
}

#[test]
fn probe_responds_identically_at_both_doors() {
    let manifest = |settings: &str| Manifest::default().with("/...", "probe", "probe", settings);
    let requests = [
        ("POST", "/echo", "bytes"),
        ("GET", "/echo", ""),
        ("GET", "/header", ""),
        ("GET", "/status?404", ""),
        ("POST", "/status?201", "made"),
        ("GET", "/environment?NOTHING", ""),
    ]
    .map(|(method, path, body)| (method, path.to_owned(), body));
    // Without content-length, as the probe streams its responses behind the standard door.
    same_at_both_doors(manifest, &requests, &["x-probe"]);
}

/// A body that is too long for the fast door is streamed to the standard one, with or without
/// content-length, and arrives whole.
#[test]
fn body_too_long_for_the_fast_door_is_streamed() {
    let settings = "tool.spinfer.limits = { buffered_body = \"64KiB\", request_body = \"1MiB\" }";
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up();
    for length in [0, 1, 65_536, 65_537, 300_000, 1 << 20] {
        let body: Vec<u8> =
            (0..length).map(|i: u32| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let announced = spinfer.post("/echo", &body);
        assert_eq!((announced.status, announced.body == body), (200, true), "{length} bytes");
        let chunked = super::http::chunked(&spinfer, "/echo", &body);
        assert!(chunked.starts_with(b"HTTP/1.1 200"), "{length} bytes");
        assert!(super::http::ends_with(&chunked, &body), "{length} bytes, chunked");
    }
    let over = spinfer.post("/echo", vec![0; (1 << 20) + 1]);
    assert_eq!(over.status, 413);
    assert!(over.error().contains("limit of 1048576 bytes"), "{}", over.error());
    let over = super::http::chunked(&spinfer, "/echo", &vec![0; 3 << 20]);
    assert!(over.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&over[..100]));
}

/// A component reads as many bytes as content-length announces, or to the end of the body.
#[test]
fn standard_door_reads_a_body_to_its_end() {
    let settings = format!("{STANDARD_DOOR}tool.spinfer.limits.buffered_body = \"1KiB\"\n");
    let spinfer = Launch::new(&Manifest::default().with_iris("iris", 1, "/...", &settings)).up();
    let predict = "/v2/models/iris-classifier/predict";
    let rows = |count: usize| {
        format!("{{\"instances\": [{}]}}", vec!["[5.1, 3.5, 1.4, 0.2]"; count].join(", "))
    };
    // On one connection, where unread bytes of a body would be read as the next request.
    let client = spinfer.client();
    for count in [1, 2000, 3, 2000] {
        let body = rows(count);
        let announced = client.send("POST", predict, &[], body.as_bytes());
        assert_eq!(announced.json()["predictions"].as_array().unwrap().len(), count);
        let chunked = super::http::chunked(&spinfer, predict, body.as_bytes());
        assert!(chunked.starts_with(b"HTTP/1.1 200"));
        assert!(super::http::ends_with(&chunked, &announced.body), "{count}");
    }
    assert_eq!(client.send("POST", predict, &[], b"").status, 400);
    let mut broken = spinfer.connect();
    let body = rows(2000);
    let head =
        format!("POST {predict} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    broken.write_all(&[head.as_bytes(), &body.as_bytes()[..body.len() - 1]].concat()).unwrap();
    broken.shutdown(Shutdown::Write).unwrap();
    let mut response = String::new();
    broken.read_to_string(&mut response).unwrap();
    assert!(
        response.starts_with("HTTP/1.1 400") && response.contains("could not be read"),
        "{response}"
    );
}

/// An instance cleans up after its responses before too many of them accumulate.
#[test]
fn concurrent_requests_do_not_exhaust_the_handles_of_an_instance() {
    let manifest = Manifest::default().with_iris("iris", 1, "/...", STANDARD_DOOR);
    let spinfer = Launch::new(&manifest).uncached().up();
    let infer =
        r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[5,3,1,0]}]}"#;
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let client = spinfer.client();
                for _ in 0..100 {
                    let path = "/v2/models/iris-classifier/infer";
                    let response = client.send("POST", path, &[], infer.as_bytes());
                    assert_eq!(response.status, 200, "{response:?}");
                }
            });
        }
    });
}

/// While one request waits for its body, its instance serves another if the limit allows it.
#[test]
fn reuse_concurrency_limits_concurrent_requests_per_instance() {
    for concurrency in [1, 2] {
        let settings = format!("{STANDARD_DOOR}tool.spinfer.reuse.concurrency = {concurrency}\n");
        let manifest = Manifest::default().with("/...", "probe", "probe", &settings);
        // They do not meet if the guest has not yet started to wait for the body: another try.
        let met = (0..10).any(|_| meet(&Launch::new(&manifest).up()));
        assert_eq!(met, concurrency > 1, "{concurrency} at a time");
    }
}

/// Whether the first two requests, which are concurrent, meet in one instance.
pub(crate) fn meet(spinfer: &Spinfer) -> bool {
    let mut waiting = spinfer.connect();
    let head = b"POST /count HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 expect: 100-continue\r\ncontent-length: 1\r\n\r\n";
    waiting.write_all(head).unwrap();
    // The guest starts to read the body.
    let mut interim = [0; 25];
    waiting.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let between = spinfer.post("/count", "x").text();
    waiting.write_all(b"x").unwrap();
    let mut response = Vec::new();
    waiting.read_to_end(&mut response).unwrap();
    assert_eq!(between, "1");
    super::http::ends_with(&response, b"2")
}

#[test]
fn wasi_0_2_handler_is_served() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "hello", "hello_p2", "")).up();
    spinfer.wait_for_output("(standard door)");
    for n in 0..5 {
        let response = spinfer.get(&format!("/x?{n}"));
        assert_eq!((response.status, response.text()), (200, format!("hello from 0.2 at /x?{n}")));
    }
}
