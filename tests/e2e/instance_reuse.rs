//! Which instances serve more than one request: by the interface that a component exports, by its settings,
//! and never after a response that failed.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, wait_until};

use super::metrics::metric;

const CLIENTS: usize = 8;
const REQUESTS: usize = 50;

/// Requests are served one after the other, by the same instance if it is reused.
const ONE_INSTANCE: &str = "tool.spinfer.reuse.min_idle = 0\ntool.spinfer.limits.instances = 1\n";

fn launch(guest: &str, settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "guest", guest, settings)).uncached().up()
}

/// The status of a response; `None` if it breaks off.
fn status(spinfer: &Spinfer, path: &str) -> Option<u16> {
    let mut stream = spinfer.connect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    let whole = stream.read_to_end(&mut response).is_ok();
    let text = String::from_utf8_lossy(&response);
    let chunked = text.contains("transfer-encoding: chunked");
    let complete = whole && !text.is_empty() && (!chunked || text.ends_with("\r\n0\r\n\r\n"));
    complete.then(|| text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap())
}

/// The numbers of responses that succeeded and that failed, of several clients at the same time.
fn outcomes(spinfer: &Spinfer, path: &str) -> (usize, usize) {
    let succeeded = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..REQUESTS {
                    let ok = status(spinfer, path) == Some(200);
                    succeeded.fetch_add(ok.into(), Ordering::Relaxed);
                }
            });
        }
    });
    let succeeded = succeeded.into_inner();
    (succeeded, CLIENTS * REQUESTS - succeeded)
}

/// Toolchains for 0.2, such as JavaScript's, build for an instance per request.
#[test]
fn instance_of_wasi_0_2_serves_one_request() {
    for how in ["status", "trap", "error", "silent", "broken"] {
        let spinfer = launch("hello_p2", "");
        let path = format!("/once?{how}");
        assert_eq!(outcomes(&spinfer, &path), (CLIENTS * REQUESTS, 0), "{how}");
    }
}

/// The next request does not wait for its instance.
#[test]
fn fresh_instance_is_created_ahead_of_the_next_request() {
    let manifest = Manifest::default().with("/...", "guest", "hello_p2", "");
    let spinfer = Launch::new(&manifest).uncached().admin().up();
    for served in 1..4 {
        assert_eq!(spinfer.get("/once?never").text(), "1");
        wait_until("the next instance is idle", || {
            let metric = |name: &str| metric(&spinfer, &format!("{name}{{component=\"guest\"}}"));
            let (live, started) =
                (metric("spinfer_instances"), metric("spinfer_instances_started_total"));
            live >= 1.0 && started > f64::from(served)
        });
    }
}

#[test]
fn default_number_of_requests_depends_on_the_interface() {
    for (guest, path, settings, expected) in [
        ("hello_p2", "/once?never", "", 1),
        ("hello_p2", "/once?never", "tool.spinfer.reuse.requests = 3\n", 3),
        ("hello_p3_rc", "/count", "", 128),
        // It exports the fast door, whose instances are reused, whichever door a request takes.
        ("probe", "/count", STANDARD_DOOR, 140),
        ("probe", "/count", "", 140),
    ] {
        let spinfer = launch(guest, &format!("{settings}{ONE_INSTANCE}"));
        let client = spinfer.client();
        let count = || client.send("GET", path, &[], b"").text().parse::<usize>().unwrap();
        let highest = (0..140).map(|_| count()).max();
        assert_eq!(highest, Some(expected), "{guest} {settings}");
    }
}

#[test]
fn setting_of_the_application_is_for_every_interface() {
    let manifest = Manifest::default()
        .with_settings(
            "tool.spinfer.reuse = { requests = 2, min_idle = 0 }\n\
             tool.spinfer.limits.instances = 1",
        )
        .with("/hello/...", "hello", "hello_p2", "")
        .with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).uncached().up();
    for path in ["/hello/once?never", "/count"] {
        let counts = [0; 4].map(|_| spinfer.get(path).text());
        assert_eq!(counts, ["1", "2", "1", "2"], "{path}");
    }
}

/// With reuse, an instance that fails after its first request has one response that fails, not all of them.
#[test]
fn instance_whose_response_failed_serves_no_other_request() {
    const REUSED: &str = "tool.spinfer.reuse.requests = 1000\n";
    let standard = format!("{STANDARD_DOOR}{REUSED}tool.spinfer.reuse.concurrency = 1\n");
    let cases = [
        ("hello_p2", REUSED, &["status", "trap", "error", "silent", "broken"][..]),
        ("probe", REUSED, &["500", "600", "header", "trap"]),
        ("probe", &standard, &["500", "trap", "error", "broken"]),
    ];
    for (guest, settings, ways) in cases {
        for how in ways {
            let path = format!("/once?{how}");
            let spinfer = launch(guest, &format!("{settings}{ONE_INSTANCE}"));
            for n in 0..6 {
                let succeeded = status(&spinfer, &path) == Some(200);
                assert_eq!(succeeded, n % 2 == 0, "{guest} {settings}{how}: request {n}");
            }
            // With 0.3 an instance can have taken a request before its last response breaks off.
            if (guest, *how) == ("probe", "broken") {
                continue;
            }
            let (succeeded, failed) = outcomes(&launch(guest, settings), &path);
            assert!(failed > 0 && failed <= succeeded, "{guest} {how}: {failed} of {succeeded}");
        }
    }
}

/// A status that a component chooses to respond with is no failure of its instance.
#[test]
fn instance_that_responds_with_another_error_is_reused() {
    for settings in ["", STANDARD_DOOR] {
        let spinfer = launch("probe", &format!("{settings}{ONE_INSTANCE}"));
        assert_eq!(spinfer.get("/count").text(), "1");
        for error in [400, 404, 502, 503] {
            assert_eq!(spinfer.get(&format!("/status?{error}")).status, error);
        }
        assert_eq!(spinfer.get("/count").text(), "2", "{settings}");
    }
}
