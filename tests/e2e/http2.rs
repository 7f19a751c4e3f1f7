//! HTTP/2 in cleartext and over TLS, trailers, and streams both ways.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, run, wait_until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::metrics::metric;

pub(crate) type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

const PREDICT: &str = "/v2/models/iris-classifier/predict";
const FEATURES: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

pub(crate) fn whole(body: impl Into<Bytes>) -> RequestBody {
    Full::new(body.into()).boxed_unsync()
}

pub(crate) fn post(url: &str, body: RequestBody) -> Request<RequestBody> {
    Request::post(url).body(body).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> http2::SendRequest<RequestBody> {
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A connection in cleartext with prior knowledge.
pub(crate) async fn in_the_clear(spinfer: &Spinfer) -> http2::SendRequest<RequestBody> {
    http2(TcpStream::connect(spinfer.address()).await.unwrap()).await
}

fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up()
}

#[tokio::test]
async fn one_connection_multiplexes_concurrent_requests() {
    for door in ["", STANDARD_DOOR] {
        let sizes = "tool.spinfer.limits.buffered_body = \"16KiB\"\n";
        let spinfer = probe(&format!("{door}{sizes}"));
        let sender = in_the_clear(&spinfer).await;
        let requests = (0..64_u8).map(|n| {
            let mut sender = sender.clone();
            async move {
                let body = vec![n; usize::from(n) * 1000];
                let response =
                    sender.send_request(post("http://x/echo", whole(body.clone()))).await.unwrap();
                assert_eq!(
                    (response.status().as_u16(), response.version()),
                    (200, Version::HTTP_2)
                );
                assert!(response.into_body().collect().await.unwrap().to_bytes() == body, "{n}");
            }
        });
        futures::future::join_all(requests).await;
    }
}

#[tokio::test]
async fn head_requests_and_failures_get_their_statuses() {
    let spinfer = probe("tool.spinfer.limits.request_body = \"1KiB\"\n");
    let mut sender = in_the_clear(&spinfer).await;
    let head = Request::builder().method(Method::HEAD).uri("http://x/echo");
    let response = sender.send_request(head.body(whole("")).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, ""));
    let long = sender.send_request(post("http://x/echo", whole(vec![0; 2000]))).await.unwrap();
    assert_eq!(long.status(), 413);
    assert!(text(long).await.contains("limit of 1024 bytes"));
    let trap = sender.send_request(post("http://x/trap", whole(""))).await.unwrap();
    assert_eq!(trap.status(), 500);
    let mut large = post("http://x/echo", whole(""));
    for n in 0..100 {
        let value = HeaderValue::from_str(&"x".repeat(1000)).unwrap();
        large.headers_mut().append(http::HeaderName::try_from(format!("x-{n}")).unwrap(), value);
    }
    let response = sender.send_request(large).await.unwrap();
    assert_eq!(response.status(), 431);
    let after = sender.send_request(post("http://x/echo", whole("after"))).await.unwrap();
    assert_eq!(text(after).await, "after");
}

/// Each piece is echoed before the next is sent, so that no side waits for the whole body.
#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    let spinfer = probe("tool.spinfer.limits.buffered_body = \"1\"\n");
    let mut sender = in_the_clear(&spinfer).await;
    let (pieces, body) = mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
    let send = |frame| pieces.unbounded_send(Ok(frame)).unwrap();
    send(Frame::data("piece 0".into()));
    let body = StreamBody::new(body).boxed_unsync();
    let response = sender.send_request(post("http://x/stream", body)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut back = response.into_body();
    for n in 0..20 {
        let frame = back.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("piece {n}"));
        send(Frame::data(format!("piece {}", n + 1).into()));
    }
    assert_eq!(back.frame().await.unwrap().unwrap().into_data().unwrap(), "piece 20");
    let trailers = HeaderMap::from_iter([("x-sum", "21")].map(|(name, value)| {
        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
    }));
    send(Frame::trailers(trailers.clone()));
    drop(pieces);
    let mut seen = None;
    while let Some(frame) = back.frame().await {
        seen = Some(frame.unwrap().into_trailers().unwrap());
    }
    assert_eq!(seen, Some(trailers));
}

/// A client with a flow-control window of 0 reads nothing. Takes as long as the host waits for one, 30
/// seconds.
#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_are_limited_and_cancelled() {
    const LENGTH: usize = 8 << 20;
    let settings = "tool.spinfer.limits = { buffered_body = \"8MiB\", request_body = \"8MiB\" }\n";
    let spinfer = probe(settings);
    let stream = TokioIo::new(TcpStream::connect(spinfer.address()).await.unwrap());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (mut sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut unread = Vec::new();
    for _ in 0..40 {
        let body = whole(vec![7; LENGTH]);
        let response = sender.send_request(post("http://x/echo", body)).await.unwrap();
        assert_eq!(response.status(), 200);
        unread.push(response);
    }
    // A short response of another connection is served.
    let mut other = in_the_clear(&spinfer).await;
    let response = other.send_request(post("http://x/echo", whole("x"))).await.unwrap();
    assert_eq!(text(response).await, "x");
    // One client address holds 128 MiB: the slowest were given up for the others.
    assert_eq!(spinfer.log().matches("unread response given up").count(), 24);
    for response in unread {
        let error = response.into_body().collect().await.unwrap_err();
        assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    }
    // The memory is free again, and both connections are usable.
    let large = other.send_request(post("http://x/echo", whole(vec![7; LENGTH]))).await.unwrap();
    assert_eq!(large.status(), 200);
    assert_eq!(large.into_body().collect().await.unwrap().to_bytes().len(), LENGTH);
    let response = sender.send_request(post("http://x/echo", whole(""))).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, ""));
}

