//! Outbound network access of components by sockets and HTTP, as granted by the manifest and limited by
//! the operator; clocks and randomness.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};

/// A grant for every host.
const EVERYWHERE: &str = "allowed_outbound_hosts = [\"*://*:*\"]\n";

fn hello() -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "hello", "hello_p2", EVERYWHERE)).up()
}

fn text(spinfer: &Spinfer, path: &str) -> String {
    let response = spinfer.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text()
}

/// Servers on one port of the loopback that reply to "ping" with "pong", by TCP and by UDP, and report
/// each client.
fn ping_pong() -> (SocketAddr, mpsc::Receiver<&'static str>) {
    // A port that is free for one is not always free for the other.
    let bound = std::iter::repeat_with(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        UdpSocket::bind(address).ok().map(|socket| (address, listener, socket))
    });
    let (address, listener, socket) = bound.flatten().next().unwrap();
    let (connected, clients) = mpsc::channel();
    let also = connected.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = also.send("tcp");
            let mut ping = [0; 4];
            stream.read_exact(&mut ping).unwrap();
            assert_eq!(&ping, b"ping");
            stream.write_all(b"pong").unwrap();
        }
    });
    std::thread::spawn(move || {
        let mut ping = [0; 16];
        while let Ok((length, client)) = socket.recv_from(&mut ping) {
            let _ = connected.send("udp");
            assert_eq!(&ping[..length], b"ping");
            socket.send_to(b"pong", client).unwrap();
        }
    });
    (address, clients)
}

/// Components of WASI 0.2 and 0.3 with `grants`, under the runtime config `config`.
fn both(grants: &str, config: &str) -> Spinfer {
    let settings = format!("{grants}{STANDARD_DOOR}");
    let manifest = Manifest::default()
        .with("/hello/...", "hello", "hello_p2", grants)
        .with("/...", "probe", "probe", &settings);
    Launch::new(&manifest).runtime_config(config).up()
}

const BOTH: [&str; 2] = ["/hello", "/sockets"];

#[test]
fn sockets_reach_only_granted_addresses() {
    let (address, clients) = ping_pong();
    let port = address.port();
    for (entry, tcp, udp) in [
        (format!("*://127.0.0.1:{port}"), true, true),
        (format!("tcp://127.0.0.0/8:{port}"), true, false),
        (format!("udp://*:{port}"), false, true),
        (format!("*://127.0.0.2:{port}"), false, false),
        ("*://127.0.0.1:1..2".into(), false, false),
        // A grant for a name is not one for its address, and a grant for HTTP is not one for sockets.
        (format!("*://localhost:{port}"), false, false),
        (format!("http://127.0.0.1:{port}"), false, false),
    ] {
        let spinfer = both(&format!("allowed_outbound_hosts = [\"{entry}\"]\n"), "");
        for (way, granted) in [("tcp", tcp), ("udp", udp)] {
            for path in BOTH {
                let output = text(&spinfer, &format!("{path}/{way}?{address}"));
                if granted {
                    assert_eq!(output, "done: pong", "{entry}: {path}");
                    assert_eq!(clients.try_recv(), Ok(way), "{entry}: {path}");
                } else {
                    assert!(output.starts_with("refused: "), "{entry}: {path}/{way}: {output}");
                }
            }
        }
    }
    assert!(clients.try_recv().is_err(), "no other client connected");
}

/// The guest has a grant for every host.
#[test]
fn sockets_cannot_listen_resolve_names_or_reach_blocked_networks() {
    let (address, clients) = ping_pong();
    let spinfer = both(EVERYWHERE, "");
    for path in ["listen?127.0.0.1:0", "listen?0.0.0.0:0", "resolve?localhost:80"] {
        for way in BOTH {
            let output = text(&spinfer, &format!("{way}/{path}"));
            assert!(output.starts_with("refused: "), "{way}/{path}: {output}");
        }
    }
    let blocking = "[outbound_networking]\nblock_networks = [\"private\"]\n";
    let spinfer = both(EVERYWHERE, blocking);
    for way in ["tcp", "udp"] {
        for path in BOTH {
            let output = text(&spinfer, &format!("{path}/{way}?{address}"));
            assert!(output.starts_with("refused: "), "{path}/{way}: {output}");
        }
    }
    assert!(clients.try_recv().is_err(), "no client connected");
}

