//! Malformed requests are a client error: 4xx with the expected form, and no line above `info` in the log.
//! Behind both doors, and over both versions of HTTP.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};
use tokio::net::TcpStream;

use super::{is_quiet, raw};

const MODEL: &str = "/v2/models/iris-classifier";
const PREDICT: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

/// The bytes of a request, the status of the response, and a part of its error. For bytes that are not HTTP
/// the response is that of the HTTP library, which has no body.
struct MalformedRequest {
    request: Vec<u8>,
    status: u16,
    expected: &'static str,
    /// Whether the client closes its side, so that the announced rest does not arrive.
    closes: bool,
}

fn post(operation: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {MODEL}/{operation} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn sized(operation: &str, body: &[u8]) -> Vec<u8> {
    post(operation, &format!("content-length: {}\r\n", body.len()), body)
}

fn cases() -> Vec<MalformedRequest> {
    let mut cases = Vec::new();
    let mut case = |request, status, expected: &'static str| {
        cases.push(MalformedRequest {
            request,
            status,
            expected,
            closes: expected == "could not be read",
        });
    };
    let deep = |depth| "[".repeat(depth).into_bytes();
    let tensor = |name: &str, shape: &str, datatype: &str, data: &str| {
        let input = format!(
            r#"{{"name": "{name}", "shape": {shape}, "datatype": "{datatype}", "data": {data}}}"#
        );
        sized("infer", format!(r#"{{"inputs": [{input}]}}"#).as_bytes())
    };
    let ones = "[1, 1, 1, 1]";

    // Bodies.
    case(sized("predict", b""), 400, "the body");
    case(sized("predict", b"{\"features\": [1, 2"), 400, "the body");
    for operation in ["predict", "infer", "invocations"] {
        case(sized(operation, &deep(100_000)), 400, "the body");
        let nested = [b"{\"inputs\": ".to_vec(), deep(100_000)].concat();
        case(sized(operation, &nested), 400, "the body");
        case(sized(operation, b"{\"inputs\": \"\xff\xfe\"}"), 400, "the body");
        case(sized(operation, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), 400, "the body");
    }
    case(sized("predict", br#"{"features": [1, nan, 3, 4]}"#), 400, "body");
    case(sized("predict", br#"{"features": [1, 1e999, 3, 4]}"#), 400, "out of range");
    case(sized("predict", br#"{"features": {"a": 1}}"#), 400, "is not a column of this model");
    case(tensor("label", "[1, 4]", "FP32", ones), 400, "features");
    case(tensor("features", "[1, 4]", "INT8", ones), 400, "FP32");
    case(tensor("features", "[1, 4]", "BYTES", ones), 400, "FP32");
    case(tensor("features", "[2, 2]", "FP32", ones), 400, "[-1, 4]");
    case(tensor("features", "[4294967295, 4]", "FP32", ones), 400, "features");
    case(
        tensor("features", "[18446744073709551616, 4]", "FP32", ones),
        400,
        "from 0 to 4294967295",
    );
    case(tensor("features", "[4611686018427387904, 4]", "FP32", ones), 400, "from 0 to 4294967295");
    case(tensor("features", "[0.5, 4]", "FP32", ones), 400, "from 0 to 4294967295");
    case(tensor("features", "[1, 4]", "FP32", "[[[[1]]]]"), 400, "nested");

    // Lengths.
    let length = |length: &str| format!("content-length: {length}\r\n");
    case(post("predict", &length("1000"), PREDICT.as_bytes()), 400, "could not be read");
    case(post("predict", &length("3000000"), PREDICT.as_bytes()), 400, "could not be read");
    case(post("predict", &length("10"), PREDICT.as_bytes()), 400, "the body");
    case(post("predict", &length("17000000"), PREDICT.as_bytes()), 413, "limit of 16777216 bytes");
    for lie in ["-1", "+34", "34, 35", "0x22", "18446744073709551616", "", "many"] {
        case(post("predict", &length(lie), PREDICT.as_bytes()), 400, "");
    }
    case(post("predict", "content-length: 1\r\ncontent-length: 34\r\n", b""), 400, "");
    let chunked = "transfer-encoding: chunked\r\n";
    case(post("predict", chunked, b"xyz\r\n"), 400, "could not be read");
    case(post("predict", chunked, b"ffffffffffffffffff\r\n{"), 400, "could not be read");
    case(post("predict", chunked, b"5\r\n{\"fea"), 400, "could not be read");
    case(post("predict", chunked, b"2\r\n{}oops\r\n0\r\n\r\n"), 400, "could not be read");
    case(post("predict", "transfer-encoding: gzip\r\n", PREDICT.as_bytes()), 400, "");
    let binary = |value: &str| {
        let header = format!("inference-header-content-length: {value}\r\ncontent-length: 34\r\n");
        post("infer", &header, PREDICT.as_bytes())
    };
    for lie in ["35", "-1", "x", "18446744073709551616"] {
        case(binary(lie), 400, "nference");
    }

    // Heads.
    let many: String = (0..100_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    case(post("predict", &many, b""), 431, "");
    case(post("predict", &format!("x: {}\r\n", "x".repeat(1 << 20)), b""), 431, "");
    case(post("predict", "no colon\r\n", b""), 400, "");
    case(post(&"x".repeat(1 << 20), "", b""), 431, "");
    let invalid = b"inference-header-content-length: \xff\xfe\r\ncontent-length: 2\r\n\r\n{}";
    let head = format!("POST {MODEL}/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    case([head.as_bytes(), invalid].concat(), 400, "nference");
    let get = |target: &[u8]| {
        [b"GET ", target, b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"].concat()
    };
    case(get(b"/v2/models/\xff\xfe"), 400, "");
    case(get(b"/v2/models/\0"), 400, "");
    case(get(b"/v2/models/%ff%fe"), 404, "not found");
    case(get(b"/v2/models/../../etc/passwd"), 404, "no operation at");
    case(get(b"*"), 404, "no route matches *");
    case(get(b"http://[::1/"), 400, "");
    case(get(format!("{MODEL}/predict").as_bytes()), 405, "POST");
    case(get(format!("{MODEL}/infer").as_bytes()), 405, "POST");
    for method in ["DELETE", "BREW", "CONNECT-ME"] {
        let request = format!("{method} {MODEL} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        case(request.into_bytes(), 405, "GET, HEAD");
    }
    case(
        b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\nconnection: close\r\n\r\n".into(),
        404,
        "route",
    );
    case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\0".into(), 400, "");
    case(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".into(), 400, "");
    cases
}

#[test]
fn malformed_requests_are_4xx_with_the_expected_form() {
    for door in ["", STANDARD_DOOR] {
        let manifest = Manifest::default().with_iris("iris", 1, "/v2/models/...", door);
        let spinfer = Launch::new(&manifest).uncached().up();
        let responses =
            |spinfer: &Spinfer| spinfer.post(&format!("{MODEL}/predict"), PREDICT).status;
        assert_eq!(responses(&spinfer), 200);
        let cases = cases();
        std::thread::scope(|scope| {
            for part in cases.chunks(cases.len().div_ceil(8)) {
                scope.spawn(|| part.iter().for_each(|case| check(&spinfer, case)));
            }
        });
        assert_eq!(responses(&spinfer), 200);
        assert!(is_quiet(&spinfer), "{}", spinfer.log());
    }
}

fn check(
    spinfer: &Spinfer,
    MalformedRequest { request, status, expected, closes }: &MalformedRequest,
) {
    let shown = request[..request.len().min(300)].escape_ascii();
    let response =
        raw(spinfer, request, *closes).unwrap_or_else(|| panic!("no response to {shown}"));
    assert_eq!(response.status, *status, "{shown}: {}", response.body);
    assert!(
        response.body.contains(expected),
        "{expected:?} is not in {:?}, to {shown}",
        response.body
    );
    let error = response.body.starts_with("{\"error\":\"");
    assert!(error || expected.is_empty(), "{} to {shown}", response.body);
}

async fn connect(spinfer: &Spinfer) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(spinfer.address()).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A wrong length makes an HTTP/2 message malformed, which resets its stream (RFC 9113, 8.1.1); a head
/// that is too long is 431, or closes the connection.
#[tokio::test]
async fn malformed_http2_requests_are_4xx_or_stream_errors() {
    for door in ["", STANDARD_DOOR] {
        let manifest = Manifest::default().with_iris("iris", 1, "/v2/models/...", door);
        let spinfer = Launch::new(&manifest).up();
        let request = || Request::post(format!("http://x{MODEL}/predict"));
        let body = || Full::new(Bytes::from(PREDICT));
        let mut sender = connect(&spinfer).await;
        for length in [1, 10, 1000, 3_000_000] {
            let request = request().header("content-length", length).body(body()).unwrap();
            match sender.send_request(request).await {
                // The response came before the end of the body.
                Ok(response) => assert_eq!(response.status(), 400, "{length}"),
                Err(error) => assert!(format!("{error:?}").contains("PROTOCOL_ERROR"), "{error:?}"),
            }
        }
        for (header, status) in [("17000000", 413), ("x", 400)] {
            let request = request().header("content-length", header).body(body()).unwrap();
            match sender.send_request(request).await {
                Ok(response) => assert_eq!(response.status(), status, "{header}"),
                Err(error) => assert!(format!("{error:?}").contains("PROTOCOL_ERROR"), "{error:?}"),
            }
        }
        let mut many = request().body(body()).unwrap();
        // The maximum of the client's library.
        for n in 0..20_000 {
            let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
            many.headers_mut().insert(name, http::HeaderValue::from_static("1"));
        }
        match connect(&spinfer).await.send_request(many).await {
            Ok(response) => assert_eq!(response.status(), 431),
            Err(error) => assert!(!error.is_user(), "{error:?}"),
        }
        let mut sender = connect(&spinfer).await;
        let response = sender.send_request(request().body(body()).unwrap()).await.unwrap();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(text.starts_with(b"{\"model\""), "{text:?}");
        assert!(is_quiet(&spinfer), "{}", spinfer.log());
    }
}

/// 408 for the client, and not 504 for the component that waits for the body.
#[test]
fn incomplete_body_is_408_at_the_deadline_behind_both_doors() {
    for door in ["", STANDARD_DOOR] {
        let settings = format!("{door}tool.spinfer.limits.deadline = \"300ms\"\n");
        let manifest = Manifest::default().with_iris("iris", 1, "/v2/models/...", &settings);
        let spinfer = Launch::new(&manifest).up();
        for length in ["1000", "3000000"] {
            let length = format!("content-length: {length}\r\n");
            let request = post("predict", &length, PREDICT.as_bytes());
            let response = raw(&spinfer, &request, false).unwrap();
            assert_eq!(response.status, 408, "{}", response.body);
            assert!(response.body.contains("did not arrive in time"), "{}", response.body);
        }
        assert!(is_quiet(&spinfer), "{}", spinfer.log());
    }
}
