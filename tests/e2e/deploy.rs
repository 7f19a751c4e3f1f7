//! `deploy/`: manifests against the schemas and the host, the image's root file system as a container
//! engine runs it, and Redis users with minimal permissions.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use spinfer_tests::{GUESTS, Launch, Manifest, Redis, Spinfer, binary, root, run, wait_until};

/// Exit status of a script that cannot run on this machine, and prints the reason.
const SKIPPED: i32 = 77;

fn text(output: &Output) -> String {
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{error}", output.status)
}

#[test]
fn deployment_manifests_are_valid_and_consistent() {
    let python = root().join("target/python/bin/python");
    assert!(python.exists(), "kubernetes-validate is not installed: run `make clients`");
    let output = Command::new(python)
        .arg(root().join("tests/python/deploy_manifests.py"))
        .arg(binary())
        .arg(root().join("../shared/data/schemas"))
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn image_serves_without_privileges_on_a_read_only_root() {
    let output = Command::new(root().join("deploy/test-image.sh"))
        .env("SPINFER", binary())
        .env("COMPONENTS", GUESTS)
        .output()
        .expect("bash starts");
    let printed = text(&output);
    if output.status.code() == Some(SKIPPED) {
        println!("{printed}");
        return;
    }
    assert!(output.status.success() && printed.contains("==> passed"), "{printed}");
}

/// Writes secrets for a Redis on `port` into `folder`.
fn secrets(folder: &Path, port: u16) {
    let output = Command::new(root().join("deploy/secrets.sh"))
        .arg(folder)
        .env("REDIS", format!("127.0.0.1:{port}"))
        .output()
        .expect("bash starts");
    assert!(output.status.success(), "{}", text(&output));
}

/// Two nodes share responses, purges and a key-value store through a Redis that has the users of
/// `secrets.sh` and the settings of `compose.yaml`; the server denies none of their commands.
#[test]
fn redis_users_have_exactly_the_permissions_they_need() {
    let redis = Redis::start_with(&["--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru"]);
    let dir = tempfile::tempdir().unwrap();
    secrets(dir.path(), redis.port());
    let users = std::fs::read_to_string(dir.path().join("users.acl")).unwrap();
    for user in users.lines() {
        let rule: Vec<_> = user.split(' ').skip(1).collect();
        // The test itself is the default user.
        if rule[0] != "default" {
            let ok: String = redis.query(&[&["ACL", "SETUSER"], &rule[..]].concat());
            assert_eq!(ok, "OK");
        }
    }
    let config = std::fs::read_to_string(dir.path().join("runtime-config.toml")).unwrap();
    // Longer than a busy machine takes.
    let config = config.replace("[cache]\n", "[cache]\ntimeout = '1s'\n");
    let manifest = Manifest::default().with_iris("iris", 1, "/iris/...", "").with(
        "/store/...",
        "store",
        "stores_older",
        "key_value_stores = [\"default\"]",
    );
    let nodes = [0, 1].map(|_| Launch::new(&manifest).admin().runtime_config(&config).up());

    // The first cacheable response of each node enables its lookups in Redis.
    let predict = |node: &Spinfer, width: u32| {
        let body = format!("{{\"features\": [5.1, 3.5, 1.4, {width}]}}");
        let response = node.post("/iris/v2/models/iris-classifier/predict", body);
        assert_eq!(response.status, 200, "{response:?}");
        response.header("cache-status").unwrap_or_default().to_owned()
    };
    let mut width = 0;
    let mut shared = || {
        wait_until("one node serves what the other has computed", || {
            width += 1;
            predict(&nodes[0], width);
            predict(&nodes[1], width).ends_with("detail=redis")
        });
        width
    };
    let width = shared();
    let purged = nodes[0].admin().send("DELETE", "/cache", &[], b"");
    assert_eq!(purged.status, 200, "{purged:?}");
    wait_until("a purge on one node reaches the other", || {
        predict(&nodes[1], width).contains("fwd=miss")
    });
    shared();

    for (node, path) in nodes.iter().zip(["/store/key-value", "/store/wasi"]) {
        let script = "open default\nset a 1\nget a\nexists a\nkeys\ndelete a";
        let response = node.post(path, script);
        assert_eq!(response.text().trim_end(), "ok\nok\n1\ntrue\na\nok", "{path}");
    }
    let atomics = "open default\nset-many a=1 b=2\nget-many a b\nincrement n 5\ncas a\nswap 3";
    let response = nodes[0].post("/store/wasi", atomics);
    assert_eq!(response.text().trim_end(), "ok\nok\na=1,b=2\n5\nok\nok");
    let entries: (String, u64) = (redis.query(&["INFO", "keyspace"]), redis.query(&["DBSIZE"]));
    assert!(entries.0.contains("db1:keys=3") && entries.1 > 0, "{entries:?}");

    let denied: Vec<redis::Value> = redis.query(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "{denied:?}");
    for (user, command) in [
        ("spinfer-cache", &["GET", "a"][..]),
        ("spinfer-cache", &["FLUSHALL"]),
        ("spinfer-store", &["FLUSHALL"]),
        ("spinfer-store", &["CONFIG", "GET", "*"]),
        ("health", &["GET", "a"]),
    ] {
        let verdict: String = redis.query(&[&["ACL", "DRYRUN", user], command].concat());
        assert_ne!(verdict, "OK", "{user}: {command:?}");
    }
    let verdict: String = redis.query(&["ACL", "DRYRUN", "health", "PING"]);
    assert_eq!(verdict, "OK");
}

#[test]
fn health_exit_status_reflects_readiness() {
    let spinfer = Launch::new(&Manifest::default().with_iris("iris", 1, "/...", "")).up();
    let address = spinfer.address().to_string();
    wait_until("it is ready", || run(&["health", "--address", &address]).0.success());
    let (status, printed) = run(&["health", "--live", "--address", &address]);
    assert!(status.success() && printed == format!("{address} is live\n"), "{printed}");
    drop(spinfer);
    let (status, printed) = run(&["health", "--address", &address]);
    let expected = "is not ready: cannot connect: Connection refused; see --address";
    assert!(!status.success() && printed.contains(expected), "{printed}");
}

#[test]
fn health_prints_the_reason_from_the_host() {
    let responses = [
        ("{\"error\": \"iris: damaged\"}", "is not ready: iris: damaged"),
        ("", "is not ready: status 503 Service Unavailable: this may be another server"),
    ];
    for (body, expected) in responses {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length";
            write!(stream, "{head}: {}\r\n\r\n{body}", body.len()).unwrap();
            length
        });
        let (status, printed) = run(&["health", "--address", &address]);
        assert!(!status.success() && printed.contains(expected), "{printed}");
        assert!(server.join().unwrap() > 0);
    }
}

#[test]
fn build_no_commands_compiles_existing_components() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spin.toml");
    let build = "[component.hello.build]\ncommand = \"exit 7\"\n";
    let manifest = Manifest::default().with("/...", "hello", "hello_p2", build);
    std::fs::write(&path, manifest.text()).unwrap();
    let state = dir.path().join("state");
    let arguments = ["--from", path.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let (status, printed) = run(&[&["build", "--aot"], &arguments[..]].concat());
    assert!(!status.success() && printed.contains("exit 7"), "{printed}");
    let (status, printed) = run(&[&["build", "--aot", "--no-commands"], &arguments[..]].concat());
    assert!(status.success() && printed.contains("1 components compiled"), "{printed}");
}
