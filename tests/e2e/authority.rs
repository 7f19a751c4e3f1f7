//! The host of a request: `Host`, `:authority` and targets in absolute form, on both planes; requests of
//! HTTP/1.0, which may have none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use spinfer_tests::{Launch, Manifest, PATIENCE, STANDARD_DOOR, Spinfer};

use super::http2::{in_the_clear, text};
use super::metrics::metric;

/// Path of a request whose response lists the headers of Spin.
const TARGET: &str = "/x?spin-headers";

fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).admin().up()
}

/// Sends the bytes of `request`, and reads until the connection is closed.
fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

/// The response to a request of HTTP/1.1 for `target` with these lines in its head.
fn get(address: SocketAddr, target: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("GET {target} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    raw(address, head.as_bytes())
}

#[test]
fn invalid_host_is_400_and_reaches_no_component() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        let long = format!("host: {}", "a".repeat(256));
        for (target, lines, problem) in [
            (TARGET, &["host: bank.com/admin?x="][..], "contains a character"),
            (TARGET, &["host: bank.com#"], "contains a character"),
            (TARGET, &["host: user@bank.com"], "contains a character"),
            (TARGET, &["host: bank.com\\"], "contains a character"),
            (TARGET, &["host: a b"], "contains a character"),
            (TARGET, &["host: a, b"], "contains a character"),
            (TARGET, &["host: \u{e9}"], "contains a character"),
            (TARGET, &["host: a:65536"], "has a port above 65535"),
            (TARGET, &["host: a:x"], "has a port that is not a number"),
            (TARGET, &["host: [::1"], "has no closing bracket"),
            (TARGET, &["host: [a]"], "is not an IPv6 address"),
            (TARGET, &["host: a%2Fb"], "contains a character"),
            (TARGET, &["host:"], "is empty"),
            (TARGET, &[&long], "is longer than 255"),
            (TARGET, &[], "is missing"),
            (TARGET, &["host: a", "host: a"], "is repeated"),
            (TARGET, &["host: a", "Host: b"], "is repeated"),
            ("http://a/x", &[], "is missing"),
            ("http://a/x", &["host: b"], "differs from the host in the request target"),
            ("http://a:81/x", &["host: a"], "differs from the host in the request target"),
            ("http://user@a/x", &["host: user@a"], "contains a character"),
            // The host's own paths too.
            ("/v2/health/live", &["host: a/b"], "contains a character"),
            ("/v2/health/live", &[], "is missing"),
        ] {
            let response = get(spinfer.address(), target, lines);
            assert!(response.starts_with("HTTP/1.1 400"), "{target} {lines:?}: {response}");
            assert!(response.contains(problem), "{target} {lines:?}: {response}");
        }
        let refused = |reason: &str| {
            let labels = format!("component=\"\",route=\"\",reason=\"{reason}\"");
            metric(&spinfer, &format!("spinfer_request_failures_total{{{labels}}}"))
        };
        assert_eq!((refused("no_host"), refused("invalid_host")), (5.0, 18.0));
        assert!(!spinfer.log().contains("WARN"), "{}", spinfer.log());
    }
}

#[test]
fn valid_host_is_in_the_full_url() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        for host in ["example.com", "EXAMPLE.com:8080", "10.0.0.1", "[::1]:3000", "a_b.org."] {
            let expected = format!("spin-full-url: http://{host}{TARGET}\n");
            for target in [TARGET.to_owned(), format!("http://{host}{TARGET}")] {
                let response = get(spinfer.address(), &target, &[&format!("host: {host}")]);
                assert!(response.contains(&expected), "{target}: {response}");
            }
        }
        // The default port may be missing in one of them.
        let response = get(spinfer.address(), "http://a.org/echo", &["host: A.org:80"]);
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
}

#[tokio::test]
async fn invalid_authority_of_http2_is_400() {
    let spinfer = probe("");
    let mut sender = in_the_clear(&spinfer).await;
    for (url, host, expected) in [
        ("http://a.org/x?spin-headers", None, 200),
        ("http://a.org/x?spin-headers", Some("A.org:80"), 200),
        ("http://a.org/x", Some("b.org"), 400),
        ("http://a.org/x", Some("a.org/admin?x="), 400),
        ("http://user@a.org/x", None, 400),
        ("http://a.org:99999/x", None, 400),
        ("http://probe.spin.internal/x", None, 400),
    ] {
        let mut request = Request::get(url);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let body = Empty::<Bytes>::new().boxed_unsync();
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let text = text(response).await;
        assert_eq!(status, expected, "{url} {host:?}: {text}");
        assert!(expected != 200 || text.contains("spin-full-url: http://"), "{text}");
    }
}

