//! What a component of WASI 0.2 reaches beside its request: no sockets; clocks and randomness; over
//! HTTP where its manifest and the operator allow, for as long as it will wait.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use spinfer_tests::{Manifest, STANDARD_DOOR, Spinfer};

/// All that a manifest can allow.
const EVERYWHERE: &str = "allowed_outbound_hosts = [\"*://*:*\"]\n";

fn hello() -> Spinfer {
    Spinfer::up(&Manifest::default().with("/...", "hello", "hello_p2", EVERYWHERE))
}

fn text(spinfer: &Spinfer, path: &str) -> String {
    let answer = spinfer.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

/// Hosts that are allowed are so for HTTP and for what the host has a client of.
#[test]
fn sockets_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let spinfer = hello();
    for request in [
        format!("/tcp?{}", listener.local_addr().unwrap()),
        "/listen?127.0.0.1:0".into(),
        format!("/udp?{}", udp.local_addr().unwrap()),
        "/resolve?localhost:80".into(),
    ] {
        let said = text(&spinfer, &request);
        assert!(said.starts_with("refused: "), "{request}: {said}");
    }
    assert!(listener.accept().is_err() && udp.recv(&mut [0]).is_err(), "nobody came");
}

#[test]
fn clocks_and_randomness_are_there() {
    let before = SystemTime::now();
    let spinfer = hello();
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let said = text(&spinfer, "/clocks");
    let times: Vec<u128> = said.split(' ').map(|time| time.parse().unwrap()).collect();
    let [elapsed, time, later] = times[..] else { panic!("{said}") };
    assert!(elapsed >= 20, "{said}");
    assert!(since(before) <= time && time < later && later <= since(SystemTime::now()), "{said}");
    let random: Vec<_> = (0..3).map(|_| text(&spinfer, "/random")).collect();
    assert!(random[0] != random[1] && random[1] != random[2], "{random:?}");
    assert_eq!(random[0].split(',').count(), 32);
}

/// A server that answers each connection with `parts`, and then nothing until the client goes.
/// Whoever connected is counted.
fn server(parts: &'static [&str]) -> (SocketAddr, mpsc::Receiver<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (came, clients) = mpsc::channel();
    let serve = move |mut stream: TcpStream, client| {
        let _ = came.send(client);
        let mut request = Vec::new();
        let mut part = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let length = stream.read(&mut part).unwrap();
            request.extend_from_slice(&part[..length]);
        }
        for part in parts {
            stream.write_all(part.as_bytes()).unwrap();
        }
        // Until the other side has no more to say, or is gone.
        let _ = stream.read(&mut part);
        let _ = stream.shutdown(Shutdown::Both);
    };
    std::thread::spawn(move || {
        while let Ok((stream, client)) = listener.accept() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream, client));
        }
    });
    (address, clients)
}

const WHOLE: &[&str] =
    &["HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\n", "he", "re"];
const HALF: &[&str] = &["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", "he"];

#[test]
fn http_is_reached_for_as_long_as_a_guest_will_wait() {
    let spinfer = hello();
    let (whole, _clients) = server(WHOLE);
    let (half, _clients) = server(HALF);
    let (silent, _clients) = server(&[]);
    assert_eq!(text(&spinfer, &format!("/fetch?,,http://{whole}/")), "200 here");
    // Enough time is no different.
    assert_eq!(text(&spinfer, &format!("/fetch?20000,20000,http://{whole}/")), "200 here");
    let late = text(&spinfer, &format!("/fetch?100,,http://{silent}/"));
    assert!(late.contains("HttpResponseTimeout"), "{late}");
    let broken = text(&spinfer, &format!("/fetch?,100,http://{half}/"));
    assert!(broken.contains("connection read timeout"), "{broken}");
    let denied = Manifest::default().with("/...", "hello", "hello_p2", "");
    let denied = text(&Spinfer::up(&denied), &format!("/fetch?,,http://{whole}/"));
    assert!(denied.contains("HttpRequestDenied"), "{denied}");
}

/// However an address is written, or found.
#[test]
fn networks_the_operator_blocks_are_not_connected_to() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("runtime-config.toml");
    let up = |networks: &str| {
        let text = format!("[outbound_networking]\nblock_networks = [{networks}]\n");
        std::fs::write(&config, text).unwrap();
        let settings = format!("{EVERYWHERE}{STANDARD_DOOR}");
        let manifest = Manifest::default()
            .with("/hello/...", "hello", "hello_p2", EVERYWHERE)
            .with("/...", "probe", "probe", &settings)
            .with("/stores/...", "stores", "stores", EVERYWHERE);
        Spinfer::up_with(&manifest, &["--runtime-config-file", config.to_str().unwrap()])
    };
    let (whole, clients) = server(WHOLE);
    let port = whole.port();
    let spinfer = up("\"private\", \"1.1.1.1/32\"");
    for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "[::1]", "1.1.1.1"] {
        for path in ["/hello/fetch?,,", "/fetch?"] {
            let path = format!("{path}http://{host}:{port}/");
            let said = spinfer.get(&path).text();
            assert!(said.contains("DestinationIpProhibited"), "{path}: {said}");
        }
    }
    for host in ["127.0.0.1", "localhost"] {
        let said = spinfer.post("/stores/redis", format!("open redis://{host}:{port}")).text();
        assert!(said.contains("block_networks"), "{host}: {said}");
    }
    assert!(clients.try_recv().is_err(), "nobody came");
    // The application's own components are not elsewhere.
    let chained = spinfer.post("/fetch?http://probe.spin.internal/echo", "x");
    assert_eq!(chained.text(), "x");

    let spinfer = up("\"10.0.0.0/8\"");
    for host in ["127.0.0.1", "localhost"] {
        let said = text(&spinfer, &format!("/hello/fetch?,,http://{host}:{port}/"));
        assert_eq!(said, "200 here", "{host}");
    }
    assert!(clients.recv_timeout(Duration::from_secs(60)).is_ok());
}