#[test]
fn clocks_and_randomness_are_available() {
    let spinfer = both("", "");
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    for way in ["/hello", ""] {
        let before = SystemTime::now();
        let output = text(&spinfer, &format!("{way}/clocks"));
        let times: Vec<u128> = output.split(' ').map(|time| time.parse().unwrap()).collect();
        let [elapsed, time, later] = times[..] else { panic!("{output}") };
        assert!(elapsed >= 20, "{output}");
        let now = since(SystemTime::now());
        assert!(since(before) <= time && time < later && later <= now, "{way}: {output}");
        let random: Vec<_> = (0..3).map(|_| text(&spinfer, &format!("{way}/random"))).collect();
        assert!(random[0] != random[1] && random[1] != random[2], "{way}: {random:?}");
        assert_eq!(random[0].split(',').count(), 32, "{way}");
    }
}

/// A server that sends `parts` on each connection, keeps it open until the client closes it, and reports
/// each client.
fn server(parts: &'static [&str]) -> (SocketAddr, mpsc::Receiver<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, clients) = mpsc::channel();
    let serve = move |mut stream: TcpStream, client| {
        let _ = connected.send(client);
        let mut request = Vec::new();
        let mut part = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let length = stream.read(&mut part).unwrap();
            request.extend_from_slice(&part[..length]);
        }
        for part in parts {
            stream.write_all(part.as_bytes()).unwrap();
        }
        // Until the client closes the connection.
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
fn outbound_http_honours_the_timeouts_of_the_guest() {
    let spinfer = hello();
    let (whole, _clients) = server(WHOLE);
    let (half, _clients) = server(HALF);
    let (silent, _clients) = server(&[]);
    assert_eq!(text(&spinfer, &format!("/fetch?,,http://{whole}/")), "200 here");
    // A timeout that is not reached has no effect.
    assert_eq!(text(&spinfer, &format!("/fetch?20000,20000,http://{whole}/")), "200 here");
    let timed_out = text(&spinfer, &format!("/fetch?100,,http://{silent}/"));
    assert!(timed_out.contains("HttpResponseTimeout"), "{timed_out}");
    let broken = text(&spinfer, &format!("/fetch?,100,http://{half}/"));
    assert!(broken.contains("connection read timeout"), "{broken}");
    let denied = Manifest::default().with("/...", "hello", "hello_p2", "");
    let denied = text(&Launch::new(&denied).up(), &format!("/fetch?,,http://{whole}/"));
    assert!(denied.contains("HttpRequestDenied"), "{denied}");
}

/// In every spelling of an address, and by name.
#[test]
fn blocked_networks_are_unreachable_over_http_and_redis() {
    let up = |networks: &str| {
        let config = format!("[outbound_networking]\nblock_networks = [{networks}]\n");
        let settings = format!("{EVERYWHERE}{STANDARD_DOOR}");
        let manifest = Manifest::default()
            .with("/hello/...", "hello", "hello_p2", EVERYWHERE)
            .with("/...", "probe", "probe", &settings)
            .with("/stores/...", "stores", "stores", EVERYWHERE);
        Launch::new(&manifest).runtime_config(&config).up()
    };
    let (whole, clients) = server(WHOLE);
    let port = whole.port();
    let spinfer = up("\"private\", \"1.1.1.1/32\"");
    for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "[::1]", "1.1.1.1"] {
        for path in ["/hello/fetch?,,", "/fetch?"] {
            let path = format!("{path}http://{host}:{port}/");
            let output = spinfer.get(&path).text();
            assert!(output.contains("DestinationIpProhibited"), "{path}: {output}");
        }
    }
    for host in ["127.0.0.1", "localhost"] {
        let output = spinfer.post("/stores/redis", format!("open redis://{host}:{port}")).text();
        assert!(output.contains("block_networks"), "{host}: {output}");
    }
    assert!(clients.try_recv().is_err(), "no client connected");
    // Service chaining is not blocked.
    let chained = spinfer.post("/fetch?http://probe.spin.internal/echo", "x");
    assert_eq!(chained.text(), "x");

    let spinfer = up("\"10.0.0.0/8\"");
    for host in ["127.0.0.1", "localhost"] {
        let output = text(&spinfer, &format!("/hello/fetch?,,http://{host}:{port}/"));
        assert_eq!(output, "200 here", "{host}");
    }
    assert!(clients.recv_timeout(Duration::from_secs(60)).is_ok());
}
