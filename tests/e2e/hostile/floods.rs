//! Clients that break the rules of HTTP/2 as fast as they can: each costs the host what it sends, and
//! no more, and others are served meanwhile.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use spinfer_benches::process::Process;
use spinfer_tests::{Launch, Manifest, Spinfer};

/// Bytes of a flood. A host that held on to what they ask for would need many times as much.
const FLOOD: usize = 16 << 20;
/// Resident memory during a flood over that before it, in MiB.
const MAX_GROWTH: f64 = 64.0;
/// Who is not read from for so long is not read from any more.
const STUCK: Duration = Duration::from_secs(1);
/// The same, of a flood that the host has to put an end to.
const ENDED: usize = FLOOD / 2;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames, and flags (RFC 9113, 6).
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

/// `GET /echo` of the host `x`, as HPACK has it: three indexed fields, and two literals.
fn head() -> Vec<u8> {
    [&[0x82, 0x86, 0x04, 5][..], b"/echo", &[0x01, 1], b"x"].concat()
}

/// What one client sends: `begins`, and then what `goes_on` makes of a count, again and again.
struct Flood {
    name: &'static str,
    begins: Vec<u8>,
    goes_on: fn(u32) -> Vec<u8>,
    /// Whether the host has to end it, and not only to bear it.
    is_ended: bool,
}

fn floods() -> Vec<Flood> {
    let flood = |name, begins, goes_on, is_ended| Flood { name, begins, goes_on, is_ended };
    let begun = || frame(HEADERS, END_STREAM, 1, &head());
    vec![
        // CVE-2023-44487: a request, and the word that it is not wanted any more.
        flood(
            "rapid reset",
            Vec::new(),
            |n| {
                let stream = 2 * n + 1;
                let begun = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head());
                [begun, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            },
            false,
        ),
        // CVE-2024-27316: a head without end, of fields, and of nothing.
        flood(
            "continuation",
            begun(),
            |n| {
                let name = format!("x-{n:010}");
                let field = [&[0, 12], name.as_bytes(), &[100], &[b'v'; 100]].concat();
                frame(CONTINUATION, 0, 1, &field.repeat(100))
            },
            true,
        ),
        flood("empty continuation", begun(), |_| frame(CONTINUATION, 0, 1, b""), true),
        // Each asks for an answer, and none is read.
        flood("ping", Vec::new(), |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()), false),
        // Each is worth a warning to the library that reads it.
        flood(
            "ping answers",
            Vec::new(),
            |n| frame(PING, ACK, 0, &u64::from(n).to_be_bytes()),
            false,
        ),
        flood("settings", Vec::new(), |_| frame(SETTINGS, 0, 0, b""), false),
    ]
}

impl Flood {
    /// How many bytes of it the host takes.
    fn send(&self, spinfer: &Spinfer) -> usize {
        let mut stream = spinfer.connect();
        stream.set_write_timeout(Some(STUCK)).unwrap();
        let first = [PREFACE, &frame(SETTINGS, 0, 0, b""), &self.begins].concat();
        stream.write_all(&first).unwrap();
        let (mut taken, mut count) = (0, 0);
        while taken < FLOOD {
            let mut pieces = Vec::new();
            while pieces.len() < 1 << 14 {
                pieces.extend((self.goes_on)(count));
                count += 1;
            }
            if stream.write_all(&pieces).is_err() {
                break;
            }
            taken += pieces.len();
        }
        let _ = stream.shutdown(Shutdown::Both);
        taken
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
            // Busy with what it is flooded with, it may say so.
            assert!([200, 503].contains(&response.status), "{}: {response:?}", flood.name);
            response.status == 200 && response.text() == body
        };
        assert!(serves("before"));
        let process = Process(spinfer.id());
        let resident = || process.resident().unwrap().total();
        let before = resident();
        let (taken, most, served) = std::thread::scope(|scope| {
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
            "{}: {taken} bytes taken, {growth:.1} MiB more, {served} served meanwhile",
            flood.name
        );
        assert!(growth <= MAX_GROWTH, "{}: {growth} MiB", flood.name);
        // One that is ended at once holds up nobody.
        assert!(taken <= ENDED || served > 0, "{}: nobody else was served", flood.name);
        assert!(!flood.is_ended || taken <= ENDED, "{}: {taken} bytes taken", flood.name);
        assert!(serves("after"), "{}", flood.name);
        assert!(super::is_quiet(&spinfer), "{}", spinfer.log());
    }
}

/// The host says why it ends a head without end.
#[test]
fn endless_head_gets_goaway_enhance_your_calm() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    let mut stream = spinfer.connect();
    let begun = frame(HEADERS, END_STREAM, 1, &head());
    let first = [PREFACE, &frame(SETTINGS, 0, 0, b""), &begun].concat();
    let empty = frame(CONTINUATION, 0, 1, b"").repeat(100);
    stream.write_all(&[first, empty].concat()).unwrap();
    let mut output = Vec::new();
    // It may be reset behind its last word.
    let _ = stream.read_to_end(&mut output);
    // GOAWAY: the last stream, and ENHANCE_YOUR_CALM.
    let calm = 11_u32.to_be_bytes();
    assert!(output.windows(4).any(|window| window == calm), "{output:?}");
}
