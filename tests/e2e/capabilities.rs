//! What a guest may import besides inference: variables, and HTTP requests to other components and other
//! hosts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Two components with the same code: `a` on every path, and `b`, which `a` calls by service chaining.
fn two(more: &str) -> Spinfer {
    let settings = format!("{STANDARD_DOOR}{more}\n");
    let manifest = Manifest::default()
        .with("/...", "a", "probe", &settings)
        .with("/b", "b", "probe", &settings);
    Launch::new(&manifest).up()
}

#[test]
fn variables_are_readable_through_every_interface() {
    let settings = format!(
        "{STANDARD_DOOR}variables = {{ region = \"eu\", url = \"https://{{{{ domain }}}}/x\" }}\n"
    );
    let manifest = Manifest::default().with("/...", "probe", "probe", &settings);
    let manifest = format!("{}[variables]\ndomain = {{ default = \"b.org\" }}\n", manifest.text());
    let spinfer = Launch::from_text(&manifest).up();
    for interface in ["spin", "fermyon", "config"] {
        let get = |name| {
            let response = spinfer.get(&format!("/variable/{interface}?{name}"));
            (response.status, response.text())
        };
        assert_eq!(get("region"), (200, "eu".into()), "{interface}");
        assert_eq!(get("url"), (200, "https://b.org/x".into()), "{interface}");
        let (status, missing) = get("domain");
        let undefined = if interface == "config" { "none" } else { "Undefined" };
        assert!(status == 404 && missing.contains(undefined), "{interface}: {missing}");
        let (status, invalid) = get("No-Name");
        let problem = if interface == "config" { "none" } else { "InvalidName" };
        assert!(status == 404 && invalid.contains(problem), "{interface}: {invalid}");
    }
    assert_eq!(spinfer.get("/variable/all").text(), "region=eu\nurl=https://b.org/x\n");
}

#[test]
fn service_chaining_stays_in_process() {
    let spinfer = two("allowed_outbound_hosts = [\"http://*.spin.internal\"]");
    for body in [vec![b'x'; 10], vec![b'y'; 300_000]] {
        let response = spinfer.post("/fetch?http://b.spin.internal/echo", &body);
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.body == body);
    }
    // Its errors are the response.
    let trap = spinfer.post("/fetch?http://b.spin.internal/trap", "");
    assert_eq!((trap.status, trap.error().as_str()), (500, "component `b` failed"));
    let none = spinfer.post("/fetch?http://c.spin.internal/", "");
    assert_eq!((none.status, none.error().as_str()), (404, "there is no component `c`"));
}

#[test]
fn service_chaining_reaches_a_component_behind_the_fast_door() {
    let grant = "allowed_outbound_hosts = [\"http://*.spin.internal\"]\n";
    let manifest = Manifest::default()
        .with("/...", "a", "probe", &format!("{STANDARD_DOOR}{grant}"))
        .with("/b", "b", "probe", "");
    let spinfer = Launch::new(&manifest).up();
    for _ in 0..3 {
        let response = spinfer.post("/fetch?http://b.spin.internal/echo", "body");
        assert_eq!((response.status, response.text().as_str()), (200, "body"));
    }
}

/// Components of WASI 0.3 and 0.2 that may send requests to `granted`, and `b`, on the routes `/...`,
/// `/older/...` and `/b/...`.
fn both_versions(granted: &str) -> Spinfer {
    let grant = format!("allowed_outbound_hosts = [{granted}]\n");
    let manifest = Manifest::default()
        .with("/...", "a", "probe", &format!("{STANDARD_DOOR}{grant}"))
        .with("/older/...", "older", "hello_p2", &grant)
        .with("/b/...", "b", "probe", "");
    Launch::new(&manifest).up()
}

/// What both components receive for `url`, with `host` in the requests to them.
fn fetched(spinfer: &Spinfer, host: &str, url: &str) -> [String; 2] {
    let send = |path: &str| {
        let response = spinfer.send("GET", &format!("{path}{url}"), &[("host", host)], b"");
        format!("{} {}", response.status, response.text())
    };
    let newer = send("/fetch?");
    // The status of the response is the first word of the text.
    let older = send("/older/fetch?,,");
    [newer, older.strip_prefix("200 ").unwrap_or(&older).to_owned()]
}

/// By a path alone, or what SDKs make of it: only a port, or the host of the request.
#[test]
fn request_to_self_is_routed_by_path() {
    for granted in ["\"http://self\"", "\"https://self\"", "\"http://self.alt\"", "\"*://*:*\""] {
        let spinfer = both_versions(granted);
        let address = spinfer.address();
        for host in ["", "http://:80", "https://:443", "http://self", "https://self.alt"] {
            let url = format!("{host}/b/x?spin-headers");
            for received in fetched(&spinfer, "client.example", &url) {
                assert!(received.starts_with("200 "), "{granted} {url}: {received}");
                let full_url = format!("spin-full-url: http://{address}/b/x?spin-headers\n");
                assert!(received.contains(&full_url), "{granted} {url}: {received}");
                assert!(received.contains("spin-path-info: /x\n"), "{received}");
            }
        }
    }
    let spinfer = both_versions("\"http://self\"");
    let response = spinfer.post("/fetch?/echo", "a body");
    assert_eq!((response.status, response.text().as_str()), (200, "a body"));
    // `fetch("/path")` in JavaScript, with and without a default port.
    for (host, url) in [
        ("a.example:8080", "http://a.example:8080/b?spin-headers"),
        ("a.example", "http://a.example/b?spin-headers"),
        ("a.example", "https://a.example:443/b?spin-headers"),
    ] {
        for received in fetched(&spinfer, host, url) {
            assert!(received.starts_with("200"), "{url}: {received}");
        }
    }
    for url in ["http://b.spin.internal/echo", "http://a.example:81/b/echo", "http://b.example/"] {
        for received in fetched(&spinfer, "a.example", url) {
            assert!(received.contains("HttpRequestDenied"), "{url}: {received}");
        }
    }
}