/// As load balancers and old clients send them.
#[test]
fn http_1_0_request_without_host_is_served() {
    for (component, door) in [("probe", ""), ("probe", STANDARD_DOOR), ("hello_p2", "")] {
        let manifest = Manifest::default().with("/...", "a", component, door);
        let spinfer = Launch::new(&manifest).up();
        let address = spinfer.address();
        let response = raw(address, format!("GET {TARGET} HTTP/1.0\r\n\r\n").as_bytes());
        assert!(response.starts_with("HTTP/1.0 200"), "{component}: {response}");
        let url = format!("spin-full-url: http://{address}{TARGET}\n");
        assert!(component != "probe" || response.contains(&url), "{response}");
        assert!(!response.contains("chunked"), "{response}");
        let live = raw(address, b"GET /v2/health/live HTTP/1.0\r\n\r\n");
        assert!(live.ends_with("{\"live\":true}"), "{live}");
        let named = format!("GET {TARGET} HTTP/1.0\r\nhost: a.org\r\n\r\n");
        let response = raw(address, named.as_bytes());
        assert!(response.starts_with("HTTP/1.0 200"), "{component}: {response}");
        assert!(component != "probe" || response.contains("http://a.org/x"), "{response}");
        for invalid in ["host: a/b", "host: a\r\nhost: b"] {
            let request = format!("GET {TARGET} HTTP/1.0\r\n{invalid}\r\n\r\n");
            let response = raw(address, request.as_bytes());
            assert!(response.starts_with("HTTP/1.0 400"), "{invalid}: {response}");
        }
    }
}

/// A connection of HTTP/1.0 is closed after the response, unless the client asks to keep it.
#[test]
fn http_1_0_connection_is_kept_alive_on_request() {
    let spinfer = probe("");
    let keep = "POST /echo HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\none";
    let close = "POST /echo HTTP/1.0\r\ncontent-length: 3\r\n\r\ntwo";
    let never = "GET /v2/health/live HTTP/1.0\r\n\r\n";
    let responses = raw(spinfer.address(), format!("{keep}{close}{never}").as_bytes());
    let parts: Vec<_> = responses.split("HTTP/1.0 200 OK\r\n").collect();
    let ["", one, two] = parts[..] else { panic!("{responses}") };
    assert!(one.contains("connection: keep-alive\r\n") && one.ends_with("\r\n\r\none"), "{one}");
    assert!(!two.contains("keep-alive") && two.ends_with("\r\n\r\ntwo"), "{two}");
}

/// A page of another site reaches the admin plane under the site's own name (DNS rebinding).
#[test]
fn admin_plane_requires_exactly_one_host_of_its_own() {
    let spinfer = probe("");
    let address = spinfer.admin_address();
    let own = format!("host: {address}");
    let own = own.as_str();
    for (target, lines, status) in [
        ("/metrics", &[own][..], "200"),
        ("/metrics", &["host: localhost"], "200"),
        ("/metrics", &["host: evil.example"], "403"),
        ("/metrics", &[], "400"),
        ("/metrics", &[own, own], "400"),
        ("/metrics", &[own, "host: evil.example"], "400"),
        ("/metrics", &["host: evil.example", own], "400"),
        ("/metrics", &["host: localhost/"], "400"),
        ("http://evil.example/metrics", &[own], "400"),
        ("http://evil.example/metrics", &["host: evil.example"], "403"),
        ("http://evil.example/metrics", &[], "400"),
    ] {
        let response = get(address, target, lines);
        let expected = format!("HTTP/1.1 {status}");
        assert!(response.starts_with(&expected), "{target} {lines:?}: {response}");
    }
    let response = raw(address, b"GET /metrics HTTP/1.0\r\n\r\n");
    assert!(response.starts_with("HTTP/1.0 400"), "{response}");
}
