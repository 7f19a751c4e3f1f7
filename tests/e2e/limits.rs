//! Faults of a guest are contained: its request fails with a status of its own, and the next one is
//! served.

use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};

fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up()
}

fn serves(spinfer: &Spinfer) {
    assert_eq!(spinfer.post("/echo", "well").text(), "well");
}

#[test]
fn trap_is_500_and_the_next_request_is_served() {
    for settings in ["", STANDARD_DOOR] {
        let spinfer = probe(settings);
        for _ in 0..20 {
            let response = spinfer.get("/trap");
            assert_eq!(response.status, 500);
            assert_eq!(response.error(), "component `probe` failed");
            serves(&spinfer);
        }
        spinfer.wait_for_log("asked to");
    }
}

#[test]
fn endless_loop_is_504_and_the_next_request_is_served() {
    let deadline = "tool.spinfer.limits.deadline = \"300ms\"\n";
    for settings in ["", STANDARD_DOOR] {
        let spinfer = probe(&format!("{settings}{deadline}"));
        let response = spinfer.get("/loop");
        assert_eq!(response.status, 504);
        assert_eq!(response.error(), "component `probe` did not respond before the deadline");
        serves(&spinfer);
    }
}

#[test]
fn endless_loop_in_a_wasi_0_2_handler_is_504() {
    let settings = "tool.spinfer.limits.deadline = \"300ms\"";
    let spinfer =
        Launch::new(&Manifest::default().with("/...", "hello", "hello_p2", settings)).up();
    assert_eq!(spinfer.get("/loop").status, 504);
    assert_eq!(spinfer.get("/trap").status, 500);
    assert_eq!(spinfer.get("/").status, 200);
}

/// More loops than threads: each of them yields, so that others are served meanwhile.
#[test]
fn endless_loops_do_not_block_other_requests() {
    let spinfer = probe("tool.spinfer.limits.deadline = \"5s\"");
    std::thread::scope(|scope| {
        let loops: Vec<_> = (0..8).map(|_| scope.spawn(|| spinfer.get("/loop").status)).collect();
        while !loops.iter().any(|one| one.is_finished()) {
            serves(&spinfer);
        }
        for one in loops {
            assert_eq!(one.join().unwrap(), 504);
        }
    });
}

#[test]
fn memory_beyond_the_limit_is_500() {
    for settings in ["", STANDARD_DOOR] {
        let spinfer =
            probe(&format!("{settings}tool.spinfer.limits.instance_memory = \"16MiB\"\n"));
        assert_eq!(spinfer.get("/memory").status, 500);
        serves(&spinfer);
    }
}

#[test]
fn instance_is_reused() {
    let spinfer = probe("tool.spinfer.limits.idle = \"1h\"");
    for n in 1..=10 {
        assert_eq!(spinfer.get("/count").text(), n.to_string());
    }
}

#[test]
fn idle_instances_are_evicted() {
    let spinfer = probe("tool.spinfer.limits.idle = \"100ms\"");
    assert_eq!(spinfer.get("/count").text(), "1");
    spinfer.wait_for_log("idle instances dropped");
    assert_eq!(spinfer.get("/count").text(), "1", "a new instance");
}

#[test]
fn guest_sees_only_read_only_mounts_and_its_own_environment() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    let settings = format!(
        "files = [{{ source = \"{}\", destination = \"/data\" }}]\n\
         environment = {{ GREETING = \"hello\" }}",
        dir.path().display()
    );
    let spinfer = probe(&settings);
    assert_eq!(spinfer.get("/read?/data/file").text(), "content");
    for path in ["/etc/passwd", "/data/../etc/passwd", "/data/../../etc/passwd", "/"] {
        assert_eq!(spinfer.get(&format!("/read?{path}")).status, 403, "{path}");
    }
    assert_eq!(spinfer.post("/write?/data/file", "changed").status, 403);
    assert_eq!(spinfer.post("/write?/data/new", "made").status, 403);
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"content");
    assert_eq!(spinfer.get("/environment?GREETING").text(), "hello");
    assert_eq!(spinfer.get("/environment?HOME").text(), "not set");
}

#[test]
fn guest_output_is_logged_with_its_component() {
    let spinfer = probe("");
    assert_eq!(spinfer.get("/log?a-line-of-the-guest").status, 200);
    spinfer.wait_for_log("a-line-of-the-guest");
    let log = spinfer.log();
    let line = log.lines().find(|line| line.contains("a-line-of-the-guest")).unwrap();
    assert!(line.contains("component=\"probe\"") && line.contains("stderr"), "{line}");
}