/// Whether its guest computes or waits for the rest of a body, and long before the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_stream_frees_its_instance() {
    let limits = "{ instances = 1, queue = 0, deadline = \"1h\" }";
    let settings = format!("{STANDARD_DOOR}tool.spinfer.limits = {limits}\n");
    let manifest = Manifest::default().with("/...", "probe", "probe", &settings);
    let spinfer = Launch::new(&manifest).admin().up();
    let in_flight = || metric(&spinfer, "spinfer_requests_in_flight{component=\"probe\"}");
    // One connection for all of it.
    let stream = TokioIo::new(TcpStream::connect(spinfer.address()).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..5 {
        // An error within the body resets the stream.
        let (pieces, body) = mpsc::unbounded::<io::Result<Frame<Bytes>>>();
        let send = |piece| pieces.unbounded_send(piece).unwrap();
        send(Ok(Frame::data("begun".into())));
        let body = StreamBody::new(body.boxed()).boxed_unsync();
        let request = Request::post("http://x/stream").body(body).unwrap();
        let mut back = sender.send_request(request).await.unwrap().into_body();
        assert_eq!(back.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
        assert_eq!(in_flight(), 1.0);
        send(Err(io::Error::other("cancelled")));
        wait_until("the request that reads the body is cancelled", || in_flight() == 0.0);

        // So does a response that the client no longer waits for.
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let looping = sender.send_request(Request::post("http://x/loop").body(body).unwrap());
        let looping = tokio::spawn(looping);
        wait_until("the guest computes", || in_flight() == 1.0);
        looping.abort();
        wait_until("the guest is terminated", || in_flight() == 0.0);
        // The only instance is free.
        let body = Full::new("x".into()).map_err(|never| match never {}).boxed_unsync();
        let request = Request::post("http://x/echo").body(body).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, "x"));
    }
}

/// A certificate for localhost, and the PEM files of it and its key in `dir`.
fn certificate(dir: &Path) -> (CertificateDer<'static>, [String; 2]) {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let paths = ["certificate.pem", "key.pem"].map(|name| dir.join(name));
    std::fs::write(&paths[0], generated.cert.pem()).unwrap();
    std::fs::write(&paths[1], generated.signing_key.serialize_pem()).unwrap();
    (generated.cert.der().clone(), paths.map(|path| path.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn alpn_selects_the_http_version() {
    let dir = tempfile::tempdir().unwrap();
    let (trusted, [certificate, key]) = certificate(dir.path());
    let manifest = Manifest::default().with_iris("iris", 1, "/v2/models/...", "");
    let spinfer =
        Launch::new(&manifest).flags(&["--tls-cert", &certificate, "--tls-key", &key]).up();
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    for (offered, version) in
        [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11), ("", Version::HTTP_11)]
    {
        config.alpn_protocols = [offered.as_bytes().to_vec()].into();
        config.alpn_protocols.retain(|name| !name.is_empty());
        let connector = TlsConnector::from(Arc::new(config.clone()));
        let stream = TcpStream::connect(spinfer.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let mut request = post(&format!("https://localhost{PREDICT}"), whole(FEATURES));
        let response = if version == Version::HTTP_2 {
            http2(stream).await.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            *request.uri_mut() = PREDICT.parse().unwrap();
            request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
            sender.send_request(request).await.unwrap()
        };
        assert_eq!((response.status().as_u16(), response.version()), (200, version), "{offered}");
        assert!(text(response).await.contains("\"prediction\":\"setosa\""));
    }
    // A client that does not speak TLS is disconnected.
    let mut plain = spinfer.connect();
    std::io::Write::write_all(&mut plain, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut response = Vec::new();
    // The connection may be reset.
    let _ = std::io::Read::read_to_end(&mut plain, &mut response);
    assert!(!response.starts_with(b"HTTP/"), "{response:?}");
}

#[test]
fn unusable_certificate_is_refused_with_the_reason() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, [certificate, key]) = certificate(dir.path());
    let (_, [_, other_key]) = self::certificate(other.path());
    for (certificate, key, part) in [
        ("nothing.pem", key.as_str(), "nothing.pem: cannot read the certificate"),
        (&key, &key, "the file has no certificate"),
        (&certificate, &certificate, "the file has no private key"),
        (&certificate, &other_key, "does not match the private key"),
    ] {
        let (status, output) = run(&["up", "--tls-cert", certificate, "--tls-key", key]);
        assert!(!status.success() && output.contains(part), "{output}");
    }
    let (status, output) = run(&["up", "--tls-cert", &certificate]);
    assert!(!status.success() && output.contains("--tls-key"), "{output}");
}

#[tokio::test]
async fn preface_sent_byte_by_byte_is_accepted() {
    let spinfer = probe("");
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let server = TcpStream::connect(spinfer.address()).await.unwrap();
    server.set_nodelay(true).unwrap();
    let (mut from, mut to) = server.into_split();
    let (mut read, mut write) = tokio::io::split(theirs);
    tokio::spawn(async move { tokio::io::copy(&mut from, &mut write).await });
    tokio::spawn(async move {
        while let Ok(byte) = read.read_u8().await {
            if tokio::io::AsyncWriteExt::write_all(&mut to, &[byte]).await.is_err() {
                break;
            }
        }
    });
    let mut sender = http2(ours).await;
    let request = Request::get("http://x/count").body(Empty::new().boxed_unsync()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(response.headers().get(CONTENT_LENGTH).is_some());
    assert_eq!(text(response).await, "1");
}
