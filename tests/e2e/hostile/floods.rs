//! Clients that flood the host over HTTP/2: memory stays bounded, and other clients are served meanwhile.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use spinfer_benches::process::Process;
use spinfer_tests::{Launch, Manifest, Spinfer};

/// Length of a flood, in bytes. A host that kept its requests would need a multiple of it.
const FLOOD: usize = 16 << 20;
/// Growth of resident memory during a flood, in MiB.
const MAX_GROWTH: f64 = 64.0;
/// A flood that the host does not read from for this long has ended.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum length of a flood that the host has to end, in bytes.
const MAX_ENDED: usize = FLOOD / 2;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types and flags (RFC 9113, 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /echo` with the host `x` in HPACK: three indexed fields, and two literals.
fn head() -> Vec<u8> {
    [&[0x82, 0x86, 0x04, 5][..], b"/echo", &[0x01, 1], b"x"].concat()
}

/// What a client sends: `start`, and then the results of `next` for 0, 1, ...
struct Flood {
    name: &'static str,
    start: Vec<u8>,
    next: fn(u32) -> Vec<u8>,
    /// Whether the host has to close the connection.
    is_ended: bool,
}

fn floods() -> Vec<Flood> {
    let flood = |name, start, next, is_ended| Flood { name, start, next, is_ended };
    let headers = || frame(HEADERS, END_STREAM, 1, &head());
    vec![
        // CVE-2023-44487: requests that are cancelled immediately.
        flood(
            "rapid reset",
            Vec::new(),
            |n| {
                let stream = 2 * n + 1;
                let headers = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head());
                [headers, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            },
            false,
        ),
        // CVE-2024-27316: an endless head, with fields and with empty frames.
        flood(
            "continuation",
            headers(),
            |n| {
                let name = format!("x-{n:010}");
                let field = [&[0, 12], name.as_bytes(), &[100], &[b'v'; 100]].concat();
                frame(CONTINUATION, 0, 1, &field.repeat(100))
            },
            true,
        ),
        flood("empty continuation", headers(), |_| frame(CONTINUATION, 0, 1, b""), true),
        // Each requests a reply, and the client reads none.
        flood("ping", Vec::new(), |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()), false),
        // The HTTP/2 library logs a warning for each.
        flood(
            "PING replies",
            Vec::new(),
            |n| frame(PING, ACK, 0, &u64::from(n).to_be_bytes()),
            false,
        ),
        flood("settings", Vec::new(), |_| frame(SETTINGS, 0, 0, b""), false),
    ]
}

impl Flood {
    /// The number of bytes that the host reads.
    fn send(&self, spinfer: &Spinfer) -> usize {
        let mut stream = spinfer.connect();
        stream.set_write_timeout(Some(WRITE_TIMEOUT)).unwrap();
        let first = [PREFACE, &frame(SETTINGS, 0, 0, b""), &self.start].concat();
        stream.write_all(&first).unwrap();
        let (mut sent, mut count) = (0, 0);
        while sent < FLOOD {
            let mut pieces = Vec::new();
            while pieces.len() < 1 << 14 {
                pieces.extend((self.next)(count));
                count += 1;
            }
            if stream.write_all(&pieces).is_err() {
                break;
            }
            sent += pieces.len();
        }
        let _ = stream.shutdown(Shutdown::Both);
        sent
    }
}

#[test]
fn http2_floods_are_bounded_and_other_clients_are_served() {
    let limits = "tool.spinfer.limits.instances = 4\n";
    for flood in floods() {
        let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", limits)).up();
        let client = spinfer.client();
        let serves = |body: &str| {
            let response = client.send("POST", "/echo", &[], body.as_bytes());
            // The instances may be busy with the flood.
            assert!([200, 503].contains(&response.status), "{}: {response:?}", flood.name);
            response.status == 200 && response.text() == body
        };
        assert!(serves("before"));
        let process = Process(spinfer.id());
        let resident = || process.resident().unwrap().total();
        let before = resident();
        let (sent, most, served) = std::thread::scope(|scope| {
            let flooding = scope.spawn(|| flood.send(&spinfer));
            let (mut most, mut served) = (before, 0);
            while !flooding.is_finished() {
                served += usize::from(serves("during"));
                most = resident().max(most);
            }
            (flooding.join().unwrap(), most, served)
        });
        let growth = most - before;
        let _ = writeln!(
            std::io::stderr(),
            "{}: {sent} bytes taken, {growth:.1} MiB more, {served} served meanwhile",
            flood.name
        );
        assert!(growth <= MAX_GROWTH, "{}: {growth} MiB", flood.name);
        // A flood that ends early leaves no time to serve others.
        assert!(sent <= MAX_ENDED || served > 0, "{}: no other client was served", flood.name);
        assert!(!flood.is_ended || sent <= MAX_ENDED, "{}: {sent} bytes taken", flood.name);
        assert!(serves("after"), "{}", flood.name);
        assert!(super::is_quiet(&spinfer), "{}", spinfer.log());
    }
}

#[test]
fn endless_head_gets_goaway_enhance_your_calm() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    let mut stream = spinfer.connect();
    let headers = frame(HEADERS, END_STREAM, 1, &head());
    let first = [PREFACE, &frame(SETTINGS, 0, 0, b""), &headers].concat();
    let empty = frame(CONTINUATION, 0, 1, b"").repeat(100);
    stream.write_all(&[first, empty].concat()).unwrap();
    let mut output = Vec::new();
    // The connection may be reset after GOAWAY.
    let _ = stream.read_to_end(&mut output);
    // The error code of GOAWAY.
    let calm = 11_u32.to_be_bytes();
    assert!(output.windows(4).any(|window| window == calm), "{output:?}");
}