#[test]
fn request_to_self_needs_its_grant() {
    for granted in ["", "\"http://*.spin.internal\"", "\"http://a.example\""] {
        let spinfer = both_versions(granted);
        for url in ["/b/echo", "http://:80/b/echo", "http://self/b/echo", "http://self.alt/b/echo"]
        {
            for received in fetched(&spinfer, "client.example", url) {
                assert!(received.contains("HttpRequestDenied"), "{granted} {url}: {received}");
            }
        }
    }
}

/// As Spin passes it: with the scheme of the connection, and the host.
#[test]
fn wasi_http_request_has_the_url_of_the_client() {
    let spinfer = both_versions("");
    let send = |path: &str| {
        let response = spinfer.send("GET", path, &[("host", "a.example:8080")], b"");
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.text()
    };
    assert_eq!(send("/url?x=1"), "http://a.example:8080/url?x=1");
    assert_eq!(send("/older/authority"), "a.example:8080");
}

/// Each request calls the component once more, until the host refuses one; its response is returned
/// through all of them.
#[test]
fn circular_service_chaining_is_508() {
    for (granted, url) in
        [("*.spin.internal", "http://b.spin.internal"), ("self", "http://self.alt"), ("self", "")]
    {
        let spinfer = two(&format!(
            "allowed_outbound_hosts = [\"http://{granted}\"]\n\
             tool.spinfer.limits.instances = 20"
        ));
        let calls = |times| format!("/fetch?{url}").repeat(times);
        let response = spinfer.post(&format!("{}/echo", calls(30)), "x");
        assert_eq!(response.status, 508, "{url}: {}", response.text());
        assert!(response.error().contains("call each other in a loop"));
        let response = spinfer.post(&format!("{}/echo", calls(10)), "x");
        assert_eq!((response.status, response.text().as_str()), (200, "x"), "{url}");
    }
}

#[test]
fn outbound_http_reaches_only_allowed_hosts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Two requests on one connection.
        for _ in 0..2 {
            let mut request = Vec::new();
            let mut part = [0; 1024];
            // A guest's body has no length and is sent in chunks.
            while !request.ends_with(b"\r\n4\r\nbody\r\n0\r\n\r\n") {
                let length = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..length]);
            }
            assert!(request.starts_with(b"POST /path HTTP/1.1\r\n"), "{request:?}");
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nhere").unwrap();
        }
    });
    let spinfer =
        two(&format!("allowed_outbound_hosts = [\"http://127.0.0.1:{}\"]", address.port()));
    for _ in 0..2 {
        let response = spinfer.post(&format!("/fetch?http://{address}/path"), "body");
        assert_eq!((response.status, response.text().as_str()), (201, "here"));
    }
    server.join().unwrap();
    // The server has closed its socket.
    let refused = spinfer.post(&format!("/fetch?http://{address}/path"), "body");
    assert!(refused.status == 502 && refused.text().contains("Connection"), "{refused:?}");
    let denied = spinfer.post("/fetch?http://127.0.0.1:1/path", "body");
    assert!(denied.status == 502 && denied.text().contains("HttpRequestDenied"), "{denied:?}");
}

/// A server for `localhost` that responds with "here" over TLS, and the PEM of the authority that signed
/// its certificate.
fn serve_tls() -> (SocketAddr, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate closes the connection.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere";
            let _ = stream.write_all(response).await;
            let _ = stream.shutdown().await;
        }
    };
    std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(serve));
    (address, authority.pem())
}

#[test]
fn outbound_tls_verifies_certificates_and_honours_ssl_cert_file() {
    let (address, authority) = serve_tls();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let port = address.port();
    let settings = format!("{STANDARD_DOOR}allowed_outbound_hosts = [\"https://localhost:*\"]\n");
    let manifest = Manifest::default().with("/...", "a", "probe", &settings);
    let trusted = file("authority.pem", &authority);
    let launch = || Launch::new(&manifest);
    let fetch = |launch: Launch| {
        let spinfer = launch.up();
        let response = spinfer.post(&format!("/fetch?https://localhost:{port}/"), "");
        (response.status, response.text())
    };
    let (status, text) = fetch(launch());
    assert!(status == 502 && text.contains("TlsCertificateError"), "{status} {text}");
    assert_eq!(fetch(launch().env("SSL_CERT_FILE", &trusted)), (200, "here".into()));
    for nothing in [file("empty.pem", ""), dir.path().join("none").display().to_string()] {
        let text = launch().env("SSL_CERT_FILE", &nothing).refused();
        assert!(text.contains("SSL_CERT_FILE: "), "{text}");
    }
}
