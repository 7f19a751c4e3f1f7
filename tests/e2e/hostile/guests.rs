//! Each harm alone: its request gets one status, and the next requests on the same route and on another
//! are served.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, wait_until};

use super::harms::{self, End, Harm};
use super::raw;

/// Does harm, and checks the status of the response, of which the body may be cut off.
pub(super) fn harm(spinfer: &Spinfer, Harm { status, .. }: &Harm, target: &str) {
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let response = raw(spinfer, request.as_bytes(), false);
    let response = response.unwrap_or_else(|| panic!("no response to {target}"));
    let body: String = response.body.chars().take(300).collect();
    assert_eq!(response.status, *status, "{target}: {body}");
}

/// Checks that the next request on the same route is served. If the harm lasts until a deadline, that is
/// short, and on a busy machine the next request may miss it too: it is sent again.
pub(super) fn serves(spinfer: &Spinfer, harm: &Harm) {
    if !harm.serves {
        return;
    }
    wait_until(&format!("{} serves", harm.id), || {
        let response = spinfer.get(&format!("/{}/echo?well", harm.id));
        if response.status == 504 && harm.ends != End::Limit {
            return false;
        }
        assert_eq!((response.status, response.text().as_str()), (200, "well"), "{}", harm.id);
        true
    });
}

#[test]
fn each_harm_is_contained_and_its_route_keeps_serving() {
    let dir = tempfile::tempdir().unwrap();
    let harms = harms::all();
    let manifest = harms::application(dir.path(), &harms).with_iris("iris", 1, "/iris/...", "");
    let spinfer = Launch::new(&manifest).uncached().up();
    std::thread::scope(|scope| {
        for one in &harms {
            let spinfer = &spinfer;
            scope.spawn(move || {
                for _ in 0..2 {
                    harm(spinfer, one, &one.target());
                    serves(spinfer, one);
                }
                let response =
                    spinfer.post("/iris/predict", r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#);
                assert_eq!(response.json()["prediction"], "setosa", "after {}", one.id);
            });
        }
    });
    assert!(!spinfer.log().contains("panicked at host"), "{}", spinfer.log());
}

fn hostile(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/a/...", "a", "hostile", settings)).up()
}

#[test]
fn guest_output_is_bounded_and_dropped_lines_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let manifest = Manifest::default().with("/a/...", "a", "hostile", "");
    let spinfer = Launch::new(&manifest).flags(&["--log-dir", folder]).up();
    const LINES: usize = 30_000;
    let response = spinfer.get(&format!("/a/print?{LINES}"));
    assert_eq!(response.text(), "printed");
    // Printed and dropped lines add up to all lines.
    let printed = || spinfer.log().matches(&format!("of {LINES}")).count();
    let dropped = || {
        let log = spinfer.log();
        let output = log.lines().filter_map(|line| line.split_once(" lines dropped"));
        output
            .map(|(before, _)| before.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
            .sum::<usize>()
    };
    wait_until("every line is printed or counted", || printed() + dropped() == LINES);
    assert!(dropped() > 0);
    // The file has the same lines as the log.
    let file = std::fs::read_to_string(dir.path().join("a_stdout.txt")).unwrap();
    assert_eq!(file.lines().count(), printed());
    // The limit is per second.
    wait_until("the guest may print again", || {
        assert_eq!(spinfer.get("/a/print?1").status, 200);
        spinfer.log().contains("line 0 of 1 ")
    });
}

/// Random sequences of calls, without an effect on the host.
#[test]
fn wasi_nn_calls_in_any_order_return() {
    let harms = harms::all();
    let calls: Vec<&Harm> = harms.iter().filter(|harm| harm.id.starts_with("calls")).collect();
    let dir = tempfile::tempdir().unwrap();
    let spinfer = Launch::new(&harms::application(dir.path(), &harms)).up();
    let new = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() as usize;
    for seed in (0..40).chain([new]) {
        let harm = calls[seed % calls.len()];
        let response = spinfer.get(&format!("/{}/nn/sequence?{seed}", harm.id));
        let text = response.text();
        assert_eq!(response.status, 200, "seed {seed}: {text}");
        assert!(text.starts_with("200 calls, "), "seed {seed}: {text}");
        assert!(!text.ends_with(" 0 failed") && !text.ends_with(" 200 failed"), "{seed}: {text}");
    }
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// A server that responds when `most` clients are connected, and counts the concurrent ones.
struct SlowServer {
    listener: TcpListener,
    most: usize,
    open: AtomicUsize,
    seen: AtomicUsize,
}

impl SlowServer {
    fn response(&self, mut stream: TcpStream) {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.fetch_max(open, Ordering::SeqCst);
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        spinfer_tests::wait_until("the maximum of clients are connected", || {
            self.seen.load(Ordering::SeqCst) >= self.most
        });
        self.open.fetch_sub(1, Ordering::SeqCst);
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
}

#[test]
fn concurrent_outbound_requests_of_guests_are_limited() {
    const MAX_CONNECTIONS: usize = 256;
    let slow = SlowServer {
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        most: MAX_CONNECTIONS,
        open: AtomicUsize::new(0),
        seen: AtomicUsize::new(0),
    };
    let address = slow.listener.local_addr().unwrap();
    let settings = format!("{STANDARD_DOOR}allowed_outbound_hosts = [\"http://{address}\"]\n");
    let spinfer = hostile(&settings);
    let (guests, each) = (8, 40);
    std::thread::scope(|scope| {
        let slow = &slow;
        scope.spawn(move || {
            for _ in 0..guests * each {
                let (stream, _) = slow.listener.accept().unwrap();
                scope.spawn(move || slow.response(stream));
            }
        });
        for _ in 0..guests {
            scope.spawn(|| {
                let response = spinfer.get(&format!("/a/requests?{each}&{address}"));
                assert_eq!(response.text(), each.to_string());
            });
        }
    });
    assert_eq!(
        slow.seen.load(Ordering::SeqCst),
        MAX_CONNECTIONS,
        "concurrent connections for {} requests",
        guests * each
    );
}
